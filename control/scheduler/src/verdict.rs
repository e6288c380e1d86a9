//! What a plugin says about a pod on a node, and which changes may alter it.

/// The answer of a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fit {
    Yes,
    /// Not now; a change the plugin listens to may help. Says why, as upstream words it.
    No(String),
}

/// Something happened that may let a pod fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    NodeAdded,
    NodeChanged,
    /// A pod left its node.
    PodGone,
}
