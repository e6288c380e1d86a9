//! Forwarding NodePort traffic to another node: XDP on the uplink beside the kernel's own forwarding under nftables rules.
//!
//! `cargo bench --bench forwarding`. One flow of small UDP packets, made by the kernel on one processor (live frames); what
//! is forwarded is dropped by XDP behind the link. Needs root and nft. Everything happens in namespaces made here.

#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    dead_code,
    reason = "a benchmark prints figures or stops; it shares the world of the namespace tests and uses half of it"
)]

mod live;
#[path = "../../tests/netns/namespace.rs"]
mod namespace;
#[path = "../../tests/netns/sweep.rs"]
mod sweep;
#[path = "../../tests/netns/world.rs"]
mod world;

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};

use live::{FRAME, Generator, drop_all};
use namespace::Namespace;
use world::{Clients, NODE_PORT, World};

const RUNS: usize = 5;
const FRAMES: u32 = 1_000_000;

/// A node, or what stands for one: a namespace with one link, and behind the link a device that drops.
struct Place {
    world: Option<World>,
    router: Option<Namespace>,
    link: u32,
    generators: Vec<Generator>,
    _sinks: Vec<OwnedFd>,
    _far: Option<Namespace>,
}

fn main() {
    if !world::allowed() {
        return;
    }
    let (ours, theirs) = (ours(), theirs());
    let sides = [("XDP", &ours, 0), ("TC", &ours, 1), ("nftables", &theirs, 0)];
    let mut rates = [Vec::new(), Vec::new(), Vec::new()];
    for run in 0..RUNS {
        for turn in 0..sides.len() {
            let side = (run + turn) % sides.len();
            rates[side].push(sides[side].1.rate(sides[side].2));
        }
    }
    println!(
        "NodePort to another node, packets/s, medians of {RUNS} interleaved runs of {FRAMES} (lowest to highest)"
    );
    let rates = rates.map(spread);
    for ((name, ..), (middle, low, high)) in sides.iter().zip(rates) {
        println!("  {name:<10}{middle:.0} ({low:.0} to {high:.0}), {:.2} x nftables", middle / rates[2].0);
    }
}

fn spread(mut figures: Vec<f64>) -> (f64, f64, f64) {
    figures.sort_unstable_by(f64::total_cmp);
    (figures[figures.len() / 2], figures[0], figures[figures.len() - 1])
}

impl Place {
    fn namespace(&self) -> &Namespace {
        match (&self.world, &self.router) {
            (Some(world), _) => &world.nodes[0].namespace,
            (None, Some(router)) => router,
            (None, None) => unreachable!("a place is one of the two"),
        }
    }

    fn rate(&self, generator: usize) -> f64 {
        let generator = &self.generators[generator];
        let before = self.sent();
        let time = self.namespace().run(|| generator.run(self.link, FRAMES)).expect("live frames run");
        let sent = self.sent() - before;
        assert!(sent >= u64::from(FRAMES) * 99 / 100, "{sent} of {FRAMES} packets were forwarded");
        f64::from(FRAMES) / time.as_secs_f64()
    }

    /// Packets that left by the link.
    fn sent(&self) -> u64 {
        let text = self.namespace().ip("-s link show uplink");
        let line = text.split("TX:").nth(1).and_then(|text| text.lines().nth(1)).expect("counters");
        line.split_whitespace().nth(1).and_then(|count| count.parse().ok()).expect("a number of packets")
    }
}

/// Our node 1, whose NodePort leads to a pod of node 2: a generator that goes on to the XDP program, and one that goes on to
/// the stack, where the TC program is.
fn ours() -> Place {
    let mut world = World::new(Clients::Wire);
    world.serve(&[(1, 0)]);
    let node = &world.nodes[0];
    let far = mac(&world.nodes[1].namespace, "uplink");
    node.namespace.ip(&format!("neigh replace 192.0.2.2 lladdr {} dev uplink nud permanent", shown(far)));
    let frame = datagram(
        mac(&node.namespace, "uplink"),
        [Ipv4Addr::new(192, 0, 2, 100), Ipv4Addr::new(192, 0, 2, 1)],
    );
    let folder = agent::kernel::objects::folder(&node.bpffs, node.scale);
    let program = agent::kernel::bpf::open_pin(&folder.join("prog_xdp_uplink_frag")).expect("it is pinned");
    let sinks = world.outside.run(|| drop_all(index("port1"))).expect("XDP on the port");
    let generators = vec![
        Generator::load(frame, Some(program.as_raw_fd())).expect("a generator for XDP"),
        Generator::load(frame, None).expect("a generator for TC"),
    ];
    let link = node.namespace.run(|| index("uplink"));
    Place { world: Some(world), router: None, link, generators, _sinks: sinks.into(), _far: None }
}

/// A router with the rules of one NodePort whose backend is behind the same link.
fn theirs() -> Place {
    let (router, far) = (Namespace::new(), Namespace::new());
    router.ip(&format!("link add uplink type veth peer name port netns {}", far.path().display()));
    router.ip("addr add 192.0.2.1/24 dev uplink");
    router.ip("link set uplink up");
    far.ip("link set port up");
    router.run(|| {
        for (name, value) in
            [("ip_forward", "1"), ("conf/all/send_redirects", "0"), ("conf/uplink/send_redirects", "0")]
        {
            std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value).expect("a sysctl of ours");
        }
        feed(RULES);
    });
    router
        .ip(&format!("neigh replace 192.0.2.2 lladdr {} dev uplink nud permanent", shown(mac(&far, "port"))));
    router.ip("route add 10.244.2.0/24 via 192.0.2.2");
    let frame =
        datagram(mac(&router, "uplink"), [Ipv4Addr::new(192, 0, 2, 100), Ipv4Addr::new(192, 0, 2, 1)]);
    let sinks = far.run(|| drop_all(index("port"))).expect("XDP on the port");
    let link = router.run(|| index("uplink"));
    let generators = vec![Generator::load(frame, None).expect("a generator")];
    Place { world: None, router: Some(router), link, generators, _sinks: sinks.into(), _far: Some(far) }
}

/// One NodePort, in the shape kube-proxy writes.
const RULES: &str = "table ip kube-proxy {
chain mark-for-masquerade { meta mark set meta mark or 0x4000
}
chain masquerading { meta mark and 0x4000 != 0 meta mark set meta mark xor 0x4000 masquerade fully-random
}
chain endpoint { ip saddr 10.244.2.2 jump mark-for-masquerade
meta l4proto udp dnat to 10.244.2.2:8080
}
chain service { numgen random mod 1 vmap { 0 : goto endpoint }
}
chain external { jump mark-for-masquerade
goto service
}
map service-ips { type ipv4_addr . inet_proto . inet_service : verdict
elements = { 10.96.0.10 . udp . 80 : goto service }
}
map service-nodeports { type inet_proto . inet_service : verdict
elements = { udp . 30080 : goto external }
}
chain services { ip daddr . meta l4proto . th dport vmap @service-ips
ip daddr 192.0.2.1 meta l4proto . th dport vmap @service-nodeports
}
chain nat-prerouting { type nat hook prerouting priority dstnat; policy accept;
jump services
}
chain nat-postrouting { type nat hook postrouting priority srcnat; policy accept;
jump masquerading
}
}
";

fn feed(rules: &str) {
    let mut child =
        Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft is installed");
    child.stdin.take().expect("it is piped").write_all(rules.as_bytes()).expect("it reads");
    assert!(child.wait().expect("it ends").success(), "nft refused the rules");
}

fn index(device: &str) -> u32 {
    nix::net::if_::if_nametoindex(device).expect("the device exists")
}

fn mac(namespace: &Namespace, device: &str) -> [u8; 6] {
    let text = namespace.ip(&format!("link show {device}"));
    let address =
        text.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next()).expect("an address");
    let bytes: Vec<u8> = address.split(':').map(|byte| u8::from_str_radix(byte, 16).expect("hex")).collect();
    bytes.try_into().expect("six bytes")
}

fn shown(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// A UDP packet of 50 bytes from port 40000 to the NodePort, with right checksums.
fn datagram(to: [u8; 6], [src, dst]: [Ipv4Addr; 2]) -> [u8; FRAME] {
    const LENGTH: u16 = FRAME as u16 - 14;
    let mut frame = [0; FRAME];
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14..24].copy_from_slice(&[0x45, 0, 0, LENGTH as u8, 0, 1, 0x40, 0, 64, 17]);
    frame[26..30].copy_from_slice(&src.octets());
    frame[30..34].copy_from_slice(&dst.octets());
    frame[34..36].copy_from_slice(&40_000_u16.to_be_bytes());
    frame[36..38].copy_from_slice(&NODE_PORT.to_be_bytes());
    frame[38..40].copy_from_slice(&(LENGTH - 20).to_be_bytes());
    let header = checksum(&frame[14..34], 0);
    frame[24..26].copy_from_slice(&header.to_be_bytes());
    let pseudo = frame[26..34].chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum::<u32>();
    let datagram = checksum(&frame[34..], pseudo + 17 + u32::from(LENGTH - 20));
    frame[40..42].copy_from_slice(&datagram.to_be_bytes());
    frame
}

fn checksum(bytes: &[u8], seed: u32) -> u16 {
    let sum = bytes.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum::<u32>() + seed;
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}
