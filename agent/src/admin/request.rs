//! What can be asked over the admin socket: one line of JSON, then the answer.

use serde::{Deserialize, Serialize};

use super::explain::Question;
use super::monitor::line::Filter;
use super::what_if::Proposal;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// The state of the node: answered with a [`Report`](super::report::Report).
    Report,
    /// What happens to a packet: answered with an [`Explanation`](super::explain::Explanation), or why there is none.
    Explain(Question),
    /// Which flows other policies would cut: answered with [`Consequences`](super::what_if::Consequences), or why not.
    WhatIf(Proposal),
    /// Events until the asker hangs up: answered with one [`Line`](super::monitor::line::Line) per line.
    Monitor(Filter),
}

/// An answer, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer<T> {
    /// The answer.
    Ok(T),
    /// Why not.
    Error(String),
}
