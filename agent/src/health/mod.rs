//! What load balancers and supervisors ask: is the proxy of this node well, and has a Service backends here?

pub mod proxy;
pub mod pulse;
pub mod services;
