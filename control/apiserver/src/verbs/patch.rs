//! Patch: four ways to say what is to change.

use serde_json::Value;

use super::body::{rename_in, rename_out};
use super::update::answer;
use super::{reply, write};
use crate::api::Call;
use crate::body::Reply;
use crate::managed::Manager;
use crate::negotiate::{content_type, yaml};
use crate::patch::{json as json_patch, strategic};
use crate::resources::Sub;
use crate::status::{Refusal, Result};

const KNOWN: &str = "application/json-patch+json, application/merge-patch+json, \
    application/strategic-merge-patch+json, application/apply-patch+yaml";

/// Changes the object as the body says.
pub async fn patch(call: &Call, sub: Option<Sub>) -> Result<Reply> {
    match content_type(&call.headers) {
        "application/apply-patch+yaml" => apply(call, sub).await,
        "application/json-patch+json" => {
            let patch = json_patch::parse(&call.body)?;
            edit(call, sub, |old| json_patch::apply(&patch, old)).await
        }
        "application/merge-patch+json" => {
            let patch = parse(&call.body)?;
            edit(call, sub, |old| Ok(json_patch::merge(old, &patch))).await
        }
        "application/strategic-merge-patch+json" => {
            let patch = parse(&call.body)?;
            let node = call.row.node();
            edit(call, sub, |old| strategic::apply(&node, old, &patch)).await
        }
        _ => Err(Refusal::unsupported_media_type(KNOWN)),
    }
}

async fn edit<F>(call: &Call, sub: Option<Sub>, change: F) -> Result<Reply>
where
    F: Fn(&Value) -> Result<Value> + Send + Sync,
{
    let manager = Manager::update(call);
    let outcome = write::change(call, sub, &manager, |old| {
        let mut seen = old.clone();
        rename_out(call.row, &mut seen);
        let mut new = change(&seen)?;
        rename_in(call.row, &mut new);
        Ok(new)
    });
    answer(call, outcome.await?)
}

fn parse(body: &[u8]) -> Result<Value> {
    let value: Value = serde_json::from_slice(body)
        .map_err(|error| Refusal::bad_request(format!("the patch is not valid JSON: {error}")))?;
    if value.is_object() { Ok(value) } else { Err(Refusal::bad_request("the patch must be a JSON object")) }
}

/// Server-side apply: the body is what the manager wants, whole; what it no longer names is taken back.
async fn apply(call: &Call, sub: Option<Sub>) -> Result<Reply> {
    let manager = Manager::apply(call)?;
    let mut wanted = yaml(&call.body)?;
    crate::managed::check_applied(call, &wanted)?;
    rename_in(call.row, &mut wanted);
    let wanted = super::body::patched(call, &wanted)?;
    if call.api.objects.get(&call.key()).is_none() {
        if sub.is_some() {
            return Err(Refusal::not_found(call.row, &call.target.name));
        }
        let mut object = wanted;
        crate::tree::remove(&mut object, &["metadata", "resourceVersion"]);
        let mut created = write::create(call, object, &manager.with_applied(None)).await?;
        rename_out(call.row, &mut created);
        return reply::tree(call, 201, created);
    }
    let manager = manager.with_applied(Some(&wanted));
    let outcome = write::change(call, sub, &manager, |old| {
        crate::managed::merge(call.row, old, &wanted, &manager, sub)
    });
    answer(call, outcome.await?)
}
