//! ComponentStatus: whether what the server leans on works. That is the store; who schedules and controls is a client like any other.

use serde_json::{Value, json};

use super::{read, reply};
use crate::api::{Api, Call};
use crate::body::Reply;
use crate::documents::health::store_fault;
use crate::object;
use crate::status::{Refusal, Result};

/// The name of the store, whichever it is.
const STORE: &str = "etcd-0";

/// Answers with one component.
pub fn get(call: &Call) -> Result<Reply> {
    if call.target.name != STORE {
        return Err(Refusal::not_found(&call.row, &call.target.name));
    }
    reply::tree(call, 200, store(&call.api))
}

/// Answers with the components that the selector selects.
pub fn list(call: &Call) -> Result<Reply> {
    let selector = read::selector(call)?;
    let (all, key) = ([store(&call.api)].into_iter(), object::key(&call.row, "", STORE));
    reply::computed(call, all.filter(|one| selector.matches(&object::unstored(&key, one))).collect())
}

fn store(api: &Api) -> Value {
    let (status, word, text) = match store_fault(api) {
        None => ("True", "message", "ok"),
        Some(why) => ("False", "error", why),
    };
    let condition = json!({ "type": "Healthy", "status": status, word: text });
    json!({ "kind": "ComponentStatus", "apiVersion": "v1", "metadata": { "name": STORE }, "conditions": [condition] })
}
