//! What a change costs, who has to wait, and what stays until nobody needs it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use agent::desired::policy::{Policed, Policies, Todo};
use agent::tables::Protocol::Tcp;
use agent::tables::policy::ClusterPod;
use agent::tables::{EndpointId, PolicyChanges};
use serde_json::json;

use crate::cases::{Protocol, Reach};
use crate::world::{World, address, addresses, pod};

/// `x/a` takes what `y/b` sends, and nothing else.
fn isolated() -> World {
    let mut world = World::new();
    let from = json!([{ "from": [{ "namespaceSelector": { "matchLabels": { "ns": "y" } }, "podSelector": { "matchLabels": { "pod": "b" } } }] }]);
    world.apply(
        "x",
        "only-y-b",
        json!({ "podSelector": { "matchLabels": { "pod": "a" } }, "ingress": from }),
    );
    world.policies.todo = Todo::default();
    world
}

/// What there is to do after one pod changed.
fn change(world: &mut World, text: &str, row: Option<ClusterPod>) -> Todo {
    let name = pod(text);
    match row {
        Some(row) => drop(world.tables.policy.pods.insert(name.clone(), Arc::new(row))),
        None => drop(world.tables.policy.pods.remove(&name)),
    }
    let changes = PolicyChanges { pods: [name].into(), ..PolicyChanges::default() };
    world.policies.update(&world.tables, &changes, false, &BTreeSet::new());
    std::mem::take(&mut world.policies.todo)
}

fn row(world: &World, text: &str) -> ClusterPod {
    (*world.tables.policy.pods[&pod(text)]).clone()
}

#[test]
fn a_pod_costs_its_addresses_and_an_identity_that_nobody_had_its_rows() {
    let mut world = isolated();
    let mut strange = row(&world, "z/c");
    let b = world.policies.state.identity(address("y/b"));
    strange.labels = Arc::new([("pod".into(), "b".into())].into());
    let todo = change(&mut world, "z/c", Some(strange.clone()));
    assert!(todo.addresses.is_empty() && todo.pairs.is_empty(), "no rule asks for z: {todo:?}");

    let mut joined = row(&world, "y/c");
    joined.labels = Arc::clone(&row(&world, "y/b").labels);
    let todo = change(&mut world, "y/c", Some(joined));
    assert_eq!(todo.addresses, BTreeSet::from(addresses("y/c")));
    assert_eq!(todo.moved, todo.addresses, "its pod changed, not only the rules");
    assert!(todo.pairs.is_empty(), "who y/b is has its rows: {todo:?}");
    assert_eq!(world.policies.state.identity(address("y/c")), b);

    for text in ["y/b", "y/c"] {
        let mut gone = row(&world, text);
        gone.finished = true;
        change(&mut world, text, Some(gone));
    }
    assert_eq!(
        world.policies.state.rules.keys().filter(|(_, identity)| *identity == b).count(),
        0,
        "nobody is y/b"
    );
    strange.addresses = addresses("y/b").into();
    let todo = change(&mut world, "y/b", Some(strange));
    assert_eq!(
        (todo.addresses, todo.pairs.len()),
        (addresses("y/b").into(), 1),
        "the first of its kind brings its rows"
    );
}

#[test]
fn who_has_finished_or_shares_the_nodes_network_is_no_peer() {
    for finished in [true, false] {
        let mut world = isolated();
        assert!(world.reaches("y/b", "x/a", Tcp, 80));
        let gone = ClusterPod { finished, host_network: !finished, ..row(&world, "y/b") };
        world.tables.endpoints.retain(|id, _| id.container_id != "y/b");
        change(&mut world, "y/b", Some(gone));
        assert!(!world.policies.state.identities.contains_key(&address("y/b")));
    }
}

#[test]
fn pods_without_labels_are_meant_by_selectors_that_ask_for_nothing() {
    let mut world = World::new();
    world.apply("x", "own", json!({ "podSelector": {}, "ingress": [{ "from": [{ "podSelector": {} }] }] }));
    let bare = ClusterPod { labels: Arc::default(), ..row(&world, "x/b") };
    change(&mut world, "x/b", Some(bare));
    Reach::everybody().deny("y", "x").deny("z", "x").check(&mut world, Protocol::Tcp, 80);
}

#[test]
fn a_pod_that_nobody_knows_waits_where_policies_are_and_stays_what_it_was_when_it_is_deleted() {
    let mut world = isolated();
    let was = world.policed("x/a");
    assert!(was.ingress != 0 && was.egress == 0);
    change(&mut world, "x/a", None);
    assert_eq!(world.policed("x/a"), was, "it is still there");

    let mut anew = Policies::default();
    anew.update(&world.tables, &PolicyChanges::default(), true, &BTreeSet::new());
    let id = |text: &str| EndpointId { container_id: text.into(), ifname: "eth0".into() };
    assert_eq!(anew.state.endpoints.get(&id("x/a")), None);
    assert_eq!(anew.state.endpoints.get(&id("y/a")), Some(&Policed::default()));
    world.tables.policy.pods.remove(&pod("y/a"));
    anew.update(
        &world.tables,
        &PolicyChanges { pods: [pod("y/a")].into(), ..PolicyChanges::default() },
        false,
        &BTreeSet::new(),
    );
    assert_eq!(
        anew.state.endpoints.get(&id("y/a")),
        Some(&Policed::default()),
        "no policy is there to select it"
    );
}

#[test]
fn a_pod_that_is_made_anew_under_the_same_name_has_nothing_of_the_old_one() {
    let mut world = isolated();
    let id = EndpointId { container_id: "y/b".into(), ifname: "eth0".into() };
    let (b, world_identity) = (world.policies.state.identity(address("y/b")), abi::policy::identity::WORLD);
    assert_ne!(b, world_identity);
    let mut fresh = world.tables.endpoints.remove(&id).unwrap();
    (fresh.container_id, fresh.pod_uid) = ("again".into(), "00000000-0000-0000-0000-0000000000aa".into());
    let again = fresh.id();
    world.tables.endpoints.insert(again.clone(), fresh);
    let with = |world: &World, uid| ClusterPod { uid, ..row(world, "y/b") };
    // Its Pod is not known yet: the one that is has the same name and addresses.
    let old = with(&world, 1);
    change(&mut world, "y/b", Some(old));
    assert_eq!(
        world.policies.state.identity(address("y/b")),
        world_identity,
        "it is not who the old one was"
    );
    assert_eq!(world.policies.state.endpoints.get(&again), Some(&Policed::default()), "y has no policies");
    world.apply("y", "all", json!({ "podSelector": {}, "ingress": [{}] }));
    assert_eq!(world.policies.state.endpoints.get(&again), None, "it waits, for they may select it");
    let own = with(&world, 0xaa);
    change(&mut world, "y/b", Some(own));
    assert_eq!(world.policies.state.identity(address("y/b")), b);
    assert_ne!(world.policies.state.endpoints[&again], Policed::default());
}

#[test]
fn nothing_is_known_before_everything_was_delivered() {
    let world = isolated();
    for source in world.tables.synced.clone() {
        let mut tables = world.tables.clone();
        tables.synced.remove(&source);
        let mut anew = Policies::default();
        anew.update(&tables, &PolicyChanges::default(), true, &BTreeSet::new());
        assert!(!anew.known && anew.state.endpoints.is_empty(), "without {source:?}");
    }
    let mut anew = Policies::default();
    anew.update(&world.tables, &PolicyChanges::default(), true, &BTreeSet::new());
    assert!(anew.known);
}

#[test]
fn a_set_that_pods_may_still_have_stays_with_all_of_its_rows_until_they_have_theirs() {
    let mut world = isolated();
    let old = world.policed("x/a").ingress;
    let name = agent::tables::ObjectName { namespace: "x".into(), name: "only-y-b".into() };
    let mut policy = (*world.tables.policy.policies[&name]).clone();
    policy.ingress = Some(Vec::new());
    world.tables.policy.policies.insert(name, Arc::new(policy));
    let changes = PolicyChanges { policies: true, ..PolicyChanges::default() };
    world.policies.update(&world.tables, &changes, false, &BTreeSet::new());
    let new = world.policed("x/a").ingress;
    assert_ne!(old, new, "a set that says something else has another number");
    let b = world.policies.state.identity(address("y/b"));
    assert!(
        world.policies.state.rules.contains_key(&(old, b))
            && !world.policies.state.rules.contains_key(&(new, b))
    );
    assert!(world.policies.settle(&world.tables));
    assert!(world.policies.state.rules.keys().all(|(set, _)| *set != old));
    assert_eq!(
        world.policies.state.identity(address("y/b")),
        abi::policy::identity::WORLD,
        "nobody asks any more"
    );
    assert!(!world.policies.settle(&world.tables));
}

#[test]
fn the_nodes_own_addresses_may_always() {
    let mut world = isolated();
    let host: IpAddr = "192.0.2.1".parse().unwrap();
    world.policies.update(&world.tables, &PolicyChanges::default(), false, &BTreeSet::from([host]));
    let asked = |peer| agent::desired::policy::lookup::Asked { peer, proto: 6, port: 80 };
    let set = world.policed("x/a").ingress;
    assert!(world.policies.state.verdict(set, asked(host)).allow);
    world.policies.update(&world.tables, &PolicyChanges::default(), false, &BTreeSet::new());
    assert!(!world.policies.state.verdict(set, asked(host)).allow);
}
