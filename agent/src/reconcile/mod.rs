//! Brings the kernel from what is to what should be.
//!
//! [`diff`](diff::diff) compares [`Actual`](actual::Actual) with [`Desired`](crate::desired::Desired) and is pure;
//! [`apply`] carries out its operations and is the only writer. A restart is not a special path: what is was read from
//! the pinned maps.

pub mod actual;
pub mod apply;
pub mod diff;
pub mod place;
pub mod run;
