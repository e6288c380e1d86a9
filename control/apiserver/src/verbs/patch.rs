//! Patch: four ways to say what is to change.

use serde_json::Value;

use super::body::{decoded, edited, patched, strict};
use super::update::answer;
use super::{reply, write};
use crate::api::Call;
use crate::body::Reply;
use crate::json_syntax;
use crate::managed::{self, Manager};
use crate::negotiate::{APPLY, Yaml, content_type, yaml};
use crate::patch::{json as json_patch, strategic};
use crate::resources::Sub;
use crate::schema::decode::{Decoded, from_slice};
use crate::schema::{ANY, Node};
use crate::status::{Refusal, Result};
use crate::tree::{at, go_text, in_order, set, text};

const KNOWN: &str = "application/json-patch+json, application/merge-patch+json, \
    application/strategic-merge-patch+json, application/apply-patch+yaml";

/// Custom resources have no merge keys.
const KNOWN_OF_CUSTOM: &str =
    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";

/// Changes the object as the body says.
pub async fn patch(call: &Call, sub: Option<Sub>) -> Result<Reply> {
    match content_type(&call.headers) {
        APPLY => apply(call, sub).await,
        "application/json-patch+json" => {
            let patch = json_patch::parse(&call.body)?;
            edit(call, sub, &[], Value::to_string, |old| json_patch::apply(&patch, old)).await
        }
        "application/merge-patch+json" => {
            let Decoded { value: patch, strange } = parse(&call.body, "error decoding patch: ")?;
            edit(call, sub, &strange, Value::to_string, |old| Ok(json_patch::merge(old, &patch))).await
        }
        "application/strategic-merge-patch+json" if call.row.custom.is_none() => {
            let Decoded { value: patch, strange } = parse(&call.body, "")?;
            let node = call.row.node();
            edit(call, sub, &strange, |_| go_text(&patch), |old| strategic::apply(node, old, &patch)).await
        }
        _ => Err(unknown_form(call)),
    }
}

/// The refusal of a patch in a form that the call's kind does not take.
pub(super) fn unknown_form(call: &Call) -> Refusal {
    Refusal::unsupported_media_type(if call.row.custom.is_some() { KNOWN_OF_CUSTOM } else { KNOWN })
}

/// Makes a change; `twice` was strange about the patch, and `shown` is what a refusal shows of what it made.
async fn edit<F, S>(call: &Call, sub: Option<Sub>, twice: &[String], shown: S, change: F) -> Result<Reply>
where
    F: Fn(&Value) -> Result<Value> + Send + Sync,
    S: Fn(&Value) -> String + Send + Sync,
{
    let manager = Manager::update(call);
    let outcome = write::change(call, sub, &manager, |old| {
        let old = call.row.shown(old);
        // What was made is given away, and made again where it has to be shown.
        edited(call, change(&old)?, twice, || {
            change(&in_order(&old)).map(|made| shown(&made)).unwrap_or_default()
        })
    });
    answer(call, outcome.await?)
}

/// Reads a patch of fields; refusals begin with `what`.
fn parse(body: &[u8], what: &str) -> Result<Decoded> {
    let refused = |why: &str| Refusal::bad_request(format!("{what}{why}"));
    let decoded = from_slice(&ANY, body)
        .map_err(|error| refused(&json_syntax::fault(body).unwrap_or_else(|| error.to_string())))?;
    match go_kind(&decoded.value) {
        None => Ok(decoded),
        Some(given) => Err(refused(&format!(
            "json: cannot unmarshal {given} into Go value of type map[string]interface {{}}"
        ))),
    }
}

/// What Go calls a value that is no object.
fn go_kind(value: &Value) -> Option<&'static str> {
    match value {
        Value::Object(_) => None,
        Value::Null => Some("null"),
        Value::Bool(_) => Some("bool"),
        Value::Number(_) => Some("number"),
        Value::String(_) => Some("string"),
        Value::Array(_) => Some("array"),
    }
}

/// Server-side apply: the body is what the manager wants, whole; what it no longer names is taken back.
async fn apply(call: &Call, sub: Option<Sub>) -> Result<Reply> {
    let Yaml { value: mut wanted, twice } = applied_text(&call.body)?;
    check_identity(call, &wanted)?;
    check_types(call.row.node(), &call.row.api_version(), &call.row.kind, &wanted)?;
    if text(&wanted, &["metadata", "name"]).is_empty() {
        set(&mut wanted, &["metadata", "name"], call.target.name.as_str());
    }
    let manager = Manager::apply(call, &wanted);
    keep_part(&mut wanted, sub);
    let object = decoded(call, wanted.clone())?;
    let wanted = managed::with_nothings(call.row.node(), object.clone(), &wanted);
    // Where it is no error upstream has no warning either: those hold no line ends.
    if let Some(twice) = twice.filter(|_| strict(call)) {
        let message = format!("error strict decoding YAML: error converting YAML to JSON: {twice}");
        return Err(Refusal::bad_request(message));
    }
    let manager = manager.wanting(wanted.clone());
    if call.api.objects.get(&call.key()).is_none() {
        refuse_creation(call, sub, &object)?;
        let created = write::create(call, object, &manager).await?;
        return reply::fresh(call, 201, created);
    }
    let outcome = write::change(call, sub, &manager, |old| {
        patched(call, managed::merge(&call.row, old, &wanted, &manager, sub)?)
    });
    answer(call, outcome.await?)
}

/// What an applied body says.
pub(super) fn applied_text(body: &[u8]) -> Result<Yaml> {
    let refused = |fault| format!("error decoding YAML: error converting YAML to JSON: {fault}");
    yaml(body).map_err(|fault| Refusal::bad_request(refused(fault)))
}

/// An applied object says what it is, and not who owns it.
fn check_identity(call: &Call, wanted: &Value) -> Result<()> {
    let (version, kind) = (text(wanted, &["apiVersion"]), text(wanted, &["kind"]));
    if version != call.row.api_version() || kind != &*call.row.kind {
        return Err(Refusal::bad_request(format!("invalid object type: {}", go_kind_of(version, kind))));
    }
    if at(wanted, &["metadata", "managedFields"]).is_array() {
        return Err(Refusal::bad_request("metadata.managedFields must be nil"));
    }
    Ok(())
}

/// Refuses what does not have the types of its kind, or names what its kind does not have, whatever the client wants of fields
/// that are unknown elsewhere.
pub(super) fn check_types(node: &Node, api_version: &str, kind: &str, wanted: &Value) -> Result<()> {
    let Some(faults) = managed::faults(node, wanted) else { return Ok(()) };
    let [namespace, name] = ["namespace", "name"].map(|field| text(wanted, &["metadata", field]));
    let kind = go_kind_of(api_version, kind);
    Err(Refusal::bad_request(format!(
        "failed to create typed patch object ({namespace}/{name}; {kind}): {faults}"
    )))
}

/// A kind as Go prints it: with a slash also where it has no group.
pub(super) fn go_kind_of(api_version: &str, kind: &str) -> String {
    let slash = if api_version.contains('/') { "" } else { "/" };
    format!("{slash}{api_version}, Kind={kind}")
}

/// What else is applied to a status has no effect, and no owner.
fn keep_part(wanted: &mut Value, sub: Option<Sub>) {
    if let (Some(Sub::Status), Some(fields)) = (sub, wanted.as_object_mut()) {
        fields.retain(|name, _| matches!(&**name, "apiVersion" | "kind" | "metadata" | "status"));
    }
}

/// What says that it is there already is not made.
fn refuse_creation(call: &Call, sub: Option<Sub>, wanted: &Value) -> Result<()> {
    let name = &call.target.name;
    if sub.is_some() || !text(wanted, &["metadata", "resourceVersion"]).is_empty() {
        return Err(Refusal::not_found(&call.row, name));
    }
    let uid = text(wanted, &["metadata", "uid"]);
    if !uid.is_empty() {
        let why = format!(
            "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
        );
        return Err(Refusal::conflict(&call.row, name, &why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn trees_are_shown_as_go_shows_them() {
        let tree = json!({ "b": [2.0, "x", null], "a": { "d": true, "c": {} } });
        assert_eq!(go_text(&tree), "map[a:map[c:map[] d:true] b:[2 x <nil>]]");
        assert_eq!(in_order(&tree).to_string(), r#"{"a":{"c":{},"d":true},"b":[2.0,"x",null]}"#);
    }

    #[test]
    fn a_patch_says_what_it_has_twice_and_keeps_its_nulls() {
        let read = parse(br#"{"a": null, "b": {"c": 1, "c": 2}}"#, "").unwrap();
        assert_eq!(read.value, json!({ "a": null, "b": { "c": 2 } }));
        assert_eq!(read.strange, [r#"duplicate field "b.c""#]);
    }
}
