//! Who reaches whom, over both protocols and both families.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use agent::kernel::features::{Features, Optional};

use crate::namespace::Namespace;
use crate::world::{BACKEND_PORT, Clients, NODE_PORT, OUTSIDE, PORT, VIPS, World, allowed, comes_to};

/// How long an answer is waited for that may be denied.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same for one that has to come.
const CERTAIN: Duration = Duration::from_secs(30);

/// Answers every client on TCP and UDP with `name` and the client's address as the server sees it.
pub fn answer(namespace: &Namespace, port: u16, name: &'static str) {
    let (tcp, udp) = namespace.run(|| {
        (TcpListener::bind(("::", port)).expect("listen"), UdpSocket::bind(("::", port)).expect("bind"))
    });
    std::thread::spawn(move || {
        while let Ok((mut stream, peer)) = tcp.accept() {
            let mut question = [0; 4];
            if stream.read_exact(&mut question).is_ok() {
                drop(stream.write_all(format!("{name} {}", peer.ip().to_canonical()).as_bytes()));
            }
        }
    });
    std::thread::spawn(move || {
        let mut question = [0; 64];
        while let Ok((_, peer)) = udp.recv_from(&mut question) {
            drop(udp.send_to(format!("{name} {}", peer.ip().to_canonical()).as_bytes(), peer));
        }
    });
}

pub fn tcp(from: &Namespace, to: SocketAddr) -> Result<String, String> {
    tcp_within(from, to, PATIENCE)
}

fn tcp_within(from: &Namespace, to: SocketAddr, patience: Duration) -> Result<String, String> {
    from.run(|| {
        let mut stream =
            TcpStream::connect_timeout(&to, patience).map_err(|error| format!("connect: {error}"))?;
        stream.set_read_timeout(Some(patience)).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), to, "the client sees the address it asked for");
        stream.write_all(b"who?").map_err(|error| format!("write: {error}"))?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map_err(|error| format!("read: {error}"))?;
        Ok(text)
    })
}

pub fn udp(from: &Namespace, to: SocketAddr, connected: bool) -> Result<String, String> {
    udp_within(from, to, connected, PATIENCE)
}

fn udp_within(
    from: &Namespace,
    to: SocketAddr,
    connected: bool,
    patience: Duration,
) -> Result<String, String> {
    from.run(|| {
        let any: IpAddr = if to.is_ipv4() { "0.0.0.0".parse().unwrap() } else { "::".parse().unwrap() };
        let socket = UdpSocket::bind((any, 0)).unwrap();
        socket.set_read_timeout(Some(patience)).unwrap();
        let mut text = [0; 128];
        let length = if connected {
            socket.connect(to).map_err(|error| format!("connect: {error}"))?;
            socket.send(b"who?").map_err(|error| format!("send: {error}"))?;
            socket.recv(&mut text).map_err(|error| format!("receive: {error}"))?
        } else {
            socket.send_to(b"who?", to).map_err(|error| format!("send: {error}"))?;
            let (length, peer) = socket.recv_from(&mut text).map_err(|error| format!("receive: {error}"))?;
            assert_eq!(peer, to, "the answer comes from the address that was asked");
            length
        };
        Ok(String::from_utf8_lossy(&text[..length]).into_owned())
    })
}

/// Asks over TCP and UDP, and wants the same answer each time.
pub fn all_protocols(from: &Namespace, to: IpAddr, port: u16, want: &str) {
    let to = SocketAddr::new(to, port);
    assert_eq!(tcp_within(from, to, CERTAIN).as_deref(), Ok(want), "TCP to {to}");
    for (connected, how) in [(true, "connected"), (false, "unconnected")] {
        assert_eq!(udp_within(from, to, connected, CERTAIN).as_deref(), Ok(want), "{how} UDP to {to}");
    }
}

fn serving(clients: Clients) -> World {
    let mut world = World::new(clients);
    answer(&world.nodes[0].pods[0].namespace, BACKEND_PORT, "local");
    answer(&world.nodes[0].pods[1].namespace, BACKEND_PORT, "other");
    answer(&world.nodes[1].pods[0].namespace, BACKEND_PORT, "remote");
    answer(&world.outside, BACKEND_PORT, "outside");
    world.serve(&[(0, 0)]);
    world
}

#[test]
fn pods_reach_pods_and_the_host_reaches_them_without_nat() {
    if !allowed() {
        return;
    }
    let world = serving(Clients::Wire);
    let [first, second] = &world.nodes[..] else { unreachable!("two nodes") };
    for family in 0..2 {
        let client = first.pods[0].addresses[family];
        let from = &first.pods[0].namespace;
        all_protocols(from, first.pods[1].addresses[family], BACKEND_PORT, &format!("other {client}"));
        all_protocols(from, second.pods[0].addresses[family], BACKEND_PORT, &format!("remote {client}"));
        let host = first.addresses[family];
        all_protocols(&first.namespace, client, BACKEND_PORT, &format!("local {host}"));
    }
}

#[test]
fn pods_and_the_host_reach_the_service_by_its_address() {
    if !allowed() {
        return;
    }
    for clients in [Clients::Sockets, Clients::Wire] {
        let mut world = serving(clients);
        for (family, vip) in VIPS.iter().enumerate() {
            let vip = vip.parse().unwrap();
            let client = world.nodes[0].pods[1].addresses[family];
            all_protocols(&world.nodes[0].pods[1].namespace, vip, PORT, &format!("local {client}"));
            if clients == Clients::Sockets {
                let host = world.nodes[0].addresses[family];
                all_protocols(&world.nodes[0].namespace, vip, PORT, &format!("local {host}"));
            }
        }
        world.serve(&[(1, 0)]);
        for (family, vip) in VIPS.iter().enumerate() {
            let vip = vip.parse().unwrap();
            let client = world.nodes[0].pods[1].addresses[family];
            all_protocols(&world.nodes[0].pods[1].namespace, vip, PORT, &format!("remote {client}"));
        }
    }
}

#[test]
fn the_host_reaches_itself_through_the_service_with_socket_hooks_and_without() {
    if !allowed() {
        return;
    }
    for clients in [Clients::Sockets, Clients::Wire] {
        let mut world = World::new(clients);
        let node = &world.nodes[0];
        node.namespace.ip(&format!("route add default via {}", OUTSIDE[0]));
        node.namespace.ip(&format!("-6 route add default via {}", OUTSIDE[1]));
        answer(&node.namespace, BACKEND_PORT, "host");
        world.serve_by(0);
        for (family, vip) in VIPS.iter().enumerate() {
            let host = world.nodes[0].addresses[family].to_string();
            // On the wire the host takes the service for its client.
            let seen = if clients == Clients::Sockets { host.as_str() } else { vip };
            all_protocols(&world.nodes[0].namespace, vip.parse().unwrap(), PORT, &format!("host {seen}"));
        }
    }
}

#[test]
fn a_client_with_affinity_keeps_its_backend_on_sockets_and_on_the_wire() {
    if !allowed() {
        return;
    }
    for clients in [Clients::Sockets, Clients::Wire] {
        let mut world = serving(clients);
        world.nodes[0].affinity = 60;
        world.serve(&[(0, 0), (1, 0)]);
        for vip in VIPS {
            let to = SocketAddr::new(vip.parse().unwrap(), PORT);
            let from = &world.nodes[0].pods[1].namespace;
            let first = tcp(from, to).unwrap();
            for _ in 0..12 {
                assert_eq!(tcp(from, to).unwrap(), first, "{clients:?}");
            }
        }
        let folder = agent::kernel::objects::folder(&world.nodes[0].bpffs, 1);
        let kept = crate::world::dump(&folder.join("hw_affinity"));
        let row = |address: &IpAddr| abi::Addr16::from(*address).bytes.map(|byte| byte.to_string()).join(",");
        for address in &world.nodes[0].pods[1].addresses {
            assert!(kept.replace([' ', '\n'], "").contains(&row(address)), "kept for {address}: {kept}");
        }
    }
}

#[test]
fn an_address_of_this_node_that_no_pod_has_is_unreachable_at_once() {
    if !allowed() {
        return;
    }
    let world = serving(Clients::Wire);
    for address in ["10.244.1.200", "fd00:244:0:1::c8"] {
        let to = SocketAddr::new(address.parse().unwrap(), BACKEND_PORT);
        for from in [&world.nodes[0].pods[0].namespace, &world.nodes[0].namespace] {
            let error = tcp(from, to).unwrap_err();
            assert!(error.contains("unreachable") || error.contains("No route"), "{to}: {error}");
        }
    }
}

#[test]
fn a_dual_stack_socket_reaches_the_service_by_its_mapped_address() {
    if !allowed() {
        return;
    }
    let world = serving(Clients::Sockets);
    let IpAddr::V4(vip) = VIPS[0].parse().unwrap() else { unreachable!("the first is IPv4") };
    let to = SocketAddr::new(vip.to_ipv6_mapped().into(), PORT);
    let pod = &world.nodes[0].pods[1];
    let want = format!("local {}", pod.addresses[0]);
    assert_eq!(tcp(&pod.namespace, to).as_deref(), Ok(want.as_str()));
    for connected in [true, false] {
        assert_eq!(udp(&pod.namespace, to, connected).as_deref(), Ok(want.as_str()), "connected {connected}");
    }
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    if !allowed() {
        return;
    }
    for clients in [Clients::Sockets, Clients::Wire] {
        let world = serving(clients);
        for (family, vip) in VIPS.iter().enumerate() {
            let vip = vip.parse().unwrap();
            let node = &world.nodes[0];
            let seen = match clients {
                Clients::Sockets => node.pods[0].addresses[family],
                Clients::Wire => node.addresses[family],
            };
            all_protocols(&node.pods[0].namespace, vip, PORT, &format!("local {seen}"));
        }
    }
}

#[test]
fn the_outside_reaches_a_node_port_on_every_node() {
    if !allowed() {
        return;
    }
    let world = serving(Clients::Wire);
    for (family, outside) in OUTSIDE.iter().enumerate() {
        let client: IpAddr = outside.parse().unwrap();
        let [first, second] = [0, 1].map(|node| world.nodes[node].addresses[family]);
        all_protocols(&world.outside, first, NODE_PORT, &format!("local {client}"));
        // The backend is on the first node: the second one hides the client behind its own address.
        all_protocols(&world.outside, second, NODE_PORT, &format!("local {second}"));
    }
}

#[test]
fn pods_reach_the_outside_under_the_nodes_address() {
    if !allowed() {
        return;
    }
    let world = serving(Clients::Wire);
    for (family, outside) in OUTSIDE.iter().enumerate() {
        let node = world.nodes[0].addresses[family];
        let address = outside.parse().unwrap();
        all_protocols(&world.nodes[0].pods[0].namespace, address, BACKEND_PORT, &format!("outside {node}"));
        let ping = if family == 0 { "-4" } else { "-6" };
        let answered = world.nodes[0].pods[0]
            .namespace
            .run(|| std::process::Command::new("ping").args([ping, "-c1", "-W2", outside]).output());
        let answered = answered.expect("ping is there: `cargo xtask setup` installs it");
        assert!(answered.status.success(), "{}", String::from_utf8_lossy(&answered.stdout));
    }
}

#[test]
fn a_service_without_backends_refuses_at_once() {
    if !allowed() {
        return;
    }
    for clients in [Clients::Sockets, Clients::Wire] {
        let mut world = serving(clients);
        world.serve(&[]);
        let node = &world.nodes[0];
        for (family, vip) in VIPS.iter().enumerate() {
            let vip = SocketAddr::new(vip.parse().unwrap(), PORT);
            let node_port = SocketAddr::new(node.addresses[family], NODE_PORT);
            for (from, to) in [(&node.pods[1].namespace, vip), (&world.outside, node_port)] {
                for answer in [tcp(from, to), udp(from, to, true)] {
                    let refused = answer.unwrap_err();
                    assert!(refused.contains("refused"), "{clients:?} {to}: {refused}");
                }
            }
        }
    }
}

#[test]
fn a_restart_changes_nothing_in_the_maps_and_traffic_flows_while_no_agent_runs() {
    if !allowed() {
        return;
    }
    let mut world = serving(Clients::Sockets);
    let before = world.nodes[0].map_dump();
    assert!(before.contains("\"addr\"") && before.contains("\"ifindex\""), "names of fields: {before}");
    // As after kill -9: nothing is told to the kernel, the descriptors just go.
    world.nodes[0].reconciler = None;
    for (family, vip) in VIPS.iter().enumerate() {
        let client = world.nodes[0].pods[1].addresses[family];
        let vip = vip.parse().unwrap();
        all_protocols(&world.nodes[0].pods[1].namespace, vip, PORT, &format!("local {client}"));
    }
    world.nodes[0].start();
    // Flows are looked at once more, and filters cannot be recognized: without TCX the uplink is attached again.
    let operations = 1 + u64::from(!Features::probe().tcx);
    assert_eq!(world.nodes[0].reconciler.as_ref().unwrap().operations, operations);
    assert_eq!(world.nodes[0].map_dump(), before);
    let client = world.nodes[0].pods[1].addresses[0];
    all_protocols(
        &world.nodes[0].pods[1].namespace,
        VIPS[0].parse().unwrap(),
        PORT,
        &format!("local {client}"),
    );
}

#[test]
fn a_removed_endpoint_leaves_no_device_no_route_and_no_row() {
    if !allowed() {
        return;
    }
    let mut world = serving(Clients::Wire);
    let node = &mut world.nodes[0];
    let pod = node.pods.pop().unwrap();
    let before = node.namespace.ip("-o link").lines().count();
    let rows = |node: &crate::world::NodeWorld| node.map_dump().replace([' ', '\n'], "");
    let row = |address: &IpAddr| abi::Addr16::from(*address).bytes.map(|byte| byte.to_string()).join(",");
    let all = rows(node);
    assert!(pod.addresses.iter().all(|address| all.contains(&row(address))), "{all}");
    node.tables.remove_endpoint(&pod.id);
    node.round();
    assert_eq!(node.namespace.ip("-o link").lines().count(), before - 1);
    for address in &pod.addresses {
        assert!(!node.namespace.ip(&format!("route show {address}")).contains("dev"));
        assert!(!rows(node).contains(&row(address)), "{address} is in no map");
    }
}

#[test]
fn a_pod_whose_namespace_went_first_leaves_no_row() {
    if !allowed() {
        return;
    }
    let mut world = World::new(Clients::Wire);
    for restart in [false, true] {
        let node = &mut world.nodes[0];
        let pod = node.pods.pop().unwrap();
        drop(pod.namespace);
        let links = || node.namespace.ip("-o link").matches(": hw").count();
        comes_to(links, node.pods.len(), "the link goes with the namespace");
        if restart {
            // The agent was away while it happened.
            node.reconciler = None;
            node.tables.remove_endpoint(&pod.id);
            node.start();
        } else {
            node.tables.remove_endpoint(&pod.id);
            node.round();
        }
        let rows = node.map_dump().matches("\"ifindex\"").count();
        assert_eq!(
            rows,
            node.pods.len() * 2,
            "restart {restart}: one row per address of the pods that are left"
        );
        let pins = std::fs::read_dir(agent::kernel::objects::folder(&node.bpffs, 1)).unwrap();
        let pins = pins
            .filter(|pin| pin.as_ref().unwrap().file_name().to_string_lossy().starts_with("link_hw"))
            .count();
        assert_eq!(pins, 0, "restart {restart}: links of pods have filters, and no pins");
    }
}

#[test]
fn a_connection_through_the_node_port_survives_the_agents_death_and_restart() {
    if !allowed() {
        return;
    }
    let mut world = World::new(Clients::Wire);
    let listener = world.nodes[0].pods[0].namespace.run(|| TcpListener::bind(("::", BACKEND_PORT)).unwrap());
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            std::thread::spawn(move || {
                let mut echo = [0; 1];
                while stream.read_exact(&mut echo).is_ok() && stream.write_all(&echo).is_ok() {}
            });
        }
    });
    world.serve(&[(0, 0)]);
    for second in [0, 1] {
        let to = SocketAddr::new(world.nodes[second].addresses[0], NODE_PORT);
        let mut stream = world.outside.run(|| TcpStream::connect_timeout(&to, CERTAIN).unwrap());
        stream.set_read_timeout(Some(CERTAIN)).unwrap();
        let mut exchange = || {
            let mut echo = [0; 1];
            stream.write_all(b"x").unwrap();
            stream.read_exact(&mut echo).unwrap();
        };
        exchange();
        world.nodes[second].reconciler = None;
        exchange();
        world.nodes[second].start();
        exchange();
    }
}

#[test]
fn bpftool_shows_named_fields_in_maps_and_our_names_on_programs() {
    if !allowed() {
        return;
    }
    let world = serving(Clients::Wire);
    let pod = &world.nodes[0].pods[1].namespace;
    all_protocols(
        pod,
        VIPS[0].parse().unwrap(),
        PORT,
        &format!("local {}", world.nodes[0].pods[1].addresses[0]),
    );
    let folder = agent::kernel::objects::folder(&world.nodes[0].bpffs, 1);
    for (map, fields) in [
        ("hw_frontends", &["key", "addr", "port", "proto", "value", "service", "flags"][..]),
        ("hw_services", &["cluster", "base", "count", "local", "affinity"]),
        ("hw_backends", &["addr", "port", "id"]),
        ("hw_endpoints", &["bytes", "ifindex", "mac", "host_mac"]),
        ("hw_links", &["v4", "v6"]),
        ("hw_flows", &["tuple", "src", "dst", "sport", "dport", "to", "backend", "generation", "last_seen"]),
        ("hw_drops", &["packets", "bytes"]),
    ] {
        let text = crate::world::dump(&folder.join(map));
        for field in fields {
            assert!(
                text.contains(&format!("\"{field}\":")),
                "{map} has no {field}: {}",
                &text[..text.len().min(500)]
            );
        }
    }
    let features = agent::kernel::features::Features::probe();
    for program in abi::name::PROGRAMS.iter().filter(|program| features.wants(program)) {
        let pin = folder.join(format!("prog_{program}"));
        let shown =
            std::process::Command::new("bpftool").args(["prog", "show", "pinned"]).arg(pin).output().unwrap();
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(shown.contains(&format!("name {program}")), "{shown}");
    }
}

#[test]
fn everything_works_as_on_an_older_kernel_and_a_later_start_finds_its_filters() {
    if !allowed() {
        return;
    }
    let mut world = serving(Clients::Wire);
    for node in &mut world.nodes {
        node.disabled = vec![Optional::Tcx, Optional::SetRetval];
    }
    // From TCX to filters, filters again, and back: each start leaves exactly one program on each hook.
    for round in 0..3 {
        for node in &mut world.nodes {
            if round == 2 {
                node.disabled.clear();
            }
            node.reconciler = None;
            node.start();
        }
        let filters = world.nodes[0].namespace.run(|| {
            let shown = std::process::Command::new("tc")
                .args(["filter", "show", "dev", "uplink", "ingress"])
                .output();
            String::from_utf8(shown.unwrap().stdout).unwrap().matches("direct-action").count()
        });
        assert_eq!(filters, usize::from(round < 2 || !Features::probe().tcx), "round {round}");
        for (family, vip) in VIPS.iter().enumerate() {
            let client = world.nodes[0].pods[1].addresses[family];
            all_protocols(
                &world.nodes[0].pods[1].namespace,
                vip.parse().unwrap(),
                PORT,
                &format!("local {client}"),
            );
            let [_, second] = [0, 1].map(|node| world.nodes[node].addresses[family]);
            all_protocols(&world.outside, second, NODE_PORT, &format!("local {second}"));
            let node = world.nodes[0].addresses[family];
            let outside = OUTSIDE[family].parse().unwrap();
            let from = &world.nodes[0].pods[0].namespace;
            all_protocols(from, outside, BACKEND_PORT, &format!("outside {node}"));
        }
    }
}
