//! No connection is lost by an upgrade to an agent with other maps, whenever that agent is killed while it takes over.

use std::path::PathBuf;
use std::time::Duration;

use agent::kernel::convert::Step;

use crate::continuity::{Agent, Manner, spawn, start, under_load};
use crate::world::NodeWorld;

#[test]
fn no_connection_is_lost_by_an_upgrade_that_is_killed_before_its_programs_stand_anywhere() {
    under_load(true, upgrade(&[Step::Shared, Step::Loaded, Step::Copied]));
}

#[test]
fn no_connection_is_lost_by_an_upgrade_that_is_killed_while_hooks_change_sides() {
    under_load(true, upgrade(&[Step::Taken, Step::Bridged, Step::Crossed]));
}

#[test]
fn no_connection_is_lost_by_an_upgrade_that_is_killed_when_its_programs_stand() {
    under_load(true, upgrade(&[Step::Swapped, Step::Followed, Step::Described]));
}

#[test]
fn no_connection_is_lost_by_an_upgrade_where_there_is_no_tcx() {
    under_load(false, upgrade(&[Step::Bridged, Step::Crossed]));
}

/// Upgrades to agents with other maps, which are killed after these steps of taking over; answers with the last scale.
fn upgrade(steps: &[Step]) -> impl Fn(&NodeWorld, Agent, Manner<'_>) -> (Agent, u32) {
    move |node, mut agent, manner| {
        let mut scale = manner.scale;
        for step in steps {
            drop(agent);
            scale = if scale == 2 { 4 } else { 2 };
            spawn(node, Manner { scale, until: Some(*step), ..manner }).end();
            println!("  killed after {step:?}: {:?}", folders(node));
            assert_eq!(folders(node).len(), 2, "{:?}", folders(node));
            std::thread::sleep(Duration::from_millis(200));
            let (next, word) = start(node, Manner { scale, ..manner });
            assert_eq!(word, "ready");
            assert_eq!(folders(node).len(), 1, "{:?}", folders(node));
            agent = next;
        }
        (agent, scale)
    }
}

/// The folders of maps, and how many pins are in each.
fn folders(node: &NodeWorld) -> Vec<(PathBuf, usize)> {
    let entries = std::fs::read_dir(&node.bpffs).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|folder| (folder.clone(), std::fs::read_dir(folder).unwrap().count())).collect()
}
