//! The rules of services, one test each: what `kube-proxy` 1.36 does (rules 1 to 15, as they are numbered here), and what is
//! ours beyond it.
//!
//! ```text
//!  1 who is usable          6 outsiders at the virtual address   11 addresses and ports nobody has
//!  2 topology               7 a pod that asks itself             12 (flows that exist are not the oracle's)
//!  3 which sets are kept    8 source ranges                      13 (health is not the oracle's)
//!  4 refuse or drop         9 session affinity                   14 (time is not the oracle's)
//!  5 external policy       10 where NodePorts answer             15 what is no service of ours
//! ```

mod cluster;
mod endpoints;
mod frontends;
mod policies;
