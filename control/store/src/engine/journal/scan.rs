//! Reads a journal after whatever happened to it.
//!
//! A record is written only after the one before it is on disk. So only the last one can be torn, and a torn one was
//! never acknowledged: it is left out. Anything else that is not a whole record is damage. The rest of a journal is
//! zeros, which tells the two apart: of a torn record some piece has not reached the disk, and zeros are there instead.

use std::ops::Range;

use super::record::{self, HEAD, Place};
use crate::entry::Revision;

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// The whole records, and where the next one is written.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub records: Vec<Range<usize>>,
    pub end: usize,
}

/// The records of a journal; `area` begins at a sector. `None` if it is damaged.
///
/// Records up to `known` are on disk elsewhere. A journal that was being emptied may hold some of them, in pieces.
pub fn scan(area: &[u8], known: Revision) -> Option<Found> {
    let mut found = Found::default();
    while found.end < area.len() {
        match record::look(area, found.end) {
            Place::Whole(end) => {
                found.records.push(found.end..end);
                found.end = end;
            }
            Place::Broken(extent) => {
                let last = area.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                // Without a length it is all that follows, and at least a head.
                let unknown = found.end..last.max(found.end + HEAD).min(area.len());
                let is_end = last <= found.end
                    || is_torn(area, extent.unwrap_or(unknown)) && !goes_on(&area[..last], found.end, known);
                return is_end.then_some(found);
            }
        }
    }
    Some(found)
}

/// Whether some part of a record has not been written.
fn is_torn(area: &[u8], record: Range<usize>) -> bool {
    let mut at = record.start;
    while at < record.end {
        let next = ((at / SECTOR + 1) * SECTOR).min(record.end);
        if area[at..next].iter().all(|byte| *byte == 0) {
            return true;
        }
        at = next;
    }
    area[record.end - 1] == 0
}

/// Whether a whole record that is nowhere else stands behind `at`.
fn goes_on(area: &[u8], at: usize, known: Revision) -> bool {
    (at + 1..area.len()).any(|at| match record::look(area, at) {
        Place::Whole(end) => record::decode(&area[at..end]).is_some_and(|said| said.revision > known),
        Place::Broken(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::super::{Commit, Record};
    use super::*;

    /// Records after revision 10, of several sectors and of less than one.
    fn records() -> Vec<Vec<u8>> {
        [1300, 20, 700]
            .into_iter()
            .zip(10..)
            .map(|(size, before)| {
                let value = Bytes::from(vec![b'v'; size]);
                let put = Record {
                    key: "/r/a".into(),
                    value,
                    create_revision: 1,
                    mod_revision: before + 1,
                    expires: 0,
                };
                let commit = Commit {
                    revision: before + 1,
                    puts: &[put],
                    deletes: &["/r/b".to_owned()],
                    history: b"row",
                };
                let mut out = Vec::new();
                record::encode(&mut out, before, &commit);
                out
            })
            .collect()
    }

    fn area(records: &[Vec<u8>]) -> Vec<u8> {
        let mut area = records.concat();
        area.resize(8 * SECTOR, 0);
        area
    }

    fn ends(found: &Found) -> Vec<usize> {
        found.records.iter().map(|record| record.end).collect()
    }

    #[test]
    fn a_whole_journal_is_read_to_its_end() {
        let records = records();
        let area = area(&records);
        let found = scan(&area, 0).unwrap();
        assert_eq!(found.end, records.concat().len());
        let said = record::decode(&area[found.records[1].clone()]).unwrap();
        assert_eq!((said.before, said.revision, said.history), (11, 12, &b"row"[..]));
        assert_eq!((said.puts[0].0, &said.deletes[..]), ("/r/a", &["/r/b"][..]));
        assert_eq!(scan(&[0; SECTOR], 0).unwrap(), Found::default());
    }

    #[test]
    fn a_journal_that_ends_at_any_byte_has_the_records_before() {
        let records = records();
        let whole = area(&records);
        let all = ends(&scan(&whole, 0).unwrap());
        for cut in 0..records.concat().len() {
            let mut area = whole.clone();
            area[cut..].fill(0);
            let found = scan(&area, 0).unwrap_or_else(|| panic!("cut at {cut}"));
            let want: Vec<_> = all.iter().copied().filter(|end| *end <= cut).collect();
            assert_eq!(ends(&found), want, "cut at {cut}");
        }
    }

    #[test]
    fn a_last_record_of_which_any_sectors_are_missing_is_left_out() {
        let records = records();
        let whole = area(&records);
        let all = ends(&scan(&whole, 0).unwrap());
        let last = all[1]..all[2];
        let sectors = last.start / SECTOR..last.end.div_ceil(SECTOR);
        for missing in 1..1_u32 << sectors.len() {
            let mut area = whole.clone();
            for sector in sectors.clone().filter(|sector| missing >> (sector - sectors.start) & 1 == 1) {
                let piece = (sector * SECTOR).max(last.start)..((sector + 1) * SECTOR).min(last.end);
                area[piece].fill(0);
            }
            let found = scan(&area, 0).unwrap_or_else(|| panic!("sectors {missing:b}"));
            assert_eq!(ends(&found), all[..2], "sectors {missing:b}");
        }
    }

    #[test]
    fn a_changed_bit_anywhere_is_damage() {
        let records = records();
        let whole = area(&records);
        for bit in 0..records.concat().len() * 8 {
            let mut area = whole.clone();
            area[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(scan(&area, 0), None, "bit {bit}");
        }
    }

    #[test]
    fn what_is_missing_before_a_whole_record_is_damage() {
        let records = records();
        let whole = area(&records);
        let all = ends(&scan(&whole, 0).unwrap());
        for gone in [0..all[0], all[0]..all[1], 0..all[1], SECTOR..2 * SECTOR] {
            let mut area = whole.clone();
            area[gone.clone()].fill(0);
            assert_eq!(scan(&area, 12), None, "{gone:?}");
        }
    }

    #[test]
    fn a_journal_that_was_being_emptied_is_none_that_is_damaged() {
        let whole = area(&records());
        for sectors in 0..1_u32 << 5 {
            let mut area = whole.clone();
            for sector in (0..5).filter(|sector| sectors >> sector & 1 == 1) {
                area[sector * SECTOR..(sector + 1) * SECTOR].fill(0);
            }
            assert!(scan(&area, 13).is_some(), "sectors {sectors:b}");
        }
    }
}
