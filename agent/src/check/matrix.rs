//! The traffic matrix: every way from a caller to a server, and which question proves it. Pure.

use std::net::{IpAddr, SocketAddr};

use super::traffic::Ask;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// A pod on the first node.
    Pod,
    /// The first node itself.
    Host,
    /// Somebody who is neither.
    Outside,
}

/// By which address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The pod's own.
    Pod,
    /// Its Service's.
    ClusterIp,
    /// The first node's, with the port of the Service.
    NodePort,
    /// The load balancer's.
    LoadBalancer,
}

/// One way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// Who asks.
    pub caller: Caller,
    /// By which address.
    pub by: By,
    /// Whether the server is on another node than the first.
    pub other: bool,
    /// The family.
    pub v6: bool,
}

/// All 48, callers first.
pub fn ways() -> Vec<Way> {
    let mut ways = Vec::new();
    for caller in [Caller::Pod, Caller::Host, Caller::Outside] {
        for by in [By::Pod, By::ClusterIp, By::NodePort, By::LoadBalancer] {
            for other in [false, true] {
                ways.extend([false, true].map(|v6| Way { caller, by, other, v6 }));
            }
        }
    }
    ways
}

impl Way {
    /// For people.
    pub fn name(self) -> String {
        let caller = match self.caller {
            Caller::Pod => "pod",
            Caller::Host => "host",
            Caller::Outside => "outside",
        };
        let by = match self.by {
            By::Pod => "pod",
            By::ClusterIp => "ClusterIP",
            By::NodePort => "NodePort",
            By::LoadBalancer => "LoadBalancer",
        };
        let node = if self.other { "other node" } else { "same node" };
        format!("{caller} > {by}, {node}, {}", family(self.v6))
    }
}

fn family(v6: bool) -> &'static str {
    if v6 { "IPv6" } else { "IPv4" }
}

/// A server and its Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// What it answers with.
    pub name: String,
    /// Addresses of its pod.
    pub pod: Vec<IpAddr>,
    /// Addresses of its Service.
    pub cluster_ips: Vec<IpAddr>,
    /// Its Service's ports on nodes, for TCP and for UDP.
    pub node_ports: [u16; 2],
    /// Addresses of its load balancer, or why there are none.
    pub balancers: Result<Vec<IpAddr>, String>,
    /// Addresses of its node.
    pub node: Vec<IpAddr>,
}

/// What the questions are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct World {
    /// The server on the first node.
    pub same: Server,
    /// The one on another node, or why there is none.
    pub other: Result<Server, String>,
    /// Why nobody asks from outside, if nobody does.
    pub no_outside: Option<String>,
    /// Whether load balancers' addresses lead to the cluster from outside.
    pub announced: bool,
    /// Whether who asks from outside has the routes that [`World::routes`] lists.
    pub routed: bool,
    /// Port of pods.
    pub port: u16,
    /// Port of Services.
    pub service_port: u16,
}

impl World {
    /// The question that proves a way, or why it cannot be asked.
    pub fn ask(&self, id: usize, way: Way) -> Result<Ask, String> {
        let server = if way.other { self.other.as_ref().map_err(Clone::clone)? } else { &self.same };
        if way.caller == Caller::Outside {
            self.reach_from_outside(way.by)?;
        }
        let both = |port: u16| [port, port];
        let (addresses, [port, udp_port], whose) = match way.by {
            By::Pod => (&server.pod, both(self.port), "the pod"),
            By::ClusterIp => (&server.cluster_ips, both(self.service_port), "the Service"),
            By::NodePort => (&self.same.node, server.node_ports, "the node"),
            By::LoadBalancer => {
                let given = server.balancers.as_ref().map_err(Clone::clone)?;
                (given, both(self.service_port), "the load balancer")
            }
        };
        let address = addresses.iter().find(|address| address.is_ipv6() == way.v6);
        let address = address.ok_or_else(|| format!("{whose} has no {} address", family(way.v6)))?;
        Ok(Ask {
            id,
            address: SocketAddr::new(*address, port),
            udp_port,
            name: server.name.clone(),
            // Between pods nothing is translated.
            unchanged: way.caller == Caller::Pod && way.by == By::Pod,
        })
    }

    /// How a machine beside the nodes reaches everything: nodes as neighbours, pods by their nodes, Services by the first node, and
    /// load balancers as neighbours where somebody announces them.
    pub fn routes(&self) -> Vec<(IpAddr, Option<IpAddr>)> {
        let mut routes = Vec::new();
        for server in [Some(&self.same), self.other.as_ref().ok()].into_iter().flatten() {
            routes.extend(server.node.iter().map(|node| (*node, None)));
            routes.extend(by(&server.pod, &server.node));
            routes.extend(by(&server.cluster_ips, &self.same.node));
            let balancers = server.balancers.as_deref().unwrap_or_default();
            if self.announced {
                routes.extend(balancers.iter().map(|address| (*address, None)));
            } else {
                routes.extend(by(balancers, &self.same.node));
            }
        }
        routes
    }

    fn reach_from_outside(&self, by: By) -> Result<(), String> {
        if let Some(why) = &self.no_outside {
            return Err(why.clone());
        }
        match by {
            _ if self.routed => Ok(()),
            By::Pod | By::ClusterIp => Err("nobody outside has a route to it; see --outside".to_owned()),
            By::LoadBalancer if !self.announced => {
                Err("check gave the address, and nobody announces it; see --load-balancer".to_owned())
            }
            By::NodePort | By::LoadBalancer => Ok(()),
        }
    }
}

/// Routes to addresses by a node's address of the same family.
fn by<'a>(to: &'a [IpAddr], node: &'a [IpAddr]) -> impl Iterator<Item = (IpAddr, Option<IpAddr>)> + use<'a> {
    let hop = |to: &IpAddr| node.iter().find(|hop| hop.is_ipv4() == to.is_ipv4());
    to.iter().filter_map(move |to| Some((*to, Some(*hop(to)?))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn server(name: &str, pod: &[&str]) -> Server {
        Server {
            name: name.to_owned(),
            pod: pod.iter().map(|text| ip(text)).collect(),
            cluster_ips: vec![ip("10.96.0.9"), ip("fd00:96::9")],
            node_ports: [30_001, 30_002],
            balancers: Ok(vec![ip("198.18.75.1")]),
            node: if name == "same" {
                vec![ip("192.0.2.1"), ip("2001:db8::1")]
            } else {
                vec![ip("192.0.2.2"), ip("2001:db8::2")]
            },
        }
    }

    fn world() -> World {
        World {
            same: server("same", &["10.244.1.2", "fd00:244:0:1::2"]),
            other: Ok(server("other", &["10.244.2.2"])),
            no_outside: None,
            announced: false,
            routed: false,
            port: 8080,
            service_port: 80,
        }
    }

    fn asked(world: &World, caller: Caller, by: By, other: bool, v6: bool) -> Result<String, String> {
        let ask = world.ask(1, Way { caller, by, other, v6 })?;
        Ok(format!(
            "{}/{} {} {}",
            ask.address,
            ask.udp_port,
            ask.name,
            if ask.unchanged { "unchanged" } else { "" }
        )
        .trim()
        .to_owned())
    }

    #[test]
    fn there_are_forty_eight_ways_of_different_names() {
        let names: std::collections::BTreeSet<String> = ways().into_iter().map(Way::name).collect();
        assert_eq!(names.len(), 48);
        assert!(names.contains("outside > NodePort, other node, IPv6"), "{names:?}");
    }

    #[test]
    fn every_way_asks_its_own_address() {
        let world = world();
        for (caller, by, other, v6, wanted) in [
            (Caller::Pod, By::Pod, false, false, "10.244.1.2:8080/8080 same unchanged"),
            (Caller::Host, By::Pod, false, true, "[fd00:244:0:1::2]:8080/8080 same"),
            (Caller::Pod, By::ClusterIp, true, true, "[fd00:96::9]:80/80 other"),
            (Caller::Outside, By::NodePort, true, false, "192.0.2.1:30001/30002 other"),
            (Caller::Host, By::LoadBalancer, true, false, "198.18.75.1:80/80 other"),
        ] {
            assert_eq!(asked(&world, caller, by, other, v6).as_deref(), Ok(wanted));
        }
    }

    #[test]
    fn what_cannot_be_asked_says_why() {
        let alone = World {
            other: Err("one node".to_owned()),
            no_outside: Some("this is a node".to_owned()),
            ..world()
        };
        for (world, caller, by, other, v6, wanted) in [
            (&world(), Caller::Pod, By::Pod, true, true, "the pod has no IPv6 address"),
            (
                &world(),
                Caller::Outside,
                By::ClusterIp,
                false,
                false,
                "nobody outside has a route to it; see --outside",
            ),
            (&world(), Caller::Pod, By::LoadBalancer, false, true, "the load balancer has no IPv6 address"),
            (&alone, Caller::Pod, By::Pod, true, false, "one node"),
            (&alone, Caller::Outside, By::NodePort, false, false, "this is a node"),
        ] {
            assert_eq!(asked(world, caller, by, other, v6), Err(wanted.to_owned()));
        }
        let announced = World { announced: true, ..world() };
        assert!(asked(&world(), Caller::Outside, By::LoadBalancer, false, false).is_err());
        assert!(asked(&announced, Caller::Outside, By::LoadBalancer, false, false).is_ok());
    }

    #[test]
    fn a_machine_beside_the_nodes_reaches_pods_by_their_nodes_and_services_by_the_first() {
        let world = World { routed: true, ..world() };
        assert!(asked(&world, Caller::Outside, By::ClusterIp, true, false).is_ok());
        let hop = |world: &World, to: &str| {
            world.routes().into_iter().find(|(known, _)| *known == ip(to)).unwrap().1
        };
        for (to, by) in [
            ("192.0.2.2", None),
            ("10.244.1.2", Some("192.0.2.1")),
            ("fd00:244:0:1::2", Some("2001:db8::1")),
            ("10.244.2.2", Some("192.0.2.2")),
            ("fd00:96::9", Some("2001:db8::1")),
            ("198.18.75.1", Some("192.0.2.1")),
        ] {
            assert_eq!(hop(&world, to), by.map(ip), "{to}");
        }
        assert_eq!(hop(&World { announced: true, ..world }, "198.18.75.1"), None);
    }
}
