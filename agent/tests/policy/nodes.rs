//! Rules of ClusterNetworkPolicies about nodes: all addresses of those with certain labels, as they are now. By the oracle and
//! by the rows, which have to agree.

use serde_json::{Value, json};

use crate::cases::Protocol::Tcp;
use crate::cases::Reach;
use crate::world::World;

fn control() -> Value {
    json!({ "role": "control" })
}

/// What pods of `x` may send: `action` for nodes with these labels, then `rest`.
fn policy(action: &str, labels: &Value, rest: &[Value]) -> Value {
    let first = json!({ "action": action, "to": [{ "nodes": { "matchLabels": labels } }] });
    let rules: Vec<&Value> = std::iter::once(&first).chain(rest).collect();
    let subject = json!({ "namespaces": { "matchLabels": { "ns": "x" } } });
    json!({ "tier": "Admin", "priority": 1, "subject": subject, "egress": rules })
}

/// A node of the control plane with three addresses and a name, and one of another kind.
fn world() -> World {
    let mut world = World::new();
    let addresses = [
        ("InternalIP", "192.0.2.1"),
        ("InternalIP", "2001:db8::1"),
        ("ExternalIP", "198.51.100.1"),
        ("Hostname", "first"),
    ];
    world.add_node("first", &control(), &addresses);
    world.add_node("second", &json!({ "role": "work" }), &[("InternalIP", "192.0.2.2")]);
    world
}

const OF_CONTROL: [&str; 3] = ["192.0.2.1", "2001:db8::1", "198.51.100.1"];
const OTHERS: [&str; 3] = ["192.0.2.2", "192.0.2.3", "2001:db8::2"];

#[test]
fn a_denial_is_about_every_address_of_the_nodes_that_are_selected_and_nothing_else() {
    let mut world = world();
    world.apply_cluster("guard", policy("Deny", &control(), &[]));
    for address in OF_CONTROL {
        assert!(!world.reaches_outside("x/a", address, 6443), "{address}");
        assert!(world.reaches_outside("y/a", address, 6443), "{address} is not denied to others");
    }
    for address in OTHERS {
        assert!(world.reaches_outside("x/a", address, 6443), "{address}");
    }
    Reach::everybody().check(&mut world, Tcp, 80);
}

#[test]
fn a_selector_that_asks_nothing_means_all_nodes_and_no_pods() {
    let mut world = world();
    let nobody = json!({ "action": "Deny", "to": [{ "networks": ["0.0.0.0/0", "::/0"] }] });
    world.apply_cluster("guard", policy("Accept", &json!({}), &[nobody]));
    for address in OF_CONTROL.iter().chain(&["192.0.2.2"]) {
        assert!(world.reaches_outside("x/a", address, 6443), "{address}");
    }
    for address in ["192.0.2.3", "2001:db8::2"] {
        assert!(!world.reaches_outside("x/a", address, 6443), "{address}");
    }
    Reach::everybody().deny("x", "*").check(&mut world, Tcp, 80);
}

#[test]
fn rules_follow_nodes_that_come_go_and_change_their_labels_and_addresses() {
    let mut world = world();
    world.apply_cluster("guard", policy("Deny", &control(), &[]));
    let denied = |world: &World, address: &str| !world.reaches_outside("x/a", address, 6443);
    let sets = world.policed("x/a");

    world.add_node("third", &control(), &[("InternalIP", "192.0.2.3")]);
    assert!(denied(&world, "192.0.2.3"), "it came");
    world.add_node("third", &control(), &[("InternalIP", "192.0.2.33")]);
    assert!(!denied(&world, "192.0.2.3") && denied(&world, "192.0.2.33"), "it moved");
    world.add_node("third", &json!({ "role": "work" }), &[("InternalIP", "192.0.2.33")]);
    assert!(!denied(&world, "192.0.2.33"), "it has another label");
    world.add_node("third", &control(), &[("InternalIP", "192.0.2.33")]);
    assert!(denied(&world, "192.0.2.33"), "it has the label again");
    world.remove_node("third");
    assert!(!denied(&world, "192.0.2.33"), "it went");
    assert!(denied(&world, "192.0.2.1"), "the first one stays");
    assert_eq!(world.policed("x/a"), sets, "changes of nodes move no pod to other rules");
}

#[test]
fn an_address_of_a_node_that_a_pod_has_is_the_pods() {
    let mut world = world();
    let pod = crate::world::address("y/b").to_string();
    world.add_node("third", &control(), &[("InternalIP", &pod)]);
    world.apply_cluster("guard", policy("Deny", &control(), &[]));
    Reach::everybody().check(&mut world, Tcp, 80);
}
