//! One record of the journal: what became durable together.
//!
//! ```text
//!  length of the body, CRC-32 of that length, CRC-32 of the body: u32 each
//!  body: the revision before, the revision it led to: u64 each
//!        number of puts: u32, and each: key, value with its stamp
//!        number of deletions: u32, and each: key
//!        the row for the history
//!  END
//! ```
//!
//! Keys, values and the row have their length (u32) in front; numbers are big endian.

use std::ops::Range;

use super::super::stamp::{self, STAMP};
use super::super::{Commit, Record};
use crate::entry::Revision;

/// Bytes in front of the body.
pub const HEAD: usize = 12;
/// The last byte, so that a record of which only the beginning was written does not end like a whole one.
const END: u8 = 0xed;

/// What a record says. Values have their stamp.
#[derive(Debug, PartialEq, Eq)]
pub struct Said<'a> {
    pub before: Revision,
    pub revision: Revision,
    pub puts: Vec<(&'a str, &'a [u8])>,
    pub deletes: Vec<&'a str>,
    pub history: &'a [u8],
}

/// Writes into `out`, which it empties first, the record of a commit that follows on the revision `before`.
pub fn encode(out: &mut Vec<u8>, before: Revision, commit: &Commit<'_>) {
    out.clear();
    out.extend_from_slice(&[0; HEAD]);
    for revision in [before, commit.revision] {
        out.extend_from_slice(&revision.to_be_bytes());
    }
    number(out, commit.puts.len());
    for record in commit.puts {
        text(out, record.key.as_bytes());
        value(out, record);
    }
    number(out, commit.deletes.len());
    for key in commit.deletes {
        text(out, key.as_bytes());
    }
    text(out, commit.history);
    let length = u32::try_from(out.len() - HEAD).expect("a group is smaller than 4 GiB").to_be_bytes();
    let sums = [crc32fast::hash(&length), crc32fast::hash(&out[HEAD..])].map(u32::to_be_bytes);
    out[..4].copy_from_slice(&length);
    out[4..8].copy_from_slice(&sums[0]);
    out[8..HEAD].copy_from_slice(&sums[1]);
    out.push(END);
}

fn number(out: &mut Vec<u8>, number: usize) {
    let number = u32::try_from(number).expect("a group is smaller than 4 GiB");
    out.extend_from_slice(&number.to_be_bytes());
}

fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    number(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn value(out: &mut Vec<u8>, record: &Record) {
    number(out, STAMP + record.value.len());
    stamp::put(out, record);
}

/// What stands at an offset.
pub enum Place {
    /// A whole record, and where it ends.
    Whole(usize),
    /// No whole record, in these bytes if its length can be known.
    Broken(Option<Range<usize>>),
}

/// Looks at what stands at `at`; whether the body makes sense is for [`decode`] to say.
pub fn look(area: &[u8], at: usize) -> Place {
    let Some(head) = area.get(at..at + HEAD) else { return Place::Broken(None) };
    let (length, sums) = head.split_at(4);
    let is_length = crc32fast::hash(length).to_be_bytes() == sums[..4];
    let body = length.try_into().ok().and_then(|length| usize::try_from(u32::from_be_bytes(length)).ok());
    let Some(length) = body.filter(|_| is_length) else { return Place::Broken(None) };
    let end = at + HEAD + length + 1;
    match area.get(at + HEAD..end) {
        Some([body @ .., END]) if crc32fast::hash(body).to_be_bytes() == sums[4..] => Place::Whole(end),
        Some(_) => Place::Broken(Some(at..end)),
        None => Place::Broken(None),
    }
}

/// What a whole record says; `None` if nobody wrote it so.
pub fn decode(record: &[u8]) -> Option<Said<'_>> {
    let mut rest = record.get(HEAD..record.len().checked_sub(1)?)?;
    let (before, revision) = (take_revision(&mut rest)?, take_revision(&mut rest)?);
    let mut puts = Vec::new();
    for _ in 0..take_number(&mut rest)? {
        puts.push((take_key(&mut rest)?, take(&mut rest)?));
    }
    let mut deletes = Vec::new();
    for _ in 0..take_number(&mut rest)? {
        deletes.push(take_key(&mut rest)?);
    }
    let history = take(&mut rest)?;
    rest.is_empty().then_some(Said { before, revision, puts, deletes, history })
}

fn take_revision(rest: &mut &[u8]) -> Option<Revision> {
    let (number, behind) = rest.split_first_chunk::<8>()?;
    *rest = behind;
    Some(u64::from_be_bytes(*number))
}

fn take_number(rest: &mut &[u8]) -> Option<usize> {
    let (number, behind) = rest.split_first_chunk::<4>()?;
    *rest = behind;
    usize::try_from(u32::from_be_bytes(*number)).ok()
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take_number(rest)?;
    let (bytes, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some(bytes)
}

fn take_key<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(take(rest)?).ok()
}
