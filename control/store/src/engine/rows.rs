//! The embedded engine's history: rows under the revision they led to, behind a CRC-32 of both.
//!
//! A file of a program that kept none has no table of them.

use std::borrow::Cow;
use std::collections::VecDeque;

use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError};

use super::journal::record::Said;
use super::redb::altered;
use super::stamp::crc;
use crate::entry::Revision;
use crate::history;

pub(super) const HISTORY: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("history");
/// Rows are joined up to this size, so that few are written and removed.
const JOINED: usize = 64 << 10;

/// A row, and the revision it led to.
type Row<'a> = (Revision, Cow<'a, [u8]>);

/// The rows of records that follow on each other.
pub(super) fn joined<'a>(records: &[Said<'a>]) -> Vec<Row<'a>> {
    let mut rows: Vec<Row<'a>> = Vec::new();
    for Said { before, revision, history: row, .. } in records.iter().filter(|said| !said.history.is_empty())
    {
        match rows.last_mut() {
            Some((led_to, last)) if led_to == before && last.len() + row.len() <= JOINED => {
                history::join(last.to_mut(), row);
                *led_to = *revision;
            }
            _ => rows.push((*revision, Cow::Borrowed(row))),
        }
    }
    rows
}

/// Which rows the file has.
#[derive(Default)]
pub(super) struct Kept {
    /// Revision and size of each, the oldest first.
    rows: VecDeque<(Revision, usize)>,
    bytes: usize,
}

impl Kept {
    /// How many of the oldest rows go when others come. A quarter more than wanted is borne with, so that it happens
    /// seldom.
    pub(super) fn excess(&self, coming: &[Row<'_>]) -> usize {
        let mut bytes = self.bytes + coming.iter().map(|(_, row)| row.len()).sum::<usize>();
        if bytes < history::KEPT / 4 * 5 {
            return 0;
        }
        let goes = |(_, size): &&(Revision, usize)| {
            let goes = bytes > history::KEPT;
            bytes -= size;
            goes
        };
        self.rows.iter().take_while(goes).count()
    }

    /// Those that have been read.
    pub(super) fn of(rows: &[(Revision, Vec<u8>)]) -> Self {
        let mut kept = Self::default();
        rows.iter().rev().for_each(|(revision, row)| kept.push(*revision, row.len()));
        kept
    }

    /// Removes the oldest rows and adds new ones.
    pub(super) fn write(
        &self,
        table: &mut Table<'_, u64, &'static [u8]>,
        excess: usize,
        coming: &[Row<'_>],
    ) -> Result<(), redb::Error> {
        for (revision, _) in self.rows.range(..excess) {
            table.remove(revision)?;
        }
        for (revision, row) in coming {
            let mut place = table.insert_reserve(revision, SUM + row.len())?;
            encode(*revision, row, place.as_mut());
        }
        Ok(())
    }

    /// Takes note of what [`Self::write`] wrote, once it is on disk.
    pub(super) fn written(&mut self, excess: usize, coming: &[Row<'_>]) {
        self.bytes -= self.rows.drain(..excess).map(|(_, size)| size).sum::<usize>();
        coming.iter().for_each(|(revision, row)| self.push(*revision, row.len()));
    }

    fn push(&mut self, revision: Revision, size: usize) {
        self.rows.push_back((revision, size));
        self.bytes += size;
    }
}

/// The rows, the newest first.
pub(super) fn read(database: &Database) -> Result<Vec<(Revision, Vec<u8>)>, redb::Error> {
    let txn = database.begin_read()?;
    let table = match txn.open_table(HISTORY) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        table => table?,
    };
    let mut rows = Vec::new();
    for item in table.iter()?.rev() {
        let (revision, row) = item?;
        let (revision, row) = (revision.value(), row.value());
        let row = decode(revision, row).ok_or_else(|| altered("the history"))?;
        rows.push((revision, row.to_vec()));
    }
    Ok(rows)
}

/// Bytes of the checksum.
const SUM: usize = 4;

/// Writes checksum and row to where they are kept, which has just the room.
fn encode(revision: Revision, row: &[u8], place: &mut [u8]) {
    place[..SUM].copy_from_slice(&crc(&revision.to_be_bytes(), row).to_be_bytes());
    place[SUM..].copy_from_slice(row);
}

fn decode(revision: Revision, bytes: &[u8]) -> Option<&[u8]> {
    let (sum, row) = bytes.split_first_chunk::<SUM>()?;
    (u32::from_be_bytes(*sum) == crc(&revision.to_be_bytes(), row)).then_some(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_bit_anywhere_is_found() {
        let mut bytes = [0; SUM + 3];
        encode(7, b"row", &mut bytes);
        assert_eq!(decode(7, &bytes), Some(&b"row"[..]));
        assert_eq!(decode(8, &bytes), None, "another revision's row");
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(7, &bad), None, "bit {bit}");
        }
    }
}
