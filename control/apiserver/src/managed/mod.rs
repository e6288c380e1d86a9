//! Field ownership: who set what, and what server-side apply does with it.

use jiff::Timestamp;
use serde_json::Value;

use crate::api::Call;
use crate::resources::{Resource, Sub};
use crate::status::{Refusal, Result};

/// In whose name a write happens.
#[derive(Debug, Clone)]
pub struct Manager;

impl Manager {
    /// The manager of a write other than apply.
    pub fn update(_call: &Call) -> Self {
        Self
    }

    /// The manager of an apply, which must be named.
    pub fn apply(_call: &Call) -> Result<Self> {
        Err(Refusal::unsupported_media_type(
            "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json",
        ))
    }

    pub fn with_applied(self, _wanted: Option<&Value>) -> Self {
        self
    }
}

pub fn check_applied(_call: &Call, _wanted: &Value) -> Result<()> {
    Ok(())
}

pub fn merge(
    _row: &Resource,
    old: &Value,
    _wanted: &Value,
    _manager: &Manager,
    _sub: Option<Sub>,
) -> Result<Value> {
    Ok(old.clone())
}

pub fn track(
    _row: &Resource,
    _old: Option<&Value>,
    _new: &mut Value,
    _manager: &Manager,
    _sub: Option<Sub>,
    _now: Timestamp,
) -> Result<()> {
    Ok(())
}
