//! What policies would have dropped in audited namespaces, counted by the policies that would have.

use std::collections::BTreeMap;
use std::sync::Arc;

use abi::event::kind;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::monitor::hub::Hub;
use super::monitor::line::{Line, Shown};
use crate::tables::Tables;

/// Counts by direction, and by the policies of which no rule allows the flow.
type Counts = BTreeMap<(String, String), u64>;

/// The counts; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Audits(Arc<Mutex<Counts>>);

impl Audits {
    /// Counts one flow that passed only because its pod is audited.
    pub fn count(&self, event: &Shown) {
        let direction =
            event.reason.as_deref().and_then(|reason| reason.split(':').next()).unwrap_or_default();
        let key = (direction.to_owned(), event.policies.join(","));
        *self.0.lock().entry(key).or_default() += 1;
    }

    /// Everything that was counted.
    pub fn counts(&self) -> Counts {
        self.0.lock().clone()
    }
}

/// Counts until `stop`, while any namespace is audited: only then the programs tell of it.
pub async fn run(hub: Hub, tables: Arc<Tables>, audits: Audits, stop: CancellationToken) {
    let mut changes = tables.changes();
    loop {
        if tables.look(|rows| rows.policy.namespaces.values().any(|namespace| namespace.audit)) {
            tokio::select! {
                () = listen(&hub, &tables, &audits) => {}
                () = stop.cancelled() => return,
            }
        }
        let changed = tokio::select! {
            changed = changes.changed() => changed,
            () = stop.cancelled() => return,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Ends when no namespace is audited any more, or nothing can be read.
async fn listen(hub: &Hub, tables: &Tables, audits: &Audits) {
    let mut events = match hub.audits() {
        Ok(events) => events,
        Err(error) => {
            tracing::warn!(%error, "what audited namespaces would be denied is not counted");
            return;
        }
    };
    let mut changes = tables.changes();
    loop {
        tokio::select! {
            line = events.next() => match line {
                Some(Line::Event(event)) if event.kind == kind_name() => audits.count(&event),
                Some(Line::Lost(lost)) => tracing::warn!(lost, "audited flows were not counted"),
                Some(Line::Event(_)) => {}
                None => return,
            },
            changed = changes.changed() => {
                let is_audited =
                    tables.look(|rows| rows.policy.namespaces.values().any(|namespace| namespace.audit));
                if changed.is_err() || !is_audited {
                    return;
                }
            }
        }
    }
}

fn kind_name() -> &'static str {
    super::monitor::names::kind_name(kind::AUDIT)
}
