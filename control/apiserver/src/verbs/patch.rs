//! Patch: four ways to say what is to change.

use serde_json::Value;

use super::body::{applied, patched};
use super::update::answer;
use super::{reply, write};
use crate::api::Call;
use crate::body::Reply;
use crate::managed::{self, Manager};
use crate::negotiate::{APPLY, content_type, yaml};
use crate::patch::{json as json_patch, strategic};
use crate::resources::Sub;
use crate::status::{Refusal, Result};
use crate::tree::{at, set, text};

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
            edit(call, sub, |old| json_patch::apply(&patch, old)).await
        }
        "application/merge-patch+json" => {
            let patch = parse(&call.body)?;
            edit(call, sub, |old| Ok(json_patch::merge(old, &patch))).await
        }
        "application/strategic-merge-patch+json" if call.row.custom.is_none() => {
            let patch = parse(&call.body)?;
            let node = call.row.node();
            edit(call, sub, |old| strategic::apply(node, old, &patch)).await
        }
        _ if call.row.custom.is_some() => Err(Refusal::unsupported_media_type(KNOWN_OF_CUSTOM)),
        _ => Err(Refusal::unsupported_media_type(KNOWN)),
    }
}

async fn edit<F>(call: &Call, sub: Option<Sub>, change: F) -> Result<Reply>
where
    F: Fn(&Value) -> Result<Value> + Send + Sync,
{
    let manager = Manager::update(call);
    let outcome = write::change(call, sub, &manager, |old| patched(call, change(&call.row.shown(old))?));
    answer(call, outcome.await?)
}

fn parse(body: &[u8]) -> Result<Value> {
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| Refusal::bad_request(format!("the patch is not valid JSON: {error}")))?;
    if value.is_object() { Ok(value) } else { Err(Refusal::bad_request("the patch must be a JSON object")) }
}

/// Server-side apply: the body is what the manager wants, whole; what it no longer names is taken back.
async fn apply(call: &Call, sub: Option<Sub>) -> Result<Reply> {
    let mut wanted = yaml(&call.body)?;
    check_identity(call, &mut wanted)?;
    keep_part(&mut wanted, sub);
    let wanted = applied(call, wanted)?;
    let manager = Manager::apply(call, &wanted);
    if call.api.objects.get(&call.key()).is_none() {
        refuse_creation(call, sub, &wanted)?;
        let created = write::create(call, wanted, &manager).await?;
        return reply::fresh(call, 201, created);
    }
    let outcome = write::change(call, sub, &manager, |old| {
        patched(call, managed::merge(&call.row, old, &wanted, &manager, sub)?)
    });
    answer(call, outcome.await?)
}

/// An applied object says what it is, and not who owns it; its name may be left to the path.
fn check_identity(call: &Call, wanted: &mut Value) -> Result<()> {
    let (version, kind) = (text(wanted, &["apiVersion"]), text(wanted, &["kind"]));
    if version != call.row.api_version() || kind != &*call.row.kind {
        let version = if version.is_empty() { "/" } else { version };
        return Err(Refusal::bad_request(format!("invalid object type: {version}, Kind={kind}")));
    }
    if at(wanted, &["metadata", "managedFields"]).is_array() {
        return Err(Refusal::bad_request("metadata.managedFields must be nil"));
    }
    if text(wanted, &["metadata", "name"]).is_empty() {
        set(wanted, &["metadata", "name"], call.target.name.as_str());
    }
    Ok(())
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
