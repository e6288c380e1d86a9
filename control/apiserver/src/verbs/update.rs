//! Update: the whole object is replaced.

use serde_json::Value;

use super::body;
use super::reply;
use super::write::{self, Outcome};
use crate::api::Call;
use crate::body::Reply;
use crate::managed::Manager;
use crate::resources::Sub;
use crate::status::{Cause, Refusal, Result};
use crate::tree::{set, text};

/// Replaces the object with the one of the body.
pub async fn update(call: &Call, sub: Option<Sub>) -> Result<Reply> {
    let mut object = body::object(call)?;
    check_name(call, &object)?;
    let unversioned = text(&object, &["metadata", "resourceVersion"]).is_empty();
    if sub.is_none() && call.row.create_on_update && call.api.objects.get(&call.key()).is_none() {
        if !unversioned {
            return Err(Refusal::not_found(&call.row, &call.target.name));
        }
        set(&mut object, &["metadata", "name"], call.target.name.as_str());
        let created = write::create(call, object, &Manager::update(call)).await?;
        return reply::fresh(call, 201, created);
    }
    if unversioned && !call.row.unconditional_update {
        call.stored()?;
        let cause = Cause {
            reason: "FieldValueInvalid",
            message: "Invalid value: 0: must be specified for an update".to_owned(),
            field: "metadata.resourceVersion".to_owned(),
        };
        // Upstream names the resource here, where other refusals name the kind.
        return Err(Refusal::invalid_kind(&call.row.group, &call.row.plural, &call.target.name, vec![cause]));
    }
    call.row.store(&mut object);
    let outcome = write::change(call, sub, &Manager::update(call), |_| Ok(object.clone())).await?;
    answer(call, outcome)
}

/// Refuses an object that is not called as the path says.
pub fn check_name(call: &Call, object: &Value) -> Result<()> {
    match text(object, &["metadata", "name"]) {
        "" => Err(Refusal::bad_request("name must be provided")),
        name if name != call.target.name => Err(Refusal::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            call.target.name
        ))),
        _ => Ok(()),
    }
}

/// Answers with what a write led to.
pub fn answer(call: &Call, outcome: Outcome) -> Result<Reply> {
    match outcome {
        Outcome::Same(entry) => reply::stored(call, &entry),
        Outcome::Written(fresh) => reply::fresh(call, 200, fresh),
        Outcome::Deleted(value) => reply::tree(call, 200, value),
    }
}
