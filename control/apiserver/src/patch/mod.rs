//! Patches as pure functions from an object to the object it should be.

pub mod json;
pub mod strategic;
