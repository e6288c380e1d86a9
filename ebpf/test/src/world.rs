//! The world of the cases: a node with two pods, a pod elsewhere, a client outside; the same names in both families.

use std::net::IpAddr;
use std::process::Command;

use abi::count::{Count, Path, gauge};
use abi::drops::Drop;
use abi::endpoint::{Endpoint, Link};
use abi::flow::{Flow, FlowKey, Fragment, FragmentKey, Way};
use abi::node::Node;
use abi::older::Older;
use abi::service::{
    Affinity, AffinityKey, Backend, BackendState, Frontend, FrontendKey, Segment, Service, bits, filter_place,
};
use abi::{Addr16, Be16, Prefix, name};
use anyhow::{Context, Result, ensure};

use crate::kernel;
use crate::packet::{Body, Packet};
use crate::run::Sums;
use crate::runner::{Outcome, PASS, REDIRECT, Runner, SHOT, STACK, TX};

/// Named addresses of one family.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    /// A service.
    pub vip: IpAddr,
    /// This node.
    pub node: IpAddr,
    /// Another node, on the same link.
    pub peer: IpAddr,
    /// A pod of this node.
    pub pod_a: IpAddr,
    /// Another one.
    pub pod_b: IpAddr,
    /// A pod of the other node.
    pub far_pod: IpAddr,
    /// A machine outside the cluster.
    pub client: IpAddr,
}

/// Both families.
pub fn families() -> [Names; 2] {
    let names = |vip, node, peer, pod_a, pod_b, far_pod, client| {
        let [vip, node, peer, pod_a, pod_b, far_pod, client] =
            [vip, node, peer, pod_a, pod_b, far_pod, client]
                .map(|text: &str| text.parse().expect("an address"));
        Names { vip, node, peer, pod_a, pod_b, far_pod, client }
    };
    [
        names(
            "10.96.0.10",
            "192.0.2.1",
            "192.0.2.2",
            "10.244.1.2",
            "10.244.1.3",
            "10.244.2.2",
            "192.0.2.100",
        ),
        names(
            "fd00:96::a",
            "2001:db8::1",
            "2001:db8::2",
            "fd00:244:0:1::2",
            "fd00:244:0:1::3",
            "fd00:244:0:2::2",
            "2001:db8::100",
        ),
    ]
}

/// A hook and the device it runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// From pod A.
    FromPodA,
    /// From pod B.
    FromPodB,
    /// To pod A, from the host's stack.
    ToPodA,
    /// From outside.
    UplinkIn,
    /// To the outside.
    UplinkOut,
    /// From outside, before the stack.
    Xdp,
    /// The same for frames in several pieces.
    XdpFrag,
}

/// What should become of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Want {
    /// The stack gets it, like this.
    Stack(Packet),
    /// It is sent on, like this.
    Sent(Path, Packet),
    /// XDP leaves it as it is to TC, and counts nothing.
    Passed,
    /// It is dropped for this reason, which is counted once.
    Dropped(Drop),
    /// The same, and its sender is told like this.
    Refused(Drop, Packet),
}

/// First of the source ports that masqueraded flows get; in an expected packet it stands for any of them.
pub const MASQUERADED: u16 = 61_000;

/// Hardware address that every frame comes from.
pub const SENDER: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Hardware address of every next hop outside.
pub const NEIGHBOUR: [u8; 6] = [2, 0, 0, 0, 0, 0x99];

/// The loaded programs, the devices, and the names of one family.
pub struct World {
    /// The programs.
    pub runner: Runner,
    /// The family of the current case.
    pub names: Names,
    /// Seconds of affinity of the services made from here on.
    pub affinity: u32,
    devices: [u32; 3],
    services: u32,
    backends: u32,
}

impl World {
    /// Makes devices and routes in the namespace of the calling thread, and loads the programs.
    pub fn new() -> Result<Self> {
        Self::with(&node(), 1)
    }

    /// The same with other facts and larger maps.
    pub fn with(facts: &Node, scale: u32) -> Result<Self> {
        Self::made(facts, |facts| Runner::load_scaled(facts, scale))
    }

    /// The same with programs that take over the flows of others, whose rows lie like this.
    pub fn taking_over(facts: &Node, older: &Older) -> Result<Self> {
        Self::made(facts, |facts| Runner::load_over(facts, older))
    }

    /// The same with room for so many rows of unanswered flows, of which none gives way.
    pub fn full(facts: &Node, rows: u32) -> Result<Self> {
        Self::made(facts, |facts| Runner::load_full(facts, rows))
    }

    fn made(facts: &Node, load: impl FnOnce(&Node) -> Result<Runner>) -> Result<Self> {
        for device in ["pod_a", "pod_b", "uplink"] {
            ip(&format!("link add {device} type veth peer name {device}_x"))?;
            ip(&format!("link set {device} up"))?;
            ip(&format!("link set {device}_x up"))?;
        }
        for device in ["pod_a", "pod_b"] {
            for family in ["ipv4", "ipv6"] {
                std::fs::write(format!("/proc/sys/net/{family}/conf/{device}/forwarding"), "1")?;
            }
        }
        let [v4, v6] = families();
        ip(&format!("addr add {}/24 dev uplink", v4.node))?;
        ip(&format!("addr add {}/64 dev uplink nodad", v6.node))?;
        for (names, networks) in
            [(v4, ["10.244.2.0/24", "198.18.0.0/16"]), (v6, ["fd00:244:0:2::/64", "2001:db8:18::/48"])]
        {
            for neighbour in [names.peer, names.client] {
                ip(&format!("neigh replace {neighbour} lladdr 02:00:00:00:00:99 dev uplink nud permanent"))?;
            }
            for network in networks {
                ip(&format!("route add {network} via {} dev uplink", names.peer))?;
            }
        }
        let devices = [index("pod_a")?, index("pod_b")?, index("uplink")?];
        // Pods' links forward, the uplink does not.
        let runner = load(&Node { router: devices[0], ..*facts })?;
        let mut world = Self { runner, names: v4, affinity: 0, devices, services: 0, backends: 0 };
        world.runner.attach_xdp("uplink", devices[2])?;
        world.add_pods()?;
        Ok(world)
    }

    /// Forgets services and flows, and turns to another family.
    pub fn reset(&mut self, names: Names) -> Result<()> {
        self.names = names;
        self.affinity = 0;
        self.services = 0;
        self.backends = 0;
        self.runner.clear::<AffinityKey, Affinity>(name::AFFINITY)?;
        self.runner.clear::<FragmentKey, Fragment>(name::FRAGMENTS)?;
        self.runner.clear::<FrontendKey, Frontend>(name::FRONTENDS)?;
        self.forget_policies()?;
        self.runner.change_cells(name::WAYS, |_| Way::default())?;
        self.forget_flows()
    }

    /// Forgets services, but keeps flows: new ones get other backend numbers.
    pub fn reset_services(&mut self) -> Result<()> {
        self.runner.clear::<FrontendKey, Frontend>(name::FRONTENDS)
    }

    /// Forgets flows, and that some of them began.
    pub fn forget_flows(&mut self) -> Result<()> {
        self.runner.array::<u64>(name::GAUGES)?.set(gauge::BEGUN, 0, 0)?;
        self.runner.clear::<FlowKey, Flow>(name::FLOWS)?;
        self.runner.clear::<FlowKey, Flow>(name::EMBRYOS)
    }

    fn add_pods(&mut self) -> Result<()> {
        for names in families() {
            for (at, address) in [names.pod_a, names.pod_b].into_iter().enumerate() {
                let row = Endpoint {
                    ifindex: self.devices[at],
                    mac: [0x0e, 0, 0, 0, 0, at as u8],
                    host_mac: [0x0a, 0, 0, 0, 0, at as u8],
                    ..Endpoint::default()
                };
                self.runner.hash(name::ENDPOINTS)?.insert(Addr16::from(address), row, 0)?;
            }
        }
        let [v4, v6] = families();
        for (at, (a, b)) in [(v4.pod_a, v6.pod_a), (v4.pod_b, v6.pod_b)].into_iter().enumerate() {
            let row = Link { v4: Addr16::from(a), v6: Addr16::from(b), mac: SENDER, ..Link::default() };
            self.runner.hash(name::LINKS)?.insert(self.devices[at], row, 0)?;
        }
        Ok(())
    }

    /// A service port with these frontends and backends.
    pub fn service(
        &mut self,
        frontends: &[(IpAddr, u16)],
        flags: u32,
        protocol: u8,
        backends: &[(IpAddr, u16)],
    ) -> Result<()> {
        let index = self.services;
        self.services += 1;
        let base = self.backends;
        for (addr, port) in backends {
            let row = Backend {
                addr: Addr16::from(*addr),
                port: Be16::new(*port),
                flags: 0,
                id: self.backends + 1,
            };
            self.runner.array(name::BACKENDS)?.set(self.backends, row, 0)?;
            self.backends += 1;
        }
        let cluster = Segment { base, count: backends.len() as u32 };
        let somebody = if backends.is_empty() { 0 } else { bits::SOMEBODY };
        let row = Service {
            cluster,
            local: Segment::default(),
            affinity: self.affinity,
            flags: bits::LIVE | somebody,
        };
        self.runner.array(name::SERVICES)?.set(index, row, 0)?;
        for (addr, port) in frontends {
            self.frontend(*addr, *port, protocol, Frontend { service: index, flags })?;
        }
        Ok(())
    }

    /// A frontend, and the mark of its address in the filter. Port and protocol zero stand for the address.
    pub fn frontend(&mut self, addr: IpAddr, port: u16, proto: u8, row: Frontend) -> Result<()> {
        let addr = Addr16::from(addr);
        let (word, bit) = filter_place(&addr);
        let mut filter = self.runner.array::<u64>(name::VIP_FILTER)?;
        let known = filter.get(&word, 0)?;
        filter.set(word, known | bit, 0)?;
        let key = FrontendKey { addr, port: Be16::new(port), proto, zero: 0 };
        Ok(self.runner.hash(name::FRONTENDS)?.insert(key, row, 0)?)
    }

    /// Changes the last service, whose index is returned.
    pub fn change_service(&mut self, change: impl FnOnce(&mut Service)) -> Result<u32> {
        let index = self.services - 1;
        let mut services = self.runner.array::<Service>(name::SERVICES)?;
        let mut row = services.get(&index, 0)?;
        change(&mut row);
        services.set(index, row, 0)?;
        Ok(index)
    }

    /// Says that the backend with this number is gone.
    pub fn retire(&mut self, backend: u32) -> Result<()> {
        let mut states = self.runner.array::<BackendState>(name::BACKEND_STATES)?;
        let state = states.get(&backend, 0)?;
        Ok(states.set(backend, BackendState { generation: state.generation + 1, ..state }, 0)?)
    }

    /// Runs a frame through a hook.
    pub fn run(&mut self, hook: Hook, frame: &[u8]) -> Result<Outcome> {
        self.repeat(hook, frame, 1)
    }

    /// Runs a frame whose checksum a device has computed: the kernel checks that the program keeps that right.
    fn run_summed(&mut self, hook: Hook, frame: &[u8]) -> Result<Outcome> {
        let (program, device) = self.place(hook);
        self.runner.repeat(program, device, frame, 1, Sums::Complete)
    }

    /// Runs a frame through a hook `times` times.
    pub fn repeat(&mut self, hook: Hook, frame: &[u8], times: u32) -> Result<Outcome> {
        let (program, device) = self.place(hook);
        self.runner.repeat(program, device, frame, times, Sums::Unchecked)
    }

    fn place(&self, hook: Hook) -> (&'static str, u32) {
        let (program, device) = match hook {
            Hook::FromPodA => (name::TC_POD_OUT, 0),
            Hook::FromPodB => (name::TC_POD_OUT, 1),
            Hook::ToPodA => (name::TC_POD_IN, 0),
            Hook::UplinkIn => (name::TC_UPLINK_IN, 2),
            Hook::UplinkOut => (name::TC_UPLINK_OUT, 2),
            Hook::Xdp => (name::XDP_UPLINK, 2),
            // Without frames in several pieces, the other program has their place.
            Hook::XdpFrag if kernel::has_frags() => (name::XDP_UPLINK_FRAG, 2),
            Hook::XdpFrag => (name::XDP_UPLINK, 2),
        };
        (program, self.devices[device])
    }

    /// Runs a packet through a hook and holds the result against what is wanted; returns the packet afterwards.
    pub fn expect(&mut self, hook: Hook, packet: &Packet, want: &Want) -> Result<Packet> {
        let dropped = |world: &mut Self| -> Result<u64> {
            match want {
                Want::Dropped(reason) | Want::Refused(reason, _) => {
                    world.counted(name::DROPS, *reason as u32)
                }
                Want::Passed => Ok(0),
                Want::Stack(_) => world.counted(name::PATHS, Path::Stack as u32),
                Want::Sent(path, _) => world.counted(name::PATHS, *path as u32),
            }
        };
        let before = dropped(self)?;
        let outcome = match want {
            Want::Stack(_) | Want::Sent(..) => self.run_summed(hook, &packet.bytes())?,
            Want::Dropped(_) | Want::Refused(..) | Want::Passed => self.run(hook, &packet.bytes())?,
        };
        let after = dropped(self)?;
        let shown = format!("{hook:?} of {packet:?}");
        let code = match want {
            Want::Stack(_) => STACK,
            Want::Sent(Path::Xdp, _) => TX,
            Want::Sent(..) | Want::Refused(..) => REDIRECT,
            Want::Dropped(_) => SHOT,
            Want::Passed => PASS,
        };
        ensure!(outcome.code == code, "{shown}: code {} instead of {code}; {}", outcome.code, self.drops()?);
        if matches!(want, Want::Passed) {
            ensure!(outcome.frame == packet.bytes(), "{shown}: changed {:02x?}", outcome.frame);
            return Ok(packet.clone());
        }
        ensure!(after == before + 1, "{shown}: counted {} times as {want:?}", after - before);
        if matches!(want, Want::Dropped(_)) {
            return Ok(packet.clone());
        }
        let got = Packet::read(&outcome.frame).with_context(|| shown.clone())?;
        let (Want::Stack(wanted) | Want::Sent(_, wanted) | Want::Refused(_, wanted)) = want else {
            return Ok(got);
        };
        ensure!(matches(&got, wanted), "{shown}:\n     got {got:?}\n  wanted {wanted:?}");
        Ok(got)
    }

    /// Packets counted in a cell of a counter map.
    pub fn counted(&mut self, map: &str, index: u32) -> Result<u64> {
        Ok(self.runner.cells::<Count>(map, index)?.iter().map(|cell| cell.packets).sum())
    }

    /// Every drop reason that was counted, for messages.
    pub fn drops(&mut self) -> Result<String> {
        let mut text = String::from("drops so far:");
        for (index, reason, _) in abi::drops::DROPS {
            let packets = self.counted(name::DROPS, *index)?;
            if packets > 0 {
                text += &format!(" {reason} {packets}");
            }
        }
        Ok(text)
    }

    /// Flows in a table.
    pub fn flows(&mut self, table: &str) -> Result<Vec<(FlowKey, Flow)>> {
        Ok(self.runner.hash::<FlowKey, Flow>(table)?.iter().filter_map(Result::ok).collect())
    }
}

/// Equal, where [`MASQUERADED`] stands for any masqueraded port.
fn matches(got: &Packet, wanted: &Packet) -> bool {
    let mut got = got.clone();
    let any = |got: &mut u16, wanted: u16| {
        if wanted == MASQUERADED && *got >= MASQUERADED {
            *got = MASQUERADED;
        }
    };
    match (&mut got.body, &wanted.body) {
        (Body::Tcp(port, ..), Body::Tcp(wanted, ..))
        | (Body::Udp(port, ..), Body::Udp(wanted, ..))
        | (Body::Sctp(port, ..), Body::Sctp(wanted, ..)) => {
            any(port, *wanted);
        }
        (Body::Echo(_, id), Body::Echo(_, wanted)) => any(id, *wanted),
        _ => {}
    }
    got == *wanted
}

/// The facts the programs are loaded with.
pub fn node() -> Node {
    let [v4, v6] = families();
    let prefix = |text: &str, length| Prefix::new(text.parse().expect("an address"), length);
    Node {
        v4: Addr16::from(v4.node),
        v6: Addr16::from(v6.node),
        services: [prefix("10.96.0.0", 16), prefix("fd00:96::", 112)],
        pods: [prefix("10.244.0.0", 16), prefix("fd00:244::", 48)],
        cpus: 2,
        port_min: Be16::new(MASQUERADED),
        port_max: Be16::new(65_535),
        features: kernel::features(),
        router: 0,
        direct: abi::flow::most_direct(1),
        begun: abi::flow::most_begun(1),
    }
}

fn ip(arguments: &str) -> Result<()> {
    let output = Command::new("ip").args(arguments.split(' ')).output().context("run ip")?;
    ensure!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn index(device: &str) -> Result<u32> {
    let name = std::ffi::CString::new(device)?;
    // SAFETY: the name ends in a zero byte and outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(std::io::Error::last_os_error()).with_context(|| format!("index of {device}")),
        index => Ok(index),
    }
}
