//! Deletion of every selected object.

use super::delete::{self, Options};
use super::read;
use super::reply::{self, ListMeta};
use crate::api::Call;
use crate::body::Reply;
use crate::object;
use crate::status::{Refusal, Result};

/// Deletes the selected objects one by one; those that went in the meantime are no error.
pub async fn delete(call: &Call) -> Result<Reply> {
    let options = Options::of(call)?;
    let selector = read::selector(call)?;
    let prefix = object::prefix(&call.row, &call.target.namespace);
    let page = call.api.objects.range(&prefix, None, 0, None).map_err(Refusal::internal)?;
    let mut deleted = Vec::new();
    for entry in page.entries.into_iter().filter(|entry| selector.matches(entry)) {
        match delete::one(call, &entry.header.name, &options).await {
            Ok(_) => deleted.push(entry),
            Err(refusal) if refusal.code == 404 => {}
            Err(refusal) => return Err(refusal),
        }
    }
    let meta = ListMeta { revision: call.api.objects.revision(), ..ListMeta::default() };
    reply::list(call, &meta, deleted)
}
