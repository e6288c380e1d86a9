//! What goes on after a write of a definition: objects of a deleted one are deleted before it, and a name that became
//! free goes to whoever waits for it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use store::Txn;

use super::{CLEANUP, condition_is, rows, set_condition};
use crate::api::{Api, Call};
use crate::object::{self, Stored, key, prefix};
use crate::route::Target;
use crate::status::Refusal;
use crate::tree::{at, list, set};
use crate::verbs::delete::{self, Options};
use crate::verbs::write::timestamp;

/// How long objects with finalizers are waited for before they are looked at again.
const AGAIN: Duration = Duration::from_millis(500);

/// Tends to definitions until the server stops.
pub async fn run(api: Arc<Api>) {
    let mut changes = api.definitions.changes();
    loop {
        changes.mark_unchanged();
        let waiting = pass(&api).await;
        tokio::select! {
            _ = changes.changed() => {}
            () = tokio::time::sleep(AGAIN), if waiting => {}
            () = api.stopping.cancelled() => return,
        }
    }
}

/// Looks at every definition that is not as it should be; returns whether one has to be looked at again.
async fn pass(api: &Arc<Api>) -> bool {
    let mut waiting = false;
    for name in api.definitions.unfinished() {
        let Some(entry) = api.objects.get(&key(super::row(), "", &name)) else { continue };
        let definition = object::decode(&entry);
        let result = if at(&definition, &["metadata", "deletionTimestamp"]).is_null() {
            settle(api, &name).await.map(|()| false)
        } else {
            clear(api, &name, &entry, &definition).await
        };
        waiting |= result.unwrap_or_else(|refusal| {
            tracing::warn!(
                definition = name,
                message = refusal.message,
                "a definition is not as it should be and is tried again"
            );
            true
        });
    }
    waiting
}

/// Tries again to give a definition the names it wants.
async fn settle(api: &Arc<Api>, name: &str) -> Result<(), Refusal> {
    let _turn = api.definitions.turn(super::row()).await;
    let Some(entry) = api.objects.get(&key(super::row(), "", name)) else { return Ok(()) };
    let mut definition = object::decode(&entry);
    let before = definition.clone();
    api.definitions.settle(&mut definition, &timestamp(Timestamp::now()));
    if definition == before {
        return Ok(());
    }
    put(api, &entry, &definition).await
}

async fn put(api: &Arc<Api>, entry: &Stored, definition: &Value) -> Result<(), Refusal> {
    let txn = Txn::update(&*entry.key, entry.mod_revision, object::encode(definition));
    api.txn(txn).await.map_err(Refusal::internal)?;
    Ok(())
}

/// Deletes the objects of a definition that is being deleted, and then lets go of it. Returns whether some are left.
async fn clear(api: &Arc<Api>, name: &str, entry: &Stored, definition: &Value) -> Result<bool, Refusal> {
    if !list(definition, &["metadata", "finalizers"]).contains(&json!(CLEANUP)) {
        return Ok(false);
    }
    let left = match rows::stored(entry) {
        Some(row) => delete_objects(api, &Arc::new(row)).await?,
        None => 0,
    };
    let _turn = api.definitions.turn(super::row()).await;
    let Some(entry) = api.objects.get(&key(super::row(), "", name)) else { return Ok(false) };
    let mut definition = object::decode(&entry);
    if left > 0 {
        report(api, &entry, &mut definition, left).await?;
        return Ok(true);
    }
    let rest: Vec<Value> = list(&definition, &["metadata", "finalizers"])
        .iter()
        .filter(|one| **one != CLEANUP)
        .cloned()
        .collect();
    if rest.is_empty() {
        api.txn(Txn::delete(&*entry.key, entry.mod_revision)).await.map_err(Refusal::internal)?;
        return Ok(false);
    }
    set(&mut definition, &["metadata", "finalizers"], rest);
    let text = ("InstanceDeletionCompleted", "removed all instances");
    set_condition(&mut definition, "Terminating", "False", text, &timestamp(Timestamp::now()));
    put(api, &entry, &definition).await?;
    Ok(false)
}

/// Says in the definition that objects are waited for, once.
async fn report(api: &Arc<Api>, entry: &Stored, definition: &mut Value, left: usize) -> Result<(), Refusal> {
    let reason = "InstanceDeletionInProgress";
    let told = list(definition, &["status", "conditions"]).iter().any(|one| one["reason"] == reason);
    if told && condition_is(definition, "Terminating", "True") {
        return Ok(());
    }
    let text = format!("CustomResource deletion is in progress: {left} wait for their finalizers");
    set_condition(definition, "Terminating", "True", (reason, &text), &timestamp(Timestamp::now()));
    put(api, entry, definition).await
}

/// Deletes every object of the row; returns how many are still there.
async fn delete_objects(api: &Arc<Api>, row: &Arc<crate::resources::Row>) -> Result<usize, Refusal> {
    let all = || api.objects.range(&prefix(row, ""), None, 0, None).map_err(Refusal::internal);
    for entry in all()?.entries {
        let target = Target {
            verb: "delete",
            group: row.group.to_string(),
            version: row.version.to_string(),
            namespace: entry.header.namespace.to_string(),
            resource: row.plural.to_string(),
            name: entry.header.name.to_string(),
            subresource: String::new(),
        };
        let call = Call::internal(api, row, target);
        match delete::one(&call, &entry.header.name, &Options::default()).await {
            Ok(_) => {}
            Err(refusal) if refusal.code == 404 => {}
            Err(refusal) => return Err(refusal),
        }
    }
    Ok(all()?.entries.len())
}
