//! CustomResourceDefinitions: kinds that are made at run time.
//!
//! ```text
//!  write of a definition -> validate, structural -> settle: names, conditions -> commit -> follow: rows, new table
//!  request for a custom object -> table -> row -> (first use) compile: schema -> the verbs of every kind
//!  deletion of a definition -> Terminating -> tend: delete the objects, then the definition
//! ```
//!
//! A definition costs its stored bytes and its rows' names; its schema is compiled when the first object is written or
//! read, and documents are made from the stored bytes when somebody asks.

mod alternatives;
pub mod compile;
mod conditions;
mod names;
mod rows;
mod structural;
mod tend;
mod validate;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::{MutexGuard, watch};

use crate::api::Api;
use crate::object::{self, Stored, prefix};
use crate::resources::{Row, Table, known};
use crate::tree::at;

pub use conditions::{condition_is, set_condition};
pub use tend::run;
pub use validate::{default_definition, prepare_definition, validate_definition, warnings};

use names::Names;

/// The finalizer that holds a definition until its objects are gone.
pub const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// The group of definitions.
pub const GROUP: &str = "apiextensions.k8s.io";

/// The row of definitions.
pub fn row() -> &'static Row {
    known(GROUP, "customresourcedefinitions")
}

/// Whether a row is that of definitions.
pub fn is_definition(row: &Row) -> bool {
    row.group == GROUP && row.plural == "customresourcedefinitions"
}

/// What is known of every definition that is stored.
#[derive(Debug)]
pub struct Definitions {
    /// Names are given one definition after the other, so that no two get the same.
    turn: tokio::sync::Mutex<()>,
    /// By name.
    known: Mutex<BTreeMap<String, Known>>,
    /// Sees every new table.
    changed: watch::Sender<()>,
}

#[derive(Debug)]
struct Known {
    accepted: Names,
    rows: Vec<Arc<Row>>,
    unfinished: bool,
}

impl Default for Definitions {
    fn default() -> Self {
        Self { turn: tokio::sync::Mutex::default(), known: Mutex::default(), changed: watch::Sender::new(()) }
    }
}

impl Definitions {
    /// The turn of a write of the row, when it is one that gives names.
    pub async fn turn(&self, row: &Row) -> Option<MutexGuard<'_, ()>> {
        if is_definition(row) { Some(self.turn.lock().await) } else { None }
    }

    /// Lets no definition be written until the guard is dropped.
    pub async fn hold(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Sees each change of the table from now on.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Gives a definition its names, and writes down what came of it. The caller has the turn. `now` is RFC 3339.
    pub fn settle(&self, definition: &mut Value, now: &str) {
        let name = crate::tree::text(definition, &["metadata", "name"]).to_owned();
        let known = self.known.lock();
        let others: Vec<&Names> =
            known.iter().filter(|(other, _)| **other != name).map(|(_, known)| &known.accepted).collect();
        let (accepted, conflict) =
            names::accept(&Names::wanted(definition), &Names::accepted(definition), &others);
        conditions::record(definition, &accepted, conflict.as_ref(), now);
    }

    /// Definitions that wait for a name or for the deletion of their objects.
    fn unfinished(&self) -> Vec<String> {
        let known = self.known.lock();
        known.iter().filter(|(_, known)| known.unfinished).map(|(name, _)| name.clone()).collect()
    }
}

impl Known {
    fn of(entry: &Stored, before: &[Arc<Row>]) -> Self {
        let tree = object::decode(entry);
        let deleting = !at(&tree, &["metadata", "deletionTimestamp"]).is_null();
        Self {
            accepted: Names::accepted(&tree),
            rows: rows::rows(entry, &tree, before),
            unfinished: deleting || !condition_is(&tree, "NamesAccepted", "True"),
        }
    }
}

fn table(own: &Table, known: &BTreeMap<String, Known>) -> Table {
    let custom = known.values().flat_map(|known| &known.rows);
    Table::new(own.rows().iter().chain(custom).map(Arc::clone).collect())
}

/// Brings the table up to date after a key was written.
pub fn follow(api: &Api, key: &str) {
    let Some(name) = key.strip_prefix(&*prefix(row(), "")) else { return };
    // What is stored is looked at under the lock, so that of two writes the later one counts.
    let mut known = api.definitions.known.lock();
    match api.objects.get(key) {
        Some(entry) => {
            let before = known.remove(name).map(|known| known.rows).unwrap_or_default();
            known.insert(name.to_owned(), Known::of(&entry, &before));
        }
        None => _ = known.remove(name),
    }
    api.table.store(Arc::new(table(&api.own, &known)));
    drop(known);
    api.definitions.changed.send_replace(());
}
