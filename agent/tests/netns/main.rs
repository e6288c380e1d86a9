//! Real kernels, namespaces and sockets: what packets do when the agent's rows are in place.

mod agreement;
mod asking;
mod continuity;
mod figures;
mod leftovers;
mod load;
mod namespace;
mod paths;
mod sockets;
mod world;
mod xdp;
