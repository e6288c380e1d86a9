//! Kinds that are served in more versions than the one they are stored in.
//!
//! The row of such a version names two pure functions; every verb goes through [`Row::store`] and [`Row::show`], which do nothing
//! for all other rows.

use std::borrow::Cow;

use serde_json::Value;

use crate::resources::{Row, of_version, stored};
use crate::tree::set;

pub mod autoscaler;
pub mod devices;
pub mod event;
mod metrics;

/// Between the version of a row and the one in which its objects are stored.
#[derive(Debug)]
pub struct Conversion {
    /// From the row's version, decoded by its schema, into the stored one.
    pub store: fn(&mut Value),
    /// From the stored version into the row's.
    pub show: fn(&mut Value),
}

/// Versions that have the same fields.
pub static SAME: Conversion = Conversion { store: |_| {}, show: |_| {} };

impl Row {
    /// The row in whose version the objects are stored.
    pub fn stored_as(&self) -> &Self {
        if self.conversion.is_none() {
            return self;
        }
        stored(&self.storage).expect("every storage has a row without a conversion")
    }

    /// Brings an object of the row's version into the one that is stored.
    pub fn store(&self, object: &mut Value) {
        let Some(conversion) = self.conversion.filter(|_| object.is_object()) else { return };
        (conversion.store)(object);
        set(object, &["apiVersion"], self.stored_as().api_version());
    }

    /// Brings a stored object into the row's version.
    pub fn show(&self, object: &mut Value) {
        let Some(conversion) = self.conversion.filter(|_| object.is_object()) else { return };
        (conversion.show)(object);
        set(object, &["apiVersion"], self.api_version());
    }

    /// A stored object in the row's version.
    pub fn shown<'a>(&self, stored: &'a Value) -> Cow<'a, Value> {
        if self.conversion.is_none() {
            return Cow::Borrowed(stored);
        }
        let mut object = stored.clone();
        self.show(&mut object);
        Cow::Owned(object)
    }

    /// The row that shows the objects of this one in another version of this build.
    pub fn in_version(&self, api_version: &str) -> Option<&'static Self> {
        self.custom.is_none().then(|| of_version(&self.storage, api_version)).flatten()
    }
}
