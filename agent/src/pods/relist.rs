//! Looks at the whole runtime once a second and says which pods have changed: containerd 1.6 has no events.

use std::collections::{BTreeMap, BTreeSet};

use super::cri::{Cri, CriError};
use super::names::{self, PodKey};

/// Every pod of the runtime with a line that changes when something in it does.
pub type Picture = BTreeMap<PodKey, BTreeSet<(String, i32)>>;

/// Takes a picture.
pub async fn picture(cri: &Cri) -> Result<Picture, CriError> {
    let mut picture = Picture::new();
    for sandbox in cri.sandboxes(names::everything()).await? {
        if let Some(key) = PodKey::from_labels(&sandbox.labels) {
            picture.entry(key).or_default().insert((sandbox.id, sandbox.state));
        }
    }
    for container in cri.containers(names::everything()).await? {
        if let Some(key) = PodKey::from_labels(&container.labels) {
            picture.entry(key).or_default().insert((container.id, container.state));
        }
    }
    Ok(picture)
}

/// The pods that are not the same in both.
pub fn changed<'a>(before: &'a Picture, after: &'a Picture) -> BTreeSet<&'a PodKey> {
    before.keys().chain(after.keys()).filter(|key| before.get(key) != after.get(key)).collect()
}
