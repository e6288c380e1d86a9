//! Addresses that are announced are found by the kernel of somebody else on the link.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use agent::load_balancer::announcer;
use tokio::sync::watch;

use crate::namespace::Namespace;
use crate::world;

/// How long what was announced or given up takes at most.
const PATIENCE: Duration = Duration::from_secs(30);

/// Two namespaces on one link, which asks from the second.
fn link() -> (Namespace, Namespace) {
    let (node, client) = (Namespace::new(), Namespace::new());
    node.ip(&format!("link add eth0 type veth peer name eth0 netns {}", client.path().display()));
    for (namespace, last) in [(&node, 1), (&client, 2)] {
        namespace.ip(&format!("addr add 192.0.2.{last}/24 dev eth0"));
        namespace.ip(&format!("addr add 2001:db8::{last}/64 dev eth0 nodad"));
        namespace.ip("link set eth0 up");
    }
    (node, client)
}

fn hardware_address(namespace: &Namespace) -> String {
    let shown = namespace.ip("-o link show eth0");
    shown
        .split_whitespace()
        .skip_while(|word| *word != "link/ether")
        .nth(1)
        .expect("a device has one")
        .to_owned()
}

/// What the client's kernel knows of an address, after it was made to ask.
fn neighbour(client: &Namespace, address: IpAddr) -> String {
    client.run(|| {
        let family = if address.is_ipv4() { "-4" } else { "-6" };
        let asked = Command::new("ping").args([family, "-c1", "-W1", &address.to_string()]).output();
        // Nobody answers the ping itself.
        drop(asked.expect("ping runs"));
    });
    client.ip(&format!("neigh show {address} dev eth0"))
}

#[test]
fn an_announced_address_is_found_and_one_that_is_given_up_is_not() {
    if !world::allowed() {
        return;
    }
    let (node, client) = link();
    let mac = hardware_address(&node);
    let (addresses, announced) = watch::channel(BTreeSet::new());
    let wanted: [IpAddr; 2] = ["192.0.2.77", "2001:db8::77"].map(|text| text.parse().unwrap());
    std::thread::scope(|scope| {
        let attended = scope.spawn(|| {
            node.run(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(announcer::answer("eth0", announced)).expect("the device answers");
            });
        });
        for address in wanted {
            let known = neighbour(&client, address);
            assert!(!known.contains(&mac), "nobody has {address} yet: {known}");
        }
        addresses.send_replace(BTreeSet::from(wanted));
        let deadline = Instant::now() + PATIENCE;
        for address in wanted {
            while !neighbour(&client, address).contains(&mac) {
                assert!(Instant::now() < deadline, "{address}: {}", neighbour(&client, address));
            }
        }
        addresses.send_replace(BTreeSet::new());
        let deadline = Instant::now() + PATIENCE;
        for address in wanted {
            let asked_anew = || {
                client.ip("neigh flush dev eth0");
                neighbour(&client, address)
            };
            while asked_anew().contains(&mac) {
                assert!(Instant::now() < deadline, "{address} was given up: {}", asked_anew());
            }
        }
        drop(addresses);
        attended.join().unwrap();
    });
}
