//! The scale subresource: a small view of replicas and selector.

use serde_json::{Value, json};

use super::body;
use super::patch::{applied_text, check_types, go_kind_of, unknown_form};
use super::reply::document;
use super::update::check_name;
use super::write::{self, Outcome};
use crate::api::Call;
use crate::body::Reply;
use crate::managed::{self, Manager};
use crate::name::Name;
use crate::negotiate::{APPLY, content_type};
use crate::patch::{json as json_patch, strategic};
use crate::printer::selector;
use crate::resources::{Row, Sub};
use crate::schema::schema;
use crate::status::{Refusal, Result};
use crate::tree::{at, int, set, text};
use crate::validate::Errors;

const KIND: (&str, &str, &str) = ("autoscaling", "v1", "Scale");

/// Get, update or patch of a scale.
pub async fn dispatch(call: &Call) -> Result<Reply> {
    match call.target.verb {
        "get" => {
            let entry = call.stored()?;
            document(call, 200, &scale_of(&call.row, &call.row.read(&entry))?)
        }
        "update" => {
            let wanted = body::of_kind(call, KIND)?;
            edit(call, |_| Ok(wanted.clone())).await
        }
        "patch" if content_type(&call.headers) == APPLY => apply(call).await,
        "patch" => {
            let raw = call.body.clone();
            let media = content_type(&call.headers).to_owned();
            let id = schema().kind(KIND.0, KIND.1, KIND.2).ok_or_else(Refusal::no_path)?;
            edit(call, |scale| {
                let patched = patch(call, &media, &raw, scale)?;
                let shown = patched.to_string();
                body::made(call, &schema().root(id), patched, &[], || shown.clone())
            })
            .await
        }
        _ => Err(super::unsupported()),
    }
}

fn patch(call: &Call, media: &str, body: &[u8], scale: &Value) -> Result<Value> {
    let parsed = || {
        serde_json::from_slice::<Value>(body)
            .map_err(|error| Refusal::bad_request(format!("the patch is not valid JSON: {error}")))
    };
    match media {
        "application/json-patch+json" => json_patch::apply(&json_patch::parse(body)?, scale),
        "application/merge-patch+json" => Ok(json_patch::merge(scale, &parsed()?)),
        "application/strategic-merge-patch+json" if call.row.custom.is_none() => {
            strategic::apply(&crate::schema::ANY, scale, &parsed()?)
        }
        _ => Err(unknown_form(call)),
    }
}

/// Changes the object as a changed scale of it says.
async fn edit<F>(call: &Call, wanted: F) -> Result<Reply>
where
    F: Fn(&Value) -> Result<Value> + Send + Sync,
{
    write_scale(call, &Manager::update(call), |old| {
        let scale = wanted(&scale_of(&call.row, old)?)?;
        check_name(call, &scale)?;
        check(call, old, &scale)?;
        let mut new = old.clone();
        set(&mut new, &paths(&call.row).spec, int(&scale, &["spec", "replicas"]).unwrap_or_default());
        Ok(new)
    })
    .await
}

/// Server-side apply of a scale is that of an object with replicas and nothing else.
async fn apply(call: &Call) -> Result<Reply> {
    let scale = applied_text(&call.body)?.value;
    let (version, kind) = (text(&scale, &["apiVersion"]), text(&scale, &["kind"]));
    if (version, kind) != ("autoscaling/v1", "Scale") {
        return Err(Refusal::bad_request(format!("invalid object type: {}", go_kind_of(version, kind))));
    }
    let id = schema().kind(KIND.0, KIND.1, KIND.2).ok_or_else(Refusal::no_path)?;
    check_types(&schema().root(id), version, kind, &scale)?;
    let mut wanted = json!({});
    if let Some(replicas) = int(&scale, &["spec", "replicas"]) {
        set(&mut wanted, &paths(&call.row).spec, replicas);
    }
    let manager = Manager::apply(call, &scale).wanting(wanted.clone());
    write_scale(call, &manager, |old| {
        check(call, old, &scale)?;
        managed::merge(&call.row, old, &wanted, &manager, Some(Sub::Scale))
    })
    .await
}

/// Refuses a scale of another version of the object, and one that cannot be.
fn check(call: &Call, old: &Value, scale: &Value) -> Result<()> {
    let given = text(scale, &["metadata", "resourceVersion"]);
    if !given.is_empty() && given != text(old, &["metadata", "resourceVersion"]) {
        return Err(Refusal::modified(&call.row, &call.target.name));
    }
    let mut errors = Errors::default();
    // Custom objects are checked themselves, with what they say of it.
    if call.row.custom.is_none() {
        errors.not_negative("spec.replicas", int(scale, &["spec", "replicas"]));
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Refusal::invalid(&call.row, &call.target.name, errors.into_causes()))
}

async fn write_scale<F>(call: &Call, manager: &Manager, new: F) -> Result<Reply>
where
    F: Fn(&Value) -> Result<Value> + Send + Sync,
{
    let outcome = write::change(call, Some(Sub::Scale), manager, |old| body::patched(call, new(old)?));
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
    let (replicas, selector) =
        (int(object, &paths.spec).unwrap_or_default(), shown_selector(row, object, &paths));
    let mut scale = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": { "name": meta("name"), "namespace": meta("namespace"), "uid": meta("uid"),
                      "resourceVersion": meta("resourceVersion"), "creationTimestamp": meta("creationTimestamp") },
        "spec": {},
        "status": { "replicas": int(object, &paths.status).unwrap_or_default() },
    });
    if replicas != 0 {
        set(&mut scale, &["spec", "replicas"], replicas);
    }
    if !selector.is_empty() {
        set(&mut scale, &["status", "selector"], selector);
    }
    Ok(scale)
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
