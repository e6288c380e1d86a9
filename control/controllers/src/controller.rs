//! The shape of a controller.

use std::time::Duration;

use jiff::Timestamp;

use crate::change::Change;
use crate::view::View;
use crate::write::Write;

/// Namespace and name of an object; cluster-scoped objects have an empty namespace. Orders by namespace first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key of a cluster-scoped object.
    pub(crate) fn cluster(name: impl Into<String>) -> Self {
        Self::new("", name)
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            return f.write_str(&self.name);
        }
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What a look at one key led to.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    /// Carried out in order; the first failure ends the look, which is tried again later.
    pub(crate) writes: Vec<Write>,
    /// Look again after this time even if nothing changes.
    pub(crate) again: Option<Duration>,
    /// Do not look again before this time is over, whatever changes.
    pub(crate) rest: Duration,
}

impl Outcome {
    pub(crate) fn nothing() -> Self {
        Self::default()
    }

    pub(crate) fn writes(writes: Vec<Write>) -> Self {
        Self { writes, ..Self::default() }
    }

    /// Asks for another look at `after`, or sooner if that was asked for already.
    pub(crate) fn look_again(&mut self, after: Duration) {
        self.again = Some(self.again.map_or(after, |earlier| earlier.min(after)));
    }
}

/// Why the last write of a look was refused.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) verb: &'static str,
    /// See [`crate::change::Change::resource`].
    pub(crate) resource: String,
    /// What the API server said.
    pub(crate) message: String,
}

/// One rule of the cluster. Pure: reads the view, returns writes.
pub(crate) trait Controller: Send + Sync + 'static {
    /// The name upstream's kube-controller-manager gives it, for logs.
    fn name(&self) -> &'static str;

    /// Whether it judges by what does *not* exist, so that it has to wait until every kind has been listed.
    fn needs_every_kind(&self) -> bool {
        false
    }

    /// The keys this change gives reason to look at.
    fn wakes(&self, change: &Change<'_>, view: &View) -> Vec<Key>;

    /// What to write so that `key` becomes as it should be.
    fn reconcile(&self, key: &Key, view: &View, now: Timestamp) -> Outcome;

    /// What to tell the owner of `key` when a write of a look was refused, other than for a race that was lost. The look
    /// itself is taken again later.
    fn failed(&self, _key: &Key, _view: &View, _failure: &Failure, _now: Timestamp) -> Vec<Write> {
        Vec::new()
    }
}
