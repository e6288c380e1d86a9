//! Names and places of everything a local cluster leaves on a machine: `down` removes what is named here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

/// Most nodes one machine can carry as namespaces.
pub const MAX_NODES: u8 = 100;

/// The layout of one cluster. Clusters of different `index` share nothing.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Part of every name: at most four letters, because a link's name holds fifteen.
    pub name: String,
    /// Tells the networks and ports of several clusters apart.
    pub index: u8,
}

/// Why a text names no layout.
#[derive(Debug, thiserror::Error)]
#[error(
    "a layout is written NAME:INDEX, with at most four small letters and a number below 200, such as up:0"
)]
pub struct NotALayout;

impl std::str::FromStr for Layout {
    type Err = NotALayout;

    fn from_str(text: &str) -> Result<Self, NotALayout> {
        let (name, index) = text.split_once(':').ok_or(NotALayout)?;
        let index = index.parse().ok().filter(|index| *index < 200).ok_or(NotALayout)?;
        let is_short = (1..=4).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_lowercase());
        if is_short { Ok(Self { name: name.to_owned(), index }) } else { Err(NotALayout) }
    }
}

impl Layout {
    /// What is kept between `down` and `up`: the store, the PKI and the kubeconfig.
    pub fn data(&self) -> PathBuf {
        PathBuf::from("/var/lib/hawser").join(&self.name)
    }

    /// The control plane's data folder.
    pub fn control(&self) -> PathBuf {
        self.data().join("control")
    }

    /// Certificates and data of the cluster's etcd, when it has one.
    pub fn etcd(&self) -> PathBuf {
        self.data().join("etcd")
    }

    /// etcd's ports on loopback, for clients and for peers.
    pub fn etcd_ports(&self) -> (u16, u16) {
        (12_379 + 2 * u16::from(self.index), 12_380 + 2 * u16::from(self.index))
    }

    /// State that ends with the cluster: containerd roots, agent state, logs, pid files.
    pub fn scratch(&self) -> PathBuf {
        PathBuf::from("/var/lib/hawser").join(format!("{}.tmp", self.name))
    }

    pub fn logs(&self) -> PathBuf {
        self.scratch().join("log")
    }

    pub(crate) fn pids(&self) -> PathBuf {
        self.scratch().join("pid")
    }

    /// Sockets; short, because a socket's path holds 107 bytes.
    pub fn run(&self) -> PathBuf {
        PathBuf::from("/run/hawser").join(&self.name)
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.control().join("admin.kubeconfig")
    }

    pub(crate) fn bridge(&self) -> String {
        format!("hawser-{}", self.name)
    }

    /// The host's address on the bridge, where the control plane answers nodes and pods.
    pub fn host_v4(&self) -> Ipv4Addr {
        Ipv4Addr::new(172, 30, self.index, 254)
    }

    pub fn host_v6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x30, u16::from(self.index), 0, 0, 0, 0, 0xfe)
    }

    /// Port of the API server on the bridge and on loopback.
    pub fn api_port(&self) -> u16 {
        6443 + u16::from(self.index)
    }

    /// Where things of node `number` (from 1) are.
    pub fn node(&self, number: u8) -> NodeLayout {
        NodeLayout { cluster: self.clone(), number }
    }

    /// Whether a namespace, cgroup or folder of pins of that name is a node's of this cluster.
    pub(crate) fn owns(&self, name: &str) -> bool {
        let number = name.strip_prefix(&format!("hawser-{}-n", self.name));
        number.is_some_and(|number| number.parse::<u8>().is_ok())
    }
}

/// Names and places of one node.
#[derive(Debug, Clone)]
pub struct NodeLayout {
    cluster: Layout,
    pub number: u8,
}

impl NodeLayout {
    /// The node's name in the API: `node-1`.
    pub fn name(&self) -> String {
        format!("node-{}", self.number)
    }

    /// Network namespace, cgroup and the folder of pins have this name.
    pub fn scope(&self) -> String {
        format!("hawser-{}-n{}", self.cluster.name, self.number)
    }

    pub fn netns(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(self.scope())
    }

    /// The bridge's end of the node's link.
    pub(crate) fn host_link(&self) -> String {
        format!("hwr{}{}", self.cluster.name, self.number)
    }

    pub fn v4(&self) -> Ipv4Addr {
        Ipv4Addr::new(172, 30, self.cluster.index, self.number)
    }

    pub fn v6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x30, u16::from(self.cluster.index), 0, 0, 0, 0, u16::from(self.number))
    }

    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.v4().into(), self.v6().into()]
    }

    pub fn state(&self) -> PathBuf {
        self.cluster.scratch().join(format!("n{}", self.number))
    }

    pub fn run(&self) -> PathBuf {
        self.cluster.run().join(format!("n{}", self.number))
    }

    pub fn bpffs(&self) -> PathBuf {
        PathBuf::from("/sys/fs/bpf").join(self.scope())
    }

    pub fn containerd_socket(&self) -> PathBuf {
        self.run().join("containerd.sock")
    }
}

#[cfg(test)]
mod tests {
    use super::Layout;

    #[test]
    fn layouts_are_read_and_names_stay_short_enough_for_links() {
        let layout: Layout = "bnch:2".parse().unwrap();
        assert_eq!((layout.name.as_str(), layout.index), ("bnch", 2));
        assert!(layout.node(super::MAX_NODES).host_link().len() <= 15);
        assert!(layout.bridge().len() <= 15);
        assert!(layout.owns(&layout.node(3).scope()));
        for foreign in ["hawser-bnch-", "hawser-bnch-nx", "hawser-bnch-other", "hawser-up-n1"] {
            assert!(!layout.owns(foreign), "{foreign}");
        }
        for wrong in ["up", "up:x", "toolong:1", ":1", "Up:1", "up:200", "u/p:1"] {
            assert!(wrong.parse::<Layout>().is_err(), "{wrong}");
        }
    }
}
