//! History that outlives the process: what each commit replaced, so that watches go on after a restart.
//!
//! A row is one group of transactions: the revision before it (8 bytes), and for every event its revision (8), its key
//! and, behind a byte that says whether there was one, the version that was replaced: `create_revision`, `mod_revision`
//! and `expires` (8 each) and the value. Keys and values have their length (4) in front; numbers are big endian.
//!
//! Only what was replaced is kept, because what replaced it is the next older version of a later event, or is there.

use std::sync::Arc;

use bytes::Bytes;

use crate::entry::{Entry, Event, Intake, Revision};
use crate::shared::Entries;

/// Bytes of rows an engine keeps; the oldest go first.
pub(crate) const KEPT: usize = 16 << 20;

/// The row of a group of transactions that began at a revision; empty if it alone is more than is kept, which ends the
/// history there.
pub(crate) fn encode<H>(began_at: Revision, events: &[Arc<Event<H>>]) -> Vec<u8> {
    let size = NUMBER + events.iter().map(|event| size(event)).sum::<usize>();
    if size > KEPT {
        return Vec::new();
    }
    let mut row = Vec::with_capacity(size);
    row.extend_from_slice(&began_at.to_be_bytes());
    for event in events {
        row.extend_from_slice(&event.revision.to_be_bytes());
        put(&mut row, event.key.as_bytes());
        row.push(u8::from(event.previous.is_some()));
        if let Some(previous) = &event.previous {
            for number in [previous.create_revision, previous.mod_revision, previous.expires] {
                row.extend_from_slice(&number.to_be_bytes());
            }
            put(&mut row, &previous.value.bytes());
        }
    }
    row
}

/// Makes one row of two that follow on each other.
pub(crate) fn join(row: &mut Vec<u8>, next: &[u8]) {
    row.extend_from_slice(next.get(NUMBER..).unwrap_or_default());
}

/// Bytes of a number, and of a length.
const NUMBER: usize = 8;
const LENGTH: usize = 4;

/// Bytes of an event in a row.
fn size<H>(event: &Event<H>) -> usize {
    let previous = event.previous.as_ref().map_or(0, |previous| 3 * NUMBER + LENGTH + previous.value.len());
    NUMBER + LENGTH + event.key.len() + 1 + previous
}

fn put(row: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("an entry is smaller than 4 GiB");
    row.extend_from_slice(&length.to_be_bytes());
    row.extend_from_slice(bytes);
}

/// The events that led to `entries` at `revision`, and the revision before the first of them.
///
/// `rows` are those of an engine, each with the revision it led to, the newest first. A row that does not lead to the one
/// after it ends the history: a program that keeps none has written in between.
pub(crate) fn replay<H>(
    rows: &[(Revision, Vec<u8>)],
    entries: &Entries<H>,
    revision: Revision,
    intake: Intake<H>,
) -> (Revision, Vec<Arc<Event<H>>>) {
    let (mut began_at, mut entries, mut events) = (revision, entries.clone(), Vec::new());
    for (led_to, row) in rows {
        if *led_to != began_at {
            break;
        }
        let Some((before, replaced)) = decode(row, intake) else { break };
        for Replaced { revision, key, previous } in replaced.into_iter().rev() {
            let entry = match &previous {
                Some(previous) => entries.insert(Arc::clone(&key), Arc::clone(previous)),
                None => entries.remove(&key),
            };
            events.push(Arc::new(Event { revision, key, entry, previous }));
        }
        began_at = before;
    }
    events.reverse();
    (began_at, events)
}

/// An event without what it led to.
struct Replaced<H> {
    revision: Revision,
    key: Arc<str>,
    previous: Option<Arc<Entry<H>>>,
}

/// `None` for a row that [`encode`] did not write.
fn decode<H>(row: &[u8], intake: Intake<H>) -> Option<(Revision, Vec<Replaced<H>>)> {
    let mut row = row;
    let before = number(&mut row)?;
    let mut events = Vec::new();
    while !row.is_empty() {
        let revision = number(&mut row)?;
        let key: Arc<str> = std::str::from_utf8(slice(&mut row)?).ok()?.into();
        let (had_one, rest) = row.split_first()?;
        row = rest;
        let previous = if *had_one == 1 {
            let (create_revision, mod_revision) = (number(&mut row)?, number(&mut row)?);
            let (expires, value) = (number(&mut row)?, Bytes::copy_from_slice(slice(&mut row)?));
            let ((header, value), key) = (intake.read(&key, value), Arc::clone(&key));
            Some(Arc::new(Entry { key, value, mod_revision, create_revision, expires, header }))
        } else {
            None
        };
        events.push(Replaced { revision, key, previous });
    }
    Some((before, events))
}

fn number(row: &mut &[u8]) -> Option<u64> {
    let (number, rest) = row.split_first_chunk::<NUMBER>()?;
    *row = rest;
    Some(u64::from_be_bytes(*number))
}

fn slice<'a>(row: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = row.split_first_chunk::<LENGTH>()?;
    let (slice, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    *row = rest;
    Some(slice)
}
