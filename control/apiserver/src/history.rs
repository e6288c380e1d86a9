//! How long a list can be continued at the revision it began at.
//!
//! kube-apiserver has etcd forget every five minutes what is older than five minutes, and clients count on it: a
//! token to continue with expires, and what they do then is what its refusal offers. The store could go further back; its
//! watches do.

use std::sync::Arc;

use store::{Revision, Txn, TxnError};
use tokio::time;

use crate::api::Api;
use crate::object::{Header, Objects, ROOT};

/// What the embedded store writes at the end of each round, under the name that kube-apiserver's has in etcd.
const KEY: &str = "compact_rev_key";

/// Forgets until the server stops.
pub async fn run(api: Arc<Api>) {
    let mut before = 0;
    loop {
        tokio::select! {
            () = time::sleep(api.patience.pages) => {}
            () = api.stopping.cancelled() => return,
        }
        match round(&api.objects, before).await {
            Ok(revision) => before = revision,
            Err(error) => {
                tracing::warn!(%error, "old revisions are still listed: the end of a round was not written");
            }
        }
    }
}

/// Forgets what was before `before`. The revision where the round ends is one that no list has begun at.
async fn round(objects: &Objects, before: Revision) -> Result<Revision, TxnError<Header>> {
    objects.compact(before);
    if objects.is_shared() {
        // In etcd the one server that forgets for all writes it.
        return Ok(objects.revision());
    }
    let key = format!("{ROOT}{KEY}");
    let found = objects.get(&key).map_or(0, |entry| entry.mod_revision);
    objects.txn(Txn::update(key, found, before.to_string().into())).await
}

#[cfg(test)]
mod tests {
    use store::{Options, RangeError, Store};

    use super::*;
    use crate::object;

    #[tokio::test]
    async fn what_was_before_the_last_round_is_forgotten_and_each_round_has_a_revision() {
        let objects = Store::in_memory(Options::default(), object::header).unwrap();
        let put = async |name: &str| {
            let key = format!("{ROOT}configmaps/d/{name}");
            objects.txn(Txn::create(key, "{}".into())).await.unwrap()
        };
        let listed =
            |at| objects.range("/registry/configmaps/", None, 0, Some(at)).map(|page| page.entries.len());
        let first = put("a").await;
        let one = round(&objects, 0).await.unwrap();
        put("b").await;
        assert_eq!((listed(first), listed(one)), (Ok(1), Ok(1)));
        let two = round(&objects, one).await.unwrap();
        assert!(first < one && one < two, "a list begun in a round shows its revision, not that of the next");
        assert!(matches!(listed(first), Err(RangeError::Compacted(_))), "{:?}", listed(first));
        assert_eq!((listed(one), listed(two)), (Ok(1), Ok(2)));
        assert!(objects.watch("/registry/configmaps/", first).is_ok(), "watches reach further back");
    }
}
