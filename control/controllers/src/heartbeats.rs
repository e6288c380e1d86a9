//! When a node was last heard of.
//!
//! Both signs of life count: the Lease that is renewed, and the status that is posted. They are judged by when they change here,
//! because what a node's clock says may be wrong, and because nodes say nothing while the API server is away: whoever
//! begins to listen gives each node its time. Upstream's node controller does the same.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::controller::Key;

/// What a node says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Signs {
    /// `metadata.creationTimestamp`.
    pub(crate) born: Option<Timestamp>,
    /// `spec.renewTime` of its Lease.
    pub(crate) renewed: Option<Timestamp>,
    /// The condition Ready, if its status was ever posted: its `lastHeartbeatTime`.
    pub(crate) ready: Option<Option<Timestamp>>,
}

#[derive(Debug)]
struct Heard {
    signs: Signs,
    /// When it was listened to last.
    listened: Timestamp,
    at: Timestamp,
}

/// All nodes.
#[derive(Debug, Default)]
pub(crate) struct Heartbeats {
    heard: HashMap<Key, Heard>,
}

impl Heartbeats {
    /// Listens to a node now: when it was last heard of.
    pub(crate) fn listen(&mut self, node: &Key, signs: Signs, now: Timestamp) -> Timestamp {
        let at = match self.heard.get(node) {
            // Who never said anything has had time since it is there.
            None if signs.ready.is_none() && signs.renewed.is_none() => signs.born.unwrap_or(now),
            None => now,
            Some(before) if before.signs.ready != signs.ready => now,
            Some(before) if before.signs.renewed < signs.renewed => {
                let told = signs.renewed.filter(|told| (before.listened..=now).contains(told));
                told.unwrap_or(now)
            }
            Some(before) => before.at,
        };
        self.heard.insert(node.clone(), Heard { signs, listened: now, at });
        at
    }

    /// The node is gone.
    pub(crate) fn forget(&mut self, node: &Key) {
        self.heard.remove(node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_heard_when_what_they_say_changes() {
        let second = |second: i64| Timestamp::from_second(second).unwrap();
        let signs = |renewed: Option<i64>, ready: Option<Option<i64>>| Signs {
            born: Some(second(5)),
            renewed: renewed.map(second),
            ready: ready.map(|posted| posted.map(second)),
        };
        for (name, said, want) in [
            ("nothing was ever said", vec![(100, signs(None, None)), (110, signs(None, None))], 5),
            (
                "an old Lease, which who begins to listen cannot judge",
                vec![(100, signs(Some(20), None))],
                100,
            ),
            ("a status without any time", vec![(100, signs(None, Some(None)))], 100),
            ("the same again", vec![(100, signs(Some(20), None)), (130, signs(Some(20), None))], 100),
            ("a first Lease", vec![(100, signs(None, Some(None))), (130, signs(Some(120), Some(None)))], 120),
            ("a renewed Lease", vec![(100, signs(Some(20), None)), (130, signs(Some(120), None))], 120),
            ("a clock that is late", vec![(100, signs(Some(20), None)), (130, signs(Some(30), None))], 130),
            ("a clock that is early", vec![(100, signs(Some(20), None)), (130, signs(Some(900), None))], 130),
            ("a Lease that goes", vec![(100, signs(Some(20), None)), (130, signs(None, None))], 100),
            ("a first status", vec![(100, signs(None, None)), (130, signs(None, Some(None)))], 130),
            (
                "a new status",
                vec![(100, signs(None, Some(Some(9)))), (130, signs(None, Some(Some(10))))],
                130,
            ),
        ] {
            let mut heartbeats = Heartbeats::default();
            let node = Key::cluster("n");
            let at = said.into_iter().map(|(now, signs)| heartbeats.listen(&node, signs, second(now))).last();
            assert_eq!(at, Some(second(want)), "{name}");
            heartbeats.forget(&node);
            assert_eq!(heartbeats.listen(&node, signs(Some(20), None), second(900)), second(900), "{name}");
        }
    }
}
