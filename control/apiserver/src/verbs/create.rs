//! Create.

use super::body::{self, rename_out};
use super::{reply, write};
use crate::api::Call;
use crate::body::Reply;
use crate::managed::Manager;
use crate::status::Result;

/// Creates the object of the body.
pub async fn create(call: &Call) -> Result<Reply> {
    let object = body::object(call)?;
    let mut created = write::create(call, object, &Manager::update(call)).await?;
    rename_out(&call.row, &mut created);
    reply::tree(call, 201, created)
}
