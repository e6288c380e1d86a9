//! What policies would have dropped in audited namespaces, counted by the policies that would have.

use std::collections::BTreeMap;
use std::sync::Arc;

use abi::event::kind;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::monitor::hub::Hub;
use super::monitor::line::{Line, Shown};
use crate::tables::Tables;

/// More than so many different ones are counted together: policies come and go, and nobody takes counters back.
const SERIES: usize = 1000;

/// By what a flow would have been dropped.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct By {
    /// The reason to drop it.
    pub direction: String,
    /// The NetworkPolicies of which no rule allows it, or `others`.
    pub policies: String,
    /// The rule of a ClusterNetworkPolicy that denies it, or `isolation` by those policies.
    pub rule: String,
}

type Counts = BTreeMap<By, u64>;

/// The counts; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Audits(Arc<Mutex<Counts>>);

impl Audits {
    /// Counts one flow that passed only because its pod is audited.
    pub fn count(&self, event: &Shown) {
        let direction =
            event.reason.as_deref().and_then(|reason| reason.split(':').next()).unwrap_or_default();
        let rule = event.rule.clone().unwrap_or_default();
        let by = By { direction: direction.to_owned(), policies: event.policies.join(","), rule };
        let mut counts = self.0.lock();
        let has_room = counts.len() < SERIES || counts.contains_key(&by);
        let others = || By { direction: by.direction.clone(), policies: "others".into(), ..By::default() };
        let by = if has_room { by } else { others() };
        *counts.entry(by).or_default() += 1;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_more_series_than_can_be_read() {
        let audits = Audits::default();
        let shown = |number: usize| {
            let text = r#"{"time":"","kind":"audit","hook":"","device":null,"length":0,"reason":"PolicyEgress: x","protocol":"TCP",
                "src":"10.0.0.1:1","dst":"10.0.0.2:2","backend":null,"hidden_as":null,"service":null,"pods":[],"policies":[],"rule":null}"#;
            let shown: Shown = serde_json::from_str(text).unwrap();
            Shown { policies: vec![format!("x/{number}")], ..shown }
        };
        (0..SERIES + 7).for_each(|number| audits.count(&shown(number)));
        audits.count(&shown(3));
        let counts = audits.counts();
        assert_eq!(counts.len(), SERIES + 1);
        let of = |policies: &str| By {
            direction: "PolicyEgress".into(),
            policies: policies.into(),
            ..By::default()
        };
        assert_eq!((counts[&of("others")], counts[&of("x/3")]), (7, 2));
    }
}
