//! Deletion of every selected object.

use futures::{StreamExt, TryStreamExt};

use super::delete::{self, Options};
use super::read;
use super::reply::{self, ListMeta};
use crate::api::Call;
use crate::body::Reply;
use crate::object::{self, Stored};
use crate::status::{Refusal, Result};

/// Deletions that are under way at once: they reach the disk together.
const TOGETHER: usize = 64;

/// Deletes the selected objects; those that went in the meantime are no error.
pub async fn delete(call: &Call) -> Result<Reply> {
    let options = Options::of(call)?;
    let selector = read::selector(call)?;
    let prefix = object::prefix(&call.row, &call.target.namespace);
    let page = call
        .api
        .objects
        .select(&prefix, None, 0, None, |entry| selector.matches(entry))
        .map_err(Refusal::internal)?;
    let deletions = page.entries.into_iter().map(|entry| one(call, entry, &options));
    let deletions = futures::stream::iter(deletions).buffered(TOGETHER);
    let deleted: Vec<Option<Stored>> = deletions.try_collect().await?;
    let meta = ListMeta { revision: call.api.objects.revision(), ..ListMeta::default() };
    reply::list(call, &meta, deleted.into_iter().flatten().collect()).await
}

/// Deletes one object; `None` if it was gone.
async fn one(call: &Call, entry: Stored, options: &Options) -> Result<Option<Stored>> {
    match delete::one(call, &entry.header.name, options).await {
        Ok(_) => Ok(Some(entry)),
        Err(refusal) if refusal.code == 404 => Ok(None),
        Err(refusal) => Err(refusal),
    }
}
