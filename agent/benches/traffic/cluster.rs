//! Our side: the node of the namespace tests, told about as many services as the baseline has.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use agent::tables::{ObjectName, Protocol, Service, ServicePort, Slice, SliceEndpoint, Source};

use crate::load::serve;
use crate::namespace::Namespace;
use crate::world::{Clients, World};

/// Endpoints of every service.
pub const ENDPOINTS: u32 = 10;
/// The service that is called.
pub const MEASURED: u32 = 0;
/// Where endpoints listen.
pub const PORT: u16 = 8080;

/// The virtual address of a service.
pub fn vip_of(service: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 1, 0)) + service)
}

/// The address of an endpoint. Nobody has those of services that are not called.
pub fn address_of(service: u32, endpoint: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 128, 0, 1)) + service * 16 + endpoint)
}

/// Two pods of one node.
pub struct Ours {
    world: World,
}

impl Ours {
    /// With a server in one of the pods.
    pub fn new(clients: Clients) -> Self {
        let world = World::new(clients);
        for port in (PORT..).take(ENDPOINTS as usize) {
            serve(&world.nodes[0].pods[0].namespace, port);
        }
        Self { world }
    }

    /// The pod that calls.
    pub fn client(&self) -> &Namespace {
        &self.world.nodes[0].pods[1].namespace
    }

    /// The server's own address.
    pub fn direct(&self) -> SocketAddr {
        SocketAddr::new(self.server(), PORT)
    }

    fn server(&self) -> IpAddr {
        self.world.nodes[0].pods[0].addresses[0]
    }

    /// Tells the node about this many services, on maps large enough for them.
    pub fn load(&mut self, services: u32) {
        let server = self.server();
        let node = &mut self.world.nodes[0];
        let states = abi::name::BACKEND_STATES_SIZE as u32;
        node.scale = (services * ENDPOINTS).div_ceil(states).next_power_of_two();
        node.start();
        node.tables.update(|rows| {
            rows.services.clear();
            rows.slices.clear();
            for number in 0..services {
                rows.services.insert(name(number, 0), Arc::new(service(number)));
                if number != MEASURED {
                    rows.slices.insert(name(number, 0), Arc::new(slice(number)));
                }
            }
            // The endpoints of the service that is called are ports of one pod.
            for endpoint in 0..ENDPOINTS {
                let slice = Slice {
                    service: name(MEASURED, 0).name,
                    endpoints: vec![SliceEndpoint::new(server)],
                    ports: vec![(String::new(), Protocol::Tcp, PORT + endpoint as u16)],
                };
                rows.slices.insert(name(MEASURED, endpoint + 1), Arc::new(slice));
            }
        });
        for source in [
            Source::Services,
            Source::Slices,
            Source::Nodes,
            Source::Policies,
            Source::ClusterPolicies,
            Source::Namespaces,
            Source::ClusterPods,
        ] {
            node.tables.synced(source);
        }
        node.round();
    }
}

fn name(service: u32, part: u32) -> ObjectName {
    let part = if part == 0 { String::new() } else { format!("-{part}") };
    ObjectName { namespace: "default".to_owned(), name: format!("s{service}{part}") }
}

fn service(number: u32) -> Service {
    let port = ServicePort { port: 80, ..ServicePort::default() };
    Service { cluster_ips: vec![vip_of(number).into()], ports: vec![port], ..Service::default() }
}

fn slice(number: u32) -> Slice {
    let endpoint = |endpoint| SliceEndpoint::new(address_of(number, endpoint).into());
    Slice {
        service: name(number, 0).name,
        endpoints: (0..ENDPOINTS).map(endpoint).collect(),
        ports: vec![(String::new(), Protocol::Tcp, PORT)],
    }
}
