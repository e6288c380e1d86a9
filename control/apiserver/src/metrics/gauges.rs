//! What is not counted but looked up when somebody asks.

use super::text::metric;
use super::{Metrics, process};
use crate::api::Api;
use crate::documents::{health, version};
use crate::object::prefix;

/// The text of everything that is looked up.
pub fn write(out: &mut String, api: &Api, metrics: &Metrics) {
    let labels: Vec<String> = version()
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| format!("{}={value}", snake(name)))
        .collect();
    let build = (format!("{{{}}}", labels.join(",")), 1.0);
    metric(out, ("kubernetes_build_info", "gauge", "The version of this server"), [build]);
    objects(out, api);
    let checks = health::QUESTIONS.into_iter().flat_map(|question| {
        let checks = health::checks(api, question).into_iter();
        checks.map(move |(name, fault)| {
            (format!("{{name=\"{name}\",type=\"{question}\"}}"), f64::from(u8::from(fault.is_none())))
        })
    });
    metric(out, ("kubernetes_healthcheck", "gauge", "Whether a health check passes"), checks);
    process::write(out, metrics.started);
}

/// How many objects are stored, under the name of today and the one before it.
fn objects(out: &mut String, api: &Api) {
    let table = api.table.load();
    let mut counted: Vec<(String, String, f64)> = table
        .rows()
        .iter()
        .filter(|row| row.is_kept())
        .map(|row| {
            (row.group.to_string(), row.plural.to_string(), api.objects.count(&prefix(row, "")) as f64)
        })
        .collect();
    // A kind that is served in several versions is stored once.
    counted.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    counted.dedup_by(|a, b| (&a.0, &a.1) == (&b.0, &b.1));
    let now = counted
        .iter()
        .map(|(group, plural, count)| (format!("{{group=\"{group}\",resource=\"{plural}\"}}"), *count));
    metric(out, ("apiserver_resource_objects", "gauge", "Objects that are stored, by kind"), now);
    let before = counted.iter().map(|(group, plural, count)| {
        let dot = if group.is_empty() { "" } else { "." };
        (format!("{{resource=\"{plural}{dot}{group}\"}}"), *count)
    });
    metric(out, ("apiserver_storage_objects", "gauge", "Objects that are stored, by kind"), before);
}

/// `gitVersion` as `git_version`.
fn snake(name: &str) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}
