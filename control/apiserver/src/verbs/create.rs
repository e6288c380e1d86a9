//! Create.

use super::{body, reply, write};
use crate::api::Call;
use crate::body::Reply;
use crate::managed::Manager;
use crate::status::Result;

/// Creates the object of the body.
pub async fn create(call: &Call) -> Result<Reply> {
    let object = body::object(call)?;
    let created = write::create(call, object, &Manager::update(call)).await?;
    reply::fresh(call, 201, created)
}
