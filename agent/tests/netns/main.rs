//! Real kernels, namespaces and sockets: what packets do when the agent's rows are in place.

mod addresses;
mod agreement;
mod announce;
mod asking;
mod bandwidth;
#[path = "../policy/cases.rs"]
mod cases;
mod continuity;
mod full;
mod leftovers;
mod load;
mod namespace;
mod netpol;
mod nodes;
mod paths;
mod peers;
mod policies;
mod sandboxes;
mod served;
mod silence;
mod sockets;
mod sweep;
mod upgrade;
mod world;
mod xdp;
