//! What became of requests to attach, for whoever watches the node.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::ipam::AllocateError;

/// Why an attachment was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Refusal {
    /// The node has no network for pods yet.
    NoNetwork,
    /// A network has no free address.
    Exhausted,
    /// The journal of addresses cannot be written.
    Journal,
    /// The pod's network namespace is not there.
    NoNamespace,
    /// The kernel did not do its part in time.
    Kernel,
}

impl Refusal {
    const ALL: [(Self, &'static str); 5] = [
        (Self::NoNetwork, "no_network"),
        (Self::Exhausted, "exhausted"),
        (Self::Journal, "journal"),
        (Self::NoNamespace, "no_namespace"),
        (Self::Kernel, "kernel"),
    ];

    /// The reason in an Event.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NoNetwork => "NoPodNetwork",
            Self::Exhausted => "PodAddressesExhausted",
            Self::Journal => "AddressJournalFailed",
            Self::NoNamespace => "NoNetworkNamespace",
            Self::Kernel => "AttachFailed",
        }
    }
}

impl From<&AllocateError> for Refusal {
    fn from(error: &AllocateError) -> Self {
        match error {
            AllocateError::NoNetwork => Self::NoNetwork,
            AllocateError::Exhausted(_) => Self::Exhausted,
            AllocateError::Journal(_) => Self::Journal,
        }
    }
}

/// Attachments made and refused since the agent started.
#[derive(Debug, Default)]
pub struct Counts {
    made: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
}

impl Counts {
    pub(super) fn make(&self) {
        self.made.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refuse(&self, refusal: Refusal) {
        self.refused[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Attachments that were made.
    pub fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Those refused, by reason.
    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Refusal::ALL
            .iter()
            .map(|(refusal, name)| (*name, self.refused[*refusal as usize].load(Ordering::Relaxed)))
    }
}
