//! Where rows come from: the API server, CNI, the links of this machine.

pub mod cni;
pub mod kube;
pub mod links;
