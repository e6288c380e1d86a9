//! NetworkPolicy: what the API says, held against the oracle and against compiled rows.
//!
//! `titles` has one test for each case of upstream's suite, under its title; `agreement` holds oracle and rows against each other
//! on generated clusters, through changes; `changes` tells what a change costs, and what is kept; `reach` that the
//! kernel gets there, and what it does on the way.

mod agreement;
mod changes;
mod reach;
mod tiers;
mod titles;
mod world;
