//! Packets in, verdict and packet out: the programs run by the kernel itself through BPF_PROG_TEST_RUN.
//!
//! [`packet`] has the words packets are written in, [`world`] the named addresses and devices, [`policy`] what its pods may do, [`runner`] the loaded
//! object, [`run`] one run, [`figures`] what runs cost. A case is a function over a [`World`](world::World) and runs for both families.

pub mod case;
pub mod figures;
pub mod kernel;
pub mod packet;
pub mod policy;
pub mod ruled;
pub mod run;
pub mod runner;
pub mod world;
