//! Brings the kernel from what is to what should be.
//!
//! [`diff`] compares [`Actual`](actual::Actual) with [`Desired`](crate::desired::Desired) and is pure; [`apply`] and
//! [`serve`] carry out its operations and are the only writers. [`services`] remembers what a change does not touch. A
//! restart is not a special path: what is was read from the pinned maps.

pub mod actual;
pub mod apply;
pub mod claims;
pub mod diff;
pub mod filter;
pub mod numbers;
pub mod place;
pub mod police;
mod room;
pub mod run;
pub mod serve;
pub mod services;
pub mod slots;
