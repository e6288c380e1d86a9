//! One change of one object, as controllers are told of it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::controller::Key;

/// The metadata before and after; an absent side means the object was made or is gone.
#[derive(Debug)]
pub(crate) struct Change<'a> {
    /// Plural of the kind, with its group where it has one: `pods`, `deployments.apps`.
    pub(crate) resource: &'a str,
    pub(crate) key: &'a Key,
    pub(crate) old: Option<&'a ObjectMeta>,
    pub(crate) new: Option<&'a ObjectMeta>,
}

impl Change<'_> {
    pub(crate) fn is(&self, resource: &str) -> bool {
        self.resource == resource
    }

    /// Both sides that exist.
    pub(crate) fn metas(&self) -> impl Iterator<Item = &ObjectMeta> {
        self.old.into_iter().chain(self.new)
    }

    /// Keys of the objects of `kind` that control or controlled this object.
    pub(crate) fn controllers(&self, kind: &str) -> Vec<Key> {
        self.metas()
            .filter_map(controller_of)
            .filter(|owner| owner.kind == kind)
            .map(|owner| Key::new(&self.key.namespace, &owner.name))
            .collect()
    }
}

/// The owner marked as the controller.
pub(crate) fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}
