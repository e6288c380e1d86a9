//! The tunnel to nodes that share no link with this one: VXLAN (RFC 7348) in which nothing is learnt, because everything
//! follows from the address of a node.

use std::net::{IpAddr, Ipv6Addr};

use super::endpoints::hash;

/// Name of the device.
pub const DEVICE: &str = "hawser-vxlan";

/// What the headers around a packet take: outer IP, UDP, VXLAN and the inner Ethernet.
const OVERHEAD: (u32, u32) = (50, 70);

/// When packets between pods go in tunnels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum When {
    /// To nodes that are on none of our links.
    #[default]
    Auto,
    /// To every node: for links that only carry packets of the nodes' own addresses, as those of many clouds.
    Always,
    /// To none: nodes on other links are not reached.
    Never,
}

/// How tunnels are made; the same on every node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tunnelling {
    /// When they are used.
    pub when: When,
    /// UDP port they arrive at. Linux's own default is 8472, which flannel and Cilium use; IANA's is 4789, which Calico and
    /// Docker do: neither is ours, so that we may run beside them.
    pub port: u16,
    /// Number of the virtual network.
    pub vni: u32,
}

impl Default for Tunnelling {
    fn default() -> Self {
        Self { when: When::default(), port: 8475, vni: 75 }
    }
}

/// The device that tunnels begin and end at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// Our address outside.
    pub local: IpAddr,
    /// UDP port they arrive at.
    pub port: u16,
    /// Number of the virtual network.
    pub vni: u32,
    /// Largest packet inside.
    pub mtu: u32,
}

impl Overlay {
    /// Between addresses like `local`, over links of this MTU.
    pub fn new(local: IpAddr, tunnelling: Tunnelling, mtu: u32) -> Self {
        let overhead = if local.is_ipv4() { OVERHEAD.0 } else { OVERHEAD.1 };
        Self { local, port: tunnelling.port, vni: tunnelling.vni, mtu: mtu.saturating_sub(overhead) }
    }

    /// Whether this device can become the other without being made anew.
    pub fn is_same_device(&self, other: &Self) -> bool {
        (self.local, self.port, self.vni) == (other.local, other.port, other.vni)
    }
}

/// Hardware address of a node's end of the tunnel: locally administered, and known to all others without being told.
pub fn hardware_address(node: IpAddr) -> [u8; 6] {
    match node {
        IpAddr::V4(node) => {
            let [a, b, c, d] = node.octets();
            [0x0a, 0x75, a, b, c, d]
        }
        IpAddr::V6(node) => {
            let [.., a, b, c, d, e] = hash(&node.to_string()).to_be_bytes();
            [0x06, a, b, c, d, e]
        }
    }
}

/// The next hop to a peer inside the tunnel for packets of one family: an address that only our static neighbours know.
pub fn gateway(peer: IpAddr, v4: bool) -> IpAddr {
    if v4 && peer.is_ipv4() {
        return peer;
    }
    let [a, b, c, d, e, f] = hardware_address(peer).map(u16::from);
    // A link-local address made of the hardware address (RFC 4291, appendix A).
    let words = [(a ^ 2) << 8 | b, c << 8 | 0xff, 0xfe00 | d, e << 8 | f];
    IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, words[0], words[1], words[2], words[3]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_about_a_peer_follows_from_its_address() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let v4 = address("192.0.2.7");
        assert_eq!(hardware_address(v4), [0x0a, 0x75, 192, 0, 2, 7]);
        assert_eq!(gateway(v4, true), v4);
        assert_eq!(gateway(v4, false), address("fe80::875:c0ff:fe00:207"));
        let v6 = address("2001:db8::7");
        assert_ne!(hardware_address(v6), hardware_address(address("2001:db8::8")));
        assert_eq!(gateway(v6, true), gateway(v6, false), "IPv4 has no address to go by");
    }

    #[test]
    fn the_headers_leave_less_room_in_ipv6() {
        let mtu = |local: &str| Overlay::new(local.parse().unwrap(), Tunnelling::default(), 1500).mtu;
        assert_eq!((mtu("192.0.2.1"), mtu("2001:db8::1")), (1450, 1430));
    }
}
