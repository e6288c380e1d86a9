//! Baselines: rulesets in the shape that kube-proxy writes, made here, between two namespaces and a router.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use crate::cluster::{ENDPOINTS, MEASURED, PORT, address_of};
use crate::namespace::Namespace;

/// The virtual address of a service of the baseline: one that our socket hooks, which see every process here, know nothing of.
pub fn vip_of(service: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 112, 0, 1)) + service)
}

/// Which ruleset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// None: a router.
    Direct,
    /// Verdict maps of addresses and ports, a chain per service and per endpoint.
    Nftables,
    /// One rule per service in one chain, a chain per service and per endpoint.
    Iptables,
}

/// More services than these take the nft program minutes to load.
pub const NFTABLES_LIMIT: u32 = 10_000;

/// A client, a router with rules, a server.
pub struct Baseline {
    pub client: Namespace,
    router: Namespace,
    pub server: Namespace,
}

impl Baseline {
    /// Wires the three; the server has every address of the measured service's endpoints.
    pub fn new() -> Self {
        let all = Self { client: Namespace::new(), router: Namespace::new(), server: Namespace::new() };
        for (link, namespace, network) in
            [("client", &all.client, "10.255.1"), ("server", &all.server, "10.255.2")]
        {
            all.router.ip(&format!(
                "link add {link} type veth peer name eth0 netns {}",
                namespace.path().display()
            ));
            all.router.ip(&format!("addr add {network}.1/24 dev {link}"));
            all.router.ip(&format!("link set {link} up"));
            namespace.ip(&format!("addr add {network}.2/24 dev eth0"));
            namespace.ip("link set eth0 up");
            namespace.ip(&format!("route add default via {network}.1"));
        }
        all.router.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")).expect("a sysctl of ours");
        for endpoint in 0..ENDPOINTS {
            let address = address_of(MEASURED, endpoint);
            all.server.ip(&format!("addr add {address}/32 dev eth0"));
            all.router.ip(&format!("route add {address}/32 via 10.255.2.2"));
        }
        all
    }

    /// Gives the router the rules for this many services.
    pub fn load(&self, shape: Shape, services: u32) {
        self.feed(&["nft", "-f", "-"], "flush ruleset\n");
        self.feed(&["iptables-legacy-restore"], "*nat\nCOMMIT\n");
        match shape {
            Shape::Direct => {}
            Shape::Nftables if services > NFTABLES_LIMIT => {}
            Shape::Nftables => self.feed(&["nft", "-f", "-"], &nftables(services)),
            Shape::Iptables => self.feed(&["iptables-legacy-restore"], &iptables(services)),
        }
    }

    fn feed(&self, command: &[&str], rules: &str) {
        self.router.run(|| {
            let mut child = Command::new(command[0])
                .args(&command[1..])
                .stdin(Stdio::piped())
                .spawn()
                .expect("the program is installed");
            child.stdin.take().expect("it is piped").write_all(rules.as_bytes()).expect("it reads");
            assert!(child.wait().expect("it ends").success(), "{command:?} refused the rules");
        });
    }
}

fn endpoints(service: u32) -> impl Iterator<Item = (u32, Ipv4Addr)> {
    (0..ENDPOINTS).map(move |endpoint| (endpoint, address_of(service, endpoint)))
}

fn nftables(services: u32) -> String {
    let mut text = String::from(
        "table ip kube-proxy {\n\
         chain mark-for-masquerade { meta mark set meta mark or 0x4000\n}\n\
         chain masquerading { meta mark and 0x4000 != 0 meta mark set meta mark xor 0x4000 masquerade fully-random\n}\n",
    );
    let mut elements = Vec::new();
    for service in 0..services {
        let vip = vip_of(service);
        let mut picks = Vec::new();
        for (endpoint, address) in endpoints(service) {
            let chain = format!("endpoint-{service}-{endpoint}");
            writeln!(
                text,
                "chain {chain} {{ ip saddr {address} jump mark-for-masquerade\nmeta l4proto tcp dnat to {address}:{PORT}\n}}"
            )
            .expect("a string takes everything");
            picks.push(format!("{endpoint} : goto {chain}"));
        }
        writeln!(
            text,
            "chain service-{service} {{ ip daddr {vip} tcp dport 80 ip saddr != 10.255.0.0/16 jump mark-for-masquerade\n\
             numgen random mod {ENDPOINTS} vmap {{ {} }}\n}}",
            picks.join(", ")
        )
        .expect("a string takes everything");
        elements.push(format!("{vip} . tcp . 80 : goto service-{service}"));
    }
    writeln!(
        text,
        "map service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict\nelements = {{ {} }}\n}}",
        elements.join(", ")
    )
    .expect("a string takes everything");
    text.push_str(
        "chain services { ip daddr . meta l4proto . th dport vmap @service-ips\n}\n\
         chain nat-prerouting { type nat hook prerouting priority dstnat; policy accept;\njump services\n}\n\
         chain nat-output { type nat hook output priority -100; policy accept;\njump services\n}\n\
         chain nat-postrouting { type nat hook postrouting priority srcnat; policy accept;\njump masquerading\n}\n}\n",
    );
    text
}

/// The measured service is in the middle of the chain: its packets pass half of the rules.
fn iptables(services: u32) -> String {
    let mut head = String::from(
        "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n:KUBE-POSTROUTING - [0:0]\n\
         -A PREROUTING -j KUBE-SERVICES\n-A OUTPUT -j KUBE-SERVICES\n-A POSTROUTING -j KUBE-POSTROUTING\n\
         -A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000\n\
         -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
         -A KUBE-POSTROUTING -j MASQUERADE --random-fully\n",
    );
    let (mut chains, mut rules) = (String::new(), String::new());
    let line = |to: &mut String, text: String| {
        to.push_str(&text);
        to.push('\n');
    };
    for service in (1..=services / 2).chain([MEASURED]).chain(services / 2 + 1..services) {
        let vip = vip_of(service);
        line(&mut chains, format!(":KUBE-SVC-{service} - [0:0]"));
        line(
            &mut head,
            format!("-A KUBE-SERVICES -d {vip}/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-{service}"),
        );
        line(
            &mut rules,
            format!(
                "-A KUBE-SVC-{service} ! -s 10.255.0.0/16 -d {vip}/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ"
            ),
        );
        for (endpoint, address) in endpoints(service) {
            line(&mut chains, format!(":KUBE-SEP-{service}-{endpoint} - [0:0]"));
            let left = ENDPOINTS - endpoint;
            let chance = if left == 1 {
                String::new()
            } else {
                format!(" -m statistic --mode random --probability {:.10}", 1.0 / f64::from(left))
            };
            line(&mut rules, format!("-A KUBE-SVC-{service}{chance} -j KUBE-SEP-{service}-{endpoint}"));
            line(&mut rules, format!("-A KUBE-SEP-{service}-{endpoint} -s {address}/32 -j KUBE-MARK-MASQ"));
            line(
                &mut rules,
                format!(
                    "-A KUBE-SEP-{service}-{endpoint} -p tcp -m tcp -j DNAT --to-destination {address}:{PORT}"
                ),
            );
        }
    }
    // Chains are declared before rules that lead to them.
    let (declared, first) = head.split_at(head.find("-A ").expect("there are rules"));
    format!("{declared}{chains}{first}{rules}COMMIT\n")
}
