//! What there is to compare with: the same namespaces and links, and the kernel's routes between them.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::load::serve;
use crate::namespace::Namespace;

/// Where the server listens.
const PORT: u16 = 8080;

/// How two nodes are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Between {
    /// By routes to each other's addresses.
    Routes,
    /// By VXLAN between them.
    Vxlan,
}

/// Two pods behind two nodes on one link.
pub struct Plain {
    /// The pod that calls.
    pub client: Namespace,
    server: Namespace,
    _nodes: [Namespace; 2],
    _link: Namespace,
}

impl Plain {
    /// With a server in the second pod.
    pub fn new(between: Between) -> Self {
        let link = Namespace::new();
        link.ip("link add br0 type bridge");
        link.ip("link set br0 up");
        let [(node1, client), (node2, server)] = [1, 2].map(|number| node(&link, number, between));
        serve(&server, PORT);
        Self { client, server, _nodes: [node1, node2], _link: link }
    }

    /// Where the server is.
    pub fn server(&self) -> SocketAddr {
        let shown = self.server.ip("-4 -o addr show eth0");
        let address = shown.split_whitespace().nth(3).and_then(|prefix| prefix.split('/').next());
        let address: IpAddr = address.expect("an address").parse().expect("an address");
        SocketAddr::new(address, PORT)
    }
}

fn node(link: &Namespace, number: u8, between: Between) -> (Namespace, Namespace) {
    let (node, pod) = (Namespace::new(), Namespace::new());
    let peer = 3 - number;
    node.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("a setting"));
    node.ip("link add uplink type veth peer name port");
    node.ip(&format!("link set port netns {} name port{number}", link.path().display()));
    link.ip(&format!("link set port{number} master br0 up"));
    node.ip(&format!("addr add 192.0.2.{number}/24 dev uplink"));
    node.ip("link set uplink up");
    node.ip(&format!("link add pod type veth peer name eth0 netns {}", pod.path().display()));
    node.ip("link set pod up");
    node.ip("addr add 169.254.1.1/32 dev pod");
    node.ip(&format!("route add 10.0.{number}.2/32 dev pod"));
    pod.ip(&format!("addr add 10.0.{number}.2/32 dev eth0"));
    pod.ip("link set eth0 up");
    pod.ip("route add 169.254.1.1 dev eth0");
    pod.ip("route add default via 169.254.1.1 dev eth0");
    match between {
        Between::Routes => {
            node.ip(&format!("route add 10.0.{peer}.0/24 via 192.0.2.{peer}"));
        }
        Between::Vxlan => {
            node.ip(&format!(
                "link add vx address 0a:00:00:00:00:0{number} mtu 1450 type vxlan id 9 dstport 4789 local 192.0.2.{number} nolearning"
            ));
            node.ip("link set vx up");
            node.ip(&format!("route add 10.0.{peer}.0/24 via 192.0.2.{peer} dev vx onlink"));
            node.ip(&format!("neigh add 192.0.2.{peer} lladdr 0a:00:00:00:00:0{peer} dev vx"));
            let entry = format!("fdb add 0a:00:00:00:00:0{peer} dev vx dst 192.0.2.{peer}");
            node.run(|| {
                let done = std::process::Command::new("bridge").args(entry.split(' ')).status();
                assert!(done.expect("bridge runs").success(), "bridge {entry}");
            });
            pod.ip("route replace default via 169.254.1.1 dev eth0 mtu 1450");
        }
    }
    (node, pod)
}
