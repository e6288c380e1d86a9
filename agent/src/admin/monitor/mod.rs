//! `hawser-agent monitor`: events with names instead of numbers, for as many readers as ask.

pub mod hub;
pub mod line;
pub mod names;
