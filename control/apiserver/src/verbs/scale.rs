//! The scale subresource: a small view of replicas and selector.

use serde_json::{Value, json};

use super::body;
use super::reply::document;
use super::write::{self, Outcome};
use crate::api::Call;
use crate::body::Reply;
use crate::managed::Manager;
use crate::name::Name;
use crate::negotiate::{APPLY, content_type};
use crate::patch::{json as json_patch, strategic};
use crate::printer::selector;
use crate::resources::{Row, Sub};
use crate::status::{Refusal, Result};
use crate::tree::{at, int, set, text};
use crate::validate::Errors;

/// Get, update or patch of a scale.
pub async fn dispatch(call: &Call) -> Result<Reply> {
    match call.target.verb {
        "get" => {
            let entry = call.stored()?;
            document(call, 200, &scale_of(&call.row, &call.row.read(&entry))?)
        }
        "update" => {
            let wanted = body::of_kind(call, ("autoscaling", "v1", "Scale"))?;
            write_scale(call, |_| Ok(wanted.clone())).await
        }
        "patch" => {
            let raw = call.body.clone();
            let media = content_type(&call.headers).to_owned();
            write_scale(call, move |scale| patch(&media, &raw, scale)).await
        }
        verb => Err(super::unsupported(call, verb)),
    }
}

fn patch(media: &str, body: &[u8], scale: &Value) -> Result<Value> {
    let parsed = || {
        serde_json::from_slice::<Value>(body)
            .map_err(|error| Refusal::bad_request(format!("the patch is not valid JSON: {error}")))
    };
    match media {
        "application/json-patch+json" => json_patch::apply(&json_patch::parse(body)?, scale),
        "application/merge-patch+json" => Ok(json_patch::merge(scale, &parsed()?)),
        "application/strategic-merge-patch+json" => strategic::apply(&crate::schema::ANY, scale, &parsed()?),
        APPLY => Ok(json_patch::merge(scale, &crate::negotiate::yaml(body)?)),
        _ => Err(Refusal::unsupported_media_type(
            "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml",
        )),
    }
}

async fn write_scale<F>(call: &Call, wanted: F) -> Result<Reply>
where
    F: Fn(&Value) -> Result<Value> + Send + Sync,
{
    let manager = Manager::update(call);
    let outcome = write::change(call, Some(Sub::Scale), &manager, |old| {
        let scale = wanted(&scale_of(&call.row, old)?)?;
        let given = text(&scale, &["metadata", "resourceVersion"]);
        if !given.is_empty() && given != text(old, &["metadata", "resourceVersion"]) {
            return Err(Refusal::modified(&call.row, &call.target.name));
        }
        let replicas = int(&scale, &["spec", "replicas"]).unwrap_or_default();
        let mut errors = Errors::default();
        errors.not_negative("spec.replicas", Some(replicas));
        if !errors.is_empty() {
            return Err(Refusal::invalid(&call.row, &call.target.name, errors.into_causes()));
        }
        let mut new = old.clone();
        set(&mut new, &paths(&call.row).spec, replicas);
        body::patched(call, new)
    });
    let value = match outcome.await? {
        Outcome::Same(entry) => call.row.read(&entry),
        Outcome::Written(fresh) => fresh.into_object(),
        Outcome::Deleted(value) => value,
    };
    document(call, 200, &scale_of(&call.row, &value)?)
}

/// Where an object keeps its replicas and its selector.
struct Paths<'a> {
    spec: Vec<&'a str>,
    status: Vec<&'a str>,
    /// A selector in the form of a command line, for custom resources.
    selector: Option<Vec<&'a str>>,
}

fn paths(row: &Row) -> Paths<'_> {
    fn words(names: &[Name]) -> Vec<&str> {
        names.iter().map(|name| &**name).collect()
    }
    match row.custom.as_ref().and_then(|custom| custom.scale.as_ref()) {
        Some(own) => Paths {
            spec: words(&own.spec),
            status: words(&own.status),
            selector: own.selector.as_deref().map(words),
        },
        None => Paths { spec: vec!["spec", "replicas"], status: vec!["status", "replicas"], selector: None },
    }
}

fn scale_of(row: &Row, object: &Value) -> Result<Value> {
    let paths = paths(row);
    let meta = |field: &str| at(object, &["metadata", field]).clone();
    if row.custom.is_some() && at(object, &paths.spec).is_null() {
        let path = paths.spec.join(".");
        return Err(Refusal::internal(format!("the spec replicas field \".{path}\" does not exist")));
    }
    Ok(json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": { "name": meta("name"), "namespace": meta("namespace"), "uid": meta("uid"),
                      "resourceVersion": meta("resourceVersion"), "creationTimestamp": meta("creationTimestamp") },
        "spec": { "replicas": int(object, &paths.spec).unwrap_or_default() },
        "status": { "replicas": int(object, &paths.status).unwrap_or_default(),
                    "selector": shown_selector(row, object, &paths) },
    }))
}

fn shown_selector(row: &Row, object: &Value, paths: &Paths<'_>) -> String {
    if row.custom.is_some() {
        return paths.selector.as_ref().map(|path| text(object, path).to_owned()).unwrap_or_default();
    }
    // A ReplicationController selects by plain labels, the others by a LabelSelector.
    let shown = if text(object, &["kind"]) == "ReplicationController" {
        crate::printer::labels(object, &["spec", "selector"])
    } else {
        selector(object, &["spec", "selector"])
    };
    if shown == "<none>" { String::new() } else { shown }
}
