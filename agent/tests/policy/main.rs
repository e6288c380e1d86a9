//! NetworkPolicy: what the API says, held against the oracle and against compiled rows.
//!
//! `cases` has the cases of upstream's suite by their titles, and `titles` plays them; `tiers` those of ClusterNetworkPolicy, and
//! `nodes` what its rules about nodes mean; `agreement` holds oracle and rows against each other
//! on generated clusters, through changes; `changes` tells what a change costs, and what is kept; `reach` that the
//! kernel gets there, and what it does on the way.

mod agreement;
mod cases;
mod changes;
mod nodes;
mod reach;
mod tiers;
mod titles;
mod world;
