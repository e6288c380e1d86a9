//! What every write has in common: system metadata, defaults, admission, validation, the transaction.

use bytes::Bytes;
use jiff::Timestamp;
use rand::Rng;
use serde_json::{Value, json};
use store::{Revision, Txn, TxnError};

use super::keep::{differs_outside, isolate, keep_system_metadata};
use crate::allocate::{Allocator, Reservation};
use crate::api::{Api, Call};
use crate::managed::{self, Manager};
use crate::object::{self, Header, Stored};
use crate::resources::{Row, Sub};
use crate::schema;
use crate::status::{Refusal, Result};
use crate::strategy::{Change, meta};
use crate::tree::{at, int, list, remove, set, text};
use crate::validate::Errors;
use crate::{admission, definitions, expiry};

/// What a write led to.
#[derive(Debug)]
pub enum Outcome {
    /// A new version.
    Written(Fresh),
    /// Nothing changed: this is still the version.
    Same(Stored),
    /// The last finalizer went, and the object with it.
    Deleted(Value),
}

/// A version that was just written, or that a dry run would have written.
#[derive(Debug)]
pub struct Fresh {
    object: Value,
    stored: Option<(Bytes, Revision)>,
}

impl Fresh {
    /// What a dry run leads to.
    fn planned(object: Value) -> Self {
        Self { object, stored: None }
    }

    /// The object with its resourceVersion.
    pub fn into_object(mut self) -> Value {
        if let Some((_, revision)) = self.stored {
            set(&mut self.object, &["metadata", "resourceVersion"], revision.to_string());
        }
        self.object
    }

    /// The bytes that were stored, and their revision.
    pub fn stored(&self) -> Option<(&[u8], Revision)> {
        self.stored.as_ref().map(|(value, revision)| (&value[..], *revision))
    }
}

/// Whole seconds, as in `creationTimestamp`.
pub fn timestamp(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// How often a generated name may meet an existing one.
const NAME_ATTEMPTS: usize = 8;
/// Conflicts after which a write without a resourceVersion gives up.
const WRITE_ATTEMPTS: usize = 10;

/// Creates an object that has been decoded in the version of the call.
pub async fn create(call: &Call, mut object: Value, manager: &Manager) -> Result<Fresh> {
    let row = &call.row;
    if row.custom.as_ref().is_some_and(|custom| custom.terminating) {
        let message = "create not allowed while custom resource definition is terminating";
        return Err(Refusal::method_not_allowed(message));
    }
    row.store(&mut object);
    place(call, &mut object)?;
    if !text(&object, &["metadata", "resourceVersion"]).is_empty() {
        return Err(Refusal::bad_request("resourceVersion should not be set on objects to be created"));
    }
    let base = text(&object, &["metadata", "generateName"]).to_owned();
    if base.is_empty() || !text(&object, &["metadata", "name"]).is_empty() {
        return create_named(call, object, manager).await;
    }
    let mut last = None;
    for _ in 0..NAME_ATTEMPTS {
        let mut object = object.clone();
        set(&mut object, &["metadata", "name"], generate_name(&base));
        match create_named(call, object, manager).await {
            Err(refusal) if refusal.reason == "AlreadyExists" => last = Some(refusal),
            other => return other,
        }
    }
    Err(last.unwrap_or_else(|| Refusal::internal("no name was tried")))
}

/// Upstream's alphabet: nothing that spells a word.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// `base` with five random characters behind it.
pub fn generate_name(base: &str) -> String {
    let mut random = rand::rng();
    let suffix = (0..5).map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())]));
    base.chars().take(58).chain(suffix).collect()
}

/// The namespace of the path is the namespace of the object.
fn place(call: &Call, object: &mut Value) -> Result<()> {
    if !at(object, &["metadata"]).is_object() {
        set(object, &["metadata"], json!({}));
    }
    let given = text(object, &["metadata", "namespace"]);
    if !call.row.namespaced {
        if !given.is_empty() {
            let message = "namespace is not allowed on this type: the object is not namespaced";
            return Err(Refusal::bad_request(message));
        }
        remove(object, &["metadata", "namespace"]);
        return Ok(());
    }
    if !given.is_empty() && given != call.target.namespace {
        return Err(Refusal::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    set(object, &["metadata", "namespace"], call.target.namespace.as_str());
    Ok(())
}

async fn create_named(call: &Call, mut object: Value, manager: &Manager) -> Result<Fresh> {
    let row = call.row.stored_as();
    let _turn = call.api.definitions.turn(row).await;
    let now = Timestamp::now();
    for field in
        ["selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "resourceVersion"]
    {
        remove(&mut object, &["metadata", field]);
    }
    set(&mut object, &["metadata", "uid"], uuid::Uuid::new_v4().to_string());
    set(&mut object, &["metadata", "creationTimestamp"], timestamp(now));
    if row.generation {
        set(&mut object, &["metadata", "generation"], 1);
    }
    // A node says what it is when it comes.
    if row.has_status() && row.own() != "nodes" {
        remove(&mut object, &["status"]);
    }
    admission::namespace_accepts(call, &object)?;
    row.fill_in(&mut object);
    // What the cluster adds from here on is nobody's.
    managed::track(&call.row, None, &mut object, manager, None, now)?;
    admission::create(call, &mut object)?;
    if admission::completes(row) {
        row.fill_in(&mut object);
    }
    (row.prepare)(&mut Change { old: None, new: &mut object });
    check(&call.row, row, None, &mut object)?;
    warn(call, row, None, &mut object);
    establish(call, row, &mut object);
    let name = text(&object, &["metadata", "name"]).to_owned();
    let key = object::key(row, text(&object, &["metadata", "namespace"]), &name);
    if call.dry_run() {
        if call.api.objects.get(&key).is_some() {
            return Err(Refusal::already_exists(&call.row, &name));
        }
        let mut planned = object;
        call.api.allocator.reserve(row, &call.api.objects, None, &mut planned)?;
        return Ok(Fresh::planned(planned));
    }
    if !row.missing.is_empty() {
        call.warn(row.missing);
    }
    commit(&call.api, row, &key, 0, None, object).await.map_err(|failure| failure.refusal(&call.row, &name))
}

/// A definition gets its names with the write that asks for them. The caller has the turn.
fn establish(call: &Call, row: &Row, object: &mut Value) {
    if definitions::is_definition(row) {
        call.api.definitions.settle(object, &timestamp(Timestamp::now()));
        definitions::warnings(object).into_iter().for_each(|sentence| call.warn(sentence));
    }
}

/// Checks an object of a stored row, written in the version of another perhaps.
fn check(written: &Row, row: &Row, old: Option<&Value>, new: &mut Value) -> Result<()> {
    let mut errors = Errors::default();
    let change = Change { old, new };
    meta::validate(row, &change, &mut errors);
    (row.validate)(&change, &mut errors);
    (written.validate_version)(&change, &mut errors);
    if let Some(custom) = &row.custom {
        schema::check(row.node(), change.new, old, &mut errors);
        custom.scale.iter().for_each(|scale| scale.check(change.new, false, &mut errors));
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Refusal::invalid(row, text(change.new, &["metadata", "name"]), errors.into_causes()))
}

fn warn(call: &Call, row: &Row, old: Option<&Value>, new: &mut Value) {
    (row.warnings)(&Change { old, new }).into_iter().for_each(|sentence| call.warn(sentence));
}

/// Why a transaction did not happen.
pub enum Failure {
    /// Somebody else wrote the object first.
    Conflict {
        exists: bool,
    },
    Refused(Refusal),
}

impl Failure {
    /// The refusal of a failed creation or of a write that may not be repeated.
    pub fn refusal(self, row: &Row, name: &str) -> Refusal {
        match self {
            Self::Conflict { exists: true } => Refusal::already_exists(row, name),
            Self::Conflict { exists: false } => Refusal::modified(row, name),
            Self::Refused(refusal) => refusal,
        }
    }
}

/// Writes one object, and with it what it reserves.
async fn commit(
    api: &Api,
    row: &Row,
    key: &str,
    revision: Revision,
    old: Option<&Value>,
    object: Value,
) -> Result<Fresh, Failure> {
    if !Allocator::serves(row) {
        let result = put(api, row, key, revision, Reservation::default(), object).await;
        return result.map_err(|error| match error {
            // The definition changed meanwhile.
            TxnError::Conflict { key: other, .. } if other != key => Failure::Refused(Refusal::outdated()),
            error => failure(error, revision == 0),
        });
    }
    for _ in 0..WRITE_ATTEMPTS {
        let mut object = object.clone();
        let reservation =
            api.allocator.reserve(row, &api.objects, old, &mut object).map_err(Failure::Refused)?;
        match put(api, row, key, revision, reservation, object).await {
            Ok(fresh) => return Ok(fresh),
            Err(TxnError::Conflict { key: other, .. }) if other != key => {}
            Err(error) => return Err(failure(error, revision == 0)),
        }
    }
    Err(Failure::Refused(Refusal::internal("addresses or ports were taken by others again and again")))
}

/// One attempt to write an object over the version of `revision`.
async fn put(
    api: &Api,
    row: &Row,
    key: &str,
    revision: Revision,
    reservation: Reservation,
    object: Value,
) -> Result<Fresh, TxnError<Header>> {
    let bytes = row.encode(&object);
    let value = bytes.clone();
    let mut txn =
        reservation.join(Txn::new().expect_revision(key, revision, |key| store::Op::Put { key, value }));
    txn.compares.extend(row.custom.as_ref().map(|custom| custom.unchanged()));
    if row.lifetime > 0 {
        txn = txn.expiring(expiry::unix_seconds(Timestamp::now()) + row.lifetime);
    }
    let revision = api.txn(txn).await?;
    Ok(Fresh { object, stored: Some((bytes, revision)) })
}

fn failure(error: TxnError<Header>, creating: bool) -> Failure {
    match error {
        TxnError::Conflict { .. } => Failure::Conflict { exists: creating },
        TxnError::Full => {
            Failure::Refused(Refusal::unavailable("the store is full: free some space and try again"))
        }
        TxnError::Unknown => Failure::Refused(Refusal::new(
            504,
            "Timeout",
            "the store did not confirm the write: it may or may not have happened",
        )),
        TxnError::TooLarge { detail } => {
            let message = format!("Request entity too large: {detail}");
            Failure::Refused(Refusal::new(413, "RequestEntityTooLarge", message))
        }
        other => Failure::Refused(Refusal::internal(format!("the store failed: {other}"))),
    }
}

/// Deletes one object, and with it what it reserved.
pub async fn commit_delete(call: &Call, row: &Row, entry: &Stored, old: &Value) -> Result<u64, Failure> {
    let release = if row.own() == "services" { Reservation::release(old) } else { Reservation::default() };
    let txn = release.join(Txn::delete(&*entry.key, entry.mod_revision));
    let revision = call.api.txn(txn).await.map_err(|error| failure(error, false))?;
    Ok(revision)
}

/// Changes an object: `mutate` makes the new version from the old one, again for every conflict.
///
/// The new version has been decoded against the schema; see [`patched`](super::body::patched).
pub async fn change<F>(call: &Call, sub: Option<Sub>, manager: &Manager, mutate: F) -> Result<Outcome>
where
    F: Fn(&Value) -> Result<Value> + Send + Sync,
{
    let row = call.row.stored_as();
    let name = &call.target.name;
    // Definitions before objects, everywhere: whoever holds a definition may wait for an object.
    let _names = call.api.definitions.turn(row).await;
    let _turn = call.api.turns.wait(&call.key()).await;
    for _ in 0..WRITE_ATTEMPTS {
        let entry = call.stored()?;
        let mut old = row.read(&entry);
        // It may have been written before there were the defaults of today.
        row.fill_in(&mut old);
        let mut new = mutate(&old)?;
        let given = text(&new, &["metadata", "resourceVersion"]);
        if !given.is_empty() && given != entry.mod_revision.to_string() {
            return Err(Refusal::modified(&call.row, name));
        }
        finish(call, row, sub, &old, &mut new, manager)?;
        if new == old && *row.encode(&old) == *entry.value.bytes() {
            return Ok(Outcome::Same(entry));
        }
        if call.dry_run() {
            return Ok(Outcome::Written(Fresh::planned(new)));
        }
        let result = if released(row, &old, &new) {
            commit_delete(call, row, &entry, &old).await.map(|revision| {
                set(&mut new, &["metadata", "resourceVersion"], revision.to_string());
                Outcome::Deleted(new)
            })
        } else {
            commit(&call.api, row, &entry.key, entry.mod_revision, Some(&old), new)
                .await
                .map(Outcome::Written)
        };
        match result {
            Ok(outcome) => return Ok(outcome),
            Err(Failure::Conflict { .. }) => {}
            Err(Failure::Refused(refusal)) => return Err(refusal),
        }
    }
    Err(Refusal::modified(&call.row, name))
}

/// Takes a new version through everything between the client's bytes and the transaction.
fn finish(
    call: &Call,
    row: &Row,
    sub: Option<Sub>,
    old: &Value,
    new: &mut Value,
    manager: &Manager,
) -> Result<()> {
    keep_system_metadata(call, old, new)?;
    isolate(row, sub, old, new);
    row.fill_in(new);
    if sub.is_none() {
        admission::update(call, old, new)?;
        (row.prepare)(&mut Change { old: Some(old), new });
    }
    if let Some(sub) = sub {
        admission::part(call, sub, old, new)?;
    }
    let spec_changed = ["metadata", "status", "kind", "apiVersion"];
    // A pod that is bound is as it was wanted; its node sees it first in the generation it was made in.
    let counts = sub.is_none_or(|sub| !matches!(sub, Sub::Status | Sub::Binding));
    if row.generation && counts && differs_outside(old, new, &spec_changed) {
        let generation = int(old, &["metadata", "generation"]).unwrap_or_default() + 1;
        set(new, &["metadata", "generation"], generation);
    }
    match sub {
        None => {
            check(&call.row, row, Some(old), new)?;
            warn(call, row, Some(old), new);
            establish(call, row, new);
        }
        Some(sub) => {
            let mut errors = Errors::default();
            meta::validate(row, &Change { old: Some(old), new }, &mut errors);
            (row.validate_part)(sub, &Change { old: Some(old), new }, &mut errors);
            if let Some(custom) = &row.custom {
                schema::check(row.node(), new, Some(old), &mut errors);
                let only_status = sub == Sub::Status;
                custom.scale.iter().for_each(|scale| scale.check(new, only_status, &mut errors));
            }
            if !errors.is_empty() {
                return Err(Refusal::invalid(row, &call.target.name, errors.into_causes()));
            }
        }
    }
    managed::track(&call.row, Some(old), new, manager, sub, Timestamp::now())
}

/// Whether an object that is being deleted has nothing left that holds it.
pub fn released(row: &Row, old: &Value, new: &Value) -> bool {
    !at(old, &["metadata", "deletionTimestamp"]).is_null()
        && list(new, &["metadata", "finalizers"]).is_empty()
        && int(new, &["metadata", "deletionGracePeriodSeconds"]).unwrap_or_default() == 0
        && (row.own() != "namespaces" || list(new, &["spec", "finalizers"]).is_empty())
}

/// Why an update outside [`change`] failed.
pub fn failure_of_update(error: TxnError<Header>) -> Failure {
    failure(error, false)
}
