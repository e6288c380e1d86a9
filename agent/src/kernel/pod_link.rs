//! The veth pair between the host and a pod.
//!
//! ```text
//!  pod: eth0 10.244.0.5/32, default via 169.254.1.1     host: hw0123456789ab, 10.244.0.5 dev hw0123456789ab
//!       static neighbour 169.254.1.1 -> host's MAC             static neighbour 10.244.0.5 -> pod's MAC
//! ```
//!
//! Nothing is resolved by ARP or neighbour discovery, so no proxy setting is needed. Every step may be repeated.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use ipnetwork::IpNetwork;
use netlink_packet_route::link::{InfoData, InfoVeth, LinkAttribute};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::KernelError;
use super::netlink::Netlink;
use super::netlink::filters::NewFilter;
use super::netlink::requests::{Requests, RouteSocket};
use super::netlink::visit::visit;
use crate::desired::EndpointRow;

/// Not in every libc yet.
const SO_NETNS_COOKIE: libc::c_int = 71;

/// Index of the loopback device, in every namespace.
const LOOPBACK: u32 = 1;

/// What the alias of our links begins with.
pub const ALIAS: &str = "hawser:";

/// The alias of a pod's link: names its container, and its addresses for the reader of a restarted agent.
pub fn alias(row: &EndpointRow) -> String {
    let addresses: Vec<String> = row.endpoint.addresses.iter().map(IpAddr::to_string).collect();
    format!("{ALIAS}{}/{} {}", row.endpoint.container_id, row.endpoint.ifname, addresses.join(","))
}

/// The addresses in an alias written by [`alias`]; `None` for a link that is not ours or was not finished.
pub fn addresses_of(alias: &str) -> Option<BTreeSet<IpAddr>> {
    let (_, addresses) = alias.strip_prefix(ALIAS)?.split_once(' ')?;
    addresses.split(',').map(|address| address.parse().ok()).collect()
}

/// The host's end of a pair.
#[derive(Debug, Clone, Copy)]
pub struct HostEnd {
    /// Its index.
    pub index: u32,
    /// Whether it was made now: then it is still down, and nothing hangs on it.
    pub is_new: bool,
}

/// Makes sure that both ends exist, and returns the host's end.
///
/// Every request to rtnetlink waits for whoever takes devices or namespaces down on this machine: those that can be spared are.
pub fn create(netlink: &Netlink, row: &EndpointRow) -> Result<HostEnd, KernelError> {
    let name = &row.attachment.host_link;
    if let Some(index) = index_of(name)? {
        let inside = visit(&row.endpoint.netns_path, || index_of(&row.endpoint.ifname))?;
        if inside.is_some() {
            return Ok(HostEnd { index, is_new: false });
        }
        netlink.delete_device(index)?;
    }
    let namespace = File::open(&row.endpoint.netns_path)
        .map_err(KernelError::io(format!("open network namespace {}", row.endpoint.netns_path.display())))?;
    // The default is one of each for every CPU, each an object in sysfs; without XDP or a discipline they serve nobody.
    let queues = [LinkAttribute::NumTxQueues(1), LinkAttribute::NumRxQueues(1)];
    let mut peer = LinkMessageBuilder::<LinkUnspec>::new()
        .name(row.endpoint.ifname.clone())
        .mtu(row.attachment.mtu)
        .address(row.attachment.pod_mac.to_vec())
        .append_extra_attribute(LinkAttribute::NetNsFd(namespace.as_raw_fd()))
        .build();
    peer.attributes.extend(queues.clone());
    let mut pair = LinkMessageBuilder::<LinkVeth>::new(name, &row.endpoint.ifname)
        .mtu(row.attachment.mtu)
        .address(row.attachment.host_mac.to_vec())
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build();
    pair.attributes.extend(queues);
    netlink.add_device(pair, name)?;
    let index = index_of(name)?.ok_or_else(|| KernelError::NoDevice(name.clone()))?;
    Ok(HostEnd { index, is_new: true })
}

/// The index of a device of the calling thread's namespace, asked without rtnetlink.
pub fn index_of(name: &str) -> Result<Option<u32>, KernelError> {
    match nix::net::if_::if_nametoindex(name) {
        Ok(index) => Ok(Some(index)),
        Err(nix::Error::ENODEV | nix::Error::ENXIO) => Ok(None),
        Err(error) => Err(KernelError::io(format!("look for device {name}"))(error.into())),
    }
}

/// Configures the host's end: filters, forwarding on this link alone, the pod's neighbour and route.
///
/// What the kernel refuses does not keep it from the rest: nothing passes all the same until [`configure_pod`] has turned the other
/// end on.
pub fn configure_host(
    netlink: &Netlink,
    index: u32,
    row: &EndpointRow,
    node: &[IpAddr],
    filters: &[NewFilter<'_>],
) -> Result<(), KernelError> {
    for assignment in ["forwarding=1", "accept_ra=0"] {
        set("ipv6/conf", &row.attachment.host_link, assignment)?;
    }
    let mut requests = Requests::default();
    requests.add_filters(index, filters);
    requests.set_up_to_forward(index);
    for address in &row.endpoint.addresses {
        requests.add_neighbour(index, *address, row.attachment.pod_mac);
        let source = node.iter().find(|own| own.is_ipv4() == address.is_ipv4()).copied();
        requests.add_host_route(*address, index, source)?;
    }
    netlink.carry_out(requests)
}

/// Configures the pod's end; answers with the cookie of the pod's namespace where the kernel tells it.
pub fn configure_pod(row: &EndpointRow) -> Result<Option<u64>, KernelError> {
    let name = &row.endpoint.ifname;
    visit(&row.endpoint.netns_path, || {
        let index = index_of(name)?.ok_or_else(|| KernelError::NoDevice(name.clone()))?;
        let v6 = row.endpoint.addresses.iter().any(IpAddr::is_ipv6);
        if v6 {
            set("ipv6/conf", name, "accept_ra=0")?;
        }
        let pod = RouteSocket::new()?;
        match pod.carry_out(pod_requests(index, row)?) {
            // Some runtimes turn IPv6 off in what they make.
            Err(error) if v6 && error.errno() == Some(libc::EACCES) => {
                set("ipv6/conf", name, "disable_ipv6=0")?;
                pod.carry_out(pod_requests(index, row)?)?;
            }
            done => done?,
        }
        Ok(cookie_of(pod.as_fd()))
    })
}

fn pod_requests(index: u32, row: &EndpointRow) -> Result<Requests, KernelError> {
    let mut requests = Requests::default();
    requests.set_up(LOOPBACK);
    requests.set_up(index);
    for address in &row.endpoint.addresses {
        requests.add_address(index, *address);
    }
    for gateway in &row.attachment.gateways {
        requests.add_neighbour(index, *gateway, row.attachment.host_mac);
        requests.add_route(default_route(*gateway), *gateway, Some(index))?;
    }
    Ok(requests)
}

/// The cookie of the calling thread's network namespace (Linux 5.14).
pub fn namespace_cookie() -> Option<u64> {
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    cookie_of(socket.as_fd())
}

/// The cookie of a socket's network namespace.
fn cookie_of(socket: BorrowedFd<'_>) -> Option<u64> {
    let (mut cookie, mut length) = (0_u64, size_of::<u64>() as libc::socklen_t);
    // SAFETY: the pointers lead to a value of the length that is stated.
    let code = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    (code == 0).then_some(cookie)
}

fn default_route(gateway: IpAddr) -> IpNetwork {
    let any = match gateway {
        IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    };
    IpNetwork::new(any, 0).expect("zero is a prefix length of both families")
}

/// Writes `/proc/sys/net/<setting>/<device>/<name>` in the namespace of the calling thread. A kernel without IPv6 has no
/// such file, and needs no such setting.
pub(super) fn set(setting: &str, device: &str, assignment: &str) -> Result<(), KernelError> {
    let (name, value) = assignment.split_once('=').expect("assignments are written in this file");
    let path = Path::new("/proc/sys/net").join(setting).join(device).join(name);
    let refused = match std::fs::write(&path, value) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => error,
        _ => return Ok(()),
    };
    // Where nobody may write there, it may be right all the same.
    match std::fs::read_to_string(&path) {
        Ok(current) if current.trim() == value => Ok(()),
        _ => Err(KernelError::io(format!("set {} to {value}", path.display()))(refused)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::endpoints::attachment;
    use crate::tables::Endpoint;

    #[test]
    fn an_alias_gives_the_addresses_back() {
        let endpoint = Endpoint {
            container_id: "abc".into(),
            ifname: "eth0".into(),
            netns_path: "/proc/1/ns/net".into(),
            pod_namespace: "default".into(),
            pod_name: "web".into(),
            addresses: vec!["10.244.0.5".parse().unwrap(), "fd00:244::5".parse().unwrap()],
            pod_uid: String::new(),
            host_ports: Vec::new(),
        };
        let attachment = attachment(&endpoint, 1500);
        let text = alias(&EndpointRow {
            policed: None,
            limits: None,
            endpoint: endpoint.clone(),
            flags: 0,
            attachment,
        });
        assert_eq!(addresses_of(&text), Some(endpoint.addresses.into_iter().collect()));
        assert_eq!(addresses_of("somebody else's"), None);
    }
}
