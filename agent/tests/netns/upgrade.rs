//! No connection is lost by an upgrade to an agent with other maps, whenever that agent is killed while it takes over.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use abi::name::{self, MAPS};
use agent::kernel::convert::describe::Description;
use agent::kernel::convert::generation::Version;
use agent::kernel::convert::raw::RawMap;
use agent::kernel::convert::{DESCRIPTION, Step};
use agent::kernel::objects::folder;

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

#[test]
fn no_connection_is_lost_by_an_upgrade_to_maps_with_other_flags() {
    under_load(true, |node, agent, manner| {
        drop(agent);
        revise(&folder(&node.bpffs, manner.scale));
        let agent = ready(node, Manner { scale: 2, ..manner });
        std::thread::sleep(Duration::from_millis(500));
        (agent, 2)
    });
}

#[test]
fn no_connection_is_lost_by_an_agent_that_is_too_old_for_the_maps_it_meets() {
    under_load(true, |node, agent, manner| {
        drop(agent);
        let own = folder(&node.bpffs, manner.scale);
        refuse(node, &own, manner);
        std::thread::sleep(Duration::from_millis(500));
        (ready(node, manner), manner.scale)
    });
}

#[test]
fn no_connection_is_lost_by_an_agent_that_is_too_old_for_one_that_has_crossed() {
    under_load(true, |node, agent, manner| {
        drop(agent);
        let newer = Manner { scale: 2, ..manner };
        spawn(node, Manner { until: Some(Step::Crossed), ..newer }).end();
        refuse(node, &folder(&node.bpffs, newer.scale), manner);
        (ready(node, newer), newer.scale)
    });
}

#[test]
fn no_connection_is_lost_by_going_back_from_an_agent_that_has_not_crossed() {
    under_load(true, |node, agent, manner| {
        drop(agent);
        spawn(node, Manner { scale: 2, until: Some(Step::Bridged), ..manner }).end();
        grow(node, &folder(&node.bpffs, 2));
        let agent = ready(node, manner);
        assert_eq!(folders(node).len(), 1, "{:?}", folders(node));
        (agent, manner.scale)
    });
}

#[test]
fn no_connection_is_lost_by_an_upgrade_from_an_agent_that_knew_no_generations() {
    under_load(true, |node, agent, manner| {
        drop(agent);
        let before = format!("v{:08x}x{}", abi::LAYOUT_HASH, manner.scale);
        std::fs::rename(folder(&node.bpffs, manner.scale), node.bpffs.join(before)).unwrap();
        let agent = ready(node, manner);
        assert_eq!(folders(node).len(), 1, "{:?}", folders(node));
        (agent, manner.scale)
    });
}

/// Makes maps look as if they were those of a later generation; answers with their folder.
fn grow(node: &NodeWorld, own: &Path) -> PathBuf {
    let later = Version { generation: abi::GENERATION + 1, ..Version::own(1) };
    let later = node.bpffs.join(later.to_string());
    std::fs::rename(own, &later).unwrap();
    later
}

/// An agent that meets these maps, made to look newer than it, says so and leaves everything as it is.
fn refuse(node: &NodeWorld, own: &Path, manner: Manner<'_>) {
    let later = grow(node, own);
    let before = pins(node);
    let (ended, word) = start(node, manner);
    assert!(word.starts_with("failed") && word.contains(&*later.to_string_lossy()), "{word}");
    ended.end();
    assert_eq!(pins(node), before);
    std::fs::rename(&later, own).unwrap();
}

fn ready(node: &NodeWorld, manner: Manner<'_>) -> Agent {
    let (agent, word) = start(node, manner);
    assert_eq!(word, "ready");
    agent
}

/// Makes maps look as if they had other flags: none of them can be shared. What sockets keep is not in a map that can be copied.
fn revise(folder: &Path) {
    let pin = folder.join(DESCRIPTION);
    let text = RawMap::open(&pin).unwrap().lookup(&[0; 4]).unwrap();
    let mut description = Description::read(&String::from_utf8(text).unwrap()).unwrap();
    let copied = MAPS.iter().map(|map| map.name).filter(|map| *map != name::SOCK_VIPS);
    description.revisions = copied.map(|map| (map.to_owned(), 9)).collect();
    std::fs::remove_file(&pin).unwrap();
    RawMap::of_text(DESCRIPTION, &description.to_string()).unwrap().pin(&pin).unwrap();
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
            agent = ready(node, Manner { scale, ..manner });
            assert_eq!(folders(node).len(), 1, "{:?}", folders(node));
        }
        (agent, scale)
    }
}

/// Every pin.
fn pins(node: &NodeWorld) -> BTreeSet<PathBuf> {
    let pinned = |(folder, _)| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    folders(node).into_iter().flat_map(pinned).collect()
}

/// The folders of maps, and how many pins are in each.
fn folders(node: &NodeWorld) -> Vec<(PathBuf, usize)> {
    let entries = std::fs::read_dir(&node.bpffs).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|folder| (folder.clone(), std::fs::read_dir(folder).unwrap().count())).collect()
}
