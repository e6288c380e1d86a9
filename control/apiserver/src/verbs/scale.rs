//! The scale subresource: a small view of replicas and selector.

use serde_json::{Value, json};

use super::body;
use super::reply::document;
use super::write::{self, Outcome};
use crate::api::Call;
use crate::body::Reply;
use crate::managed::Manager;
use crate::negotiate::content_type;
use crate::object;
use crate::patch::{json as json_patch, strategic};
use crate::printer::selector;
use crate::resources::Sub;
use crate::status::{Refusal, Result};
use crate::tree::{at, int, set, text};
use crate::validate::Errors;

/// Get, update or patch of a scale.
pub async fn dispatch(call: &Call) -> Result<Reply> {
    match call.target.verb {
        "get" => {
            let entry = call.stored()?;
            document(call, 200, &scale_of(&object::decode(&entry)))
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
        "application/apply-patch+yaml" => Ok(json_patch::merge(scale, &crate::negotiate::yaml(body)?)),
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
        let scale = wanted(&scale_of(old))?;
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
        set(&mut new, &["spec", "replicas"], replicas);
        Ok(new)
    });
    let value = match outcome.await? {
        Outcome::Same(entry) => object::decode(&entry),
        Outcome::Written(value) | Outcome::Deleted(value) => value,
    };
    document(call, 200, &scale_of(&value))
}

fn scale_of(object: &Value) -> Value {
    let meta = |field: &str| at(object, &["metadata", field]).clone();
    // A ReplicationController selects by plain labels, the others by a LabelSelector.
    let plain = text(object, &["kind"]) == "ReplicationController";
    let shown = if plain {
        crate::printer::labels(object, &["spec", "selector"])
    } else {
        selector(object, &["spec", "selector"])
    };
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": { "name": meta("name"), "namespace": meta("namespace"), "uid": meta("uid"),
                      "resourceVersion": meta("resourceVersion"), "creationTimestamp": meta("creationTimestamp") },
        "spec": { "replicas": int(object, &["spec", "replicas"]).unwrap_or_default() },
        "status": { "replicas": int(object, &["status", "replicas"]).unwrap_or_default(),
                    "selector": if shown == "<none>" { String::new() } else { shown } },
    })
}
