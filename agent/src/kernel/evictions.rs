//! How many rows the kernel has taken from tables that forget their oldest rows by themselves. It does not say; but rows that were
//! added, not removed, and are not there have been taken.

use std::path::Path;

use abi::count::{TableCount, gauge, table};
use abi::name;
use aya::maps::{Array, MapData, PerCpuArray};

use super::KernelError;
use super::convert::raw::RawMap;
use super::meters::{failed, open};

/// The tables this is said of: name, counters, and the gauge where it is kept.
pub const TABLES: [(&str, u32, u32); 2] = [
    (name::EMBRYOS, table::EMBRYOS, gauge::EVICTED_EMBRYOS),
    (name::AFFINITY, table::AFFINITY, gauge::EVICTED_AFFINITY),
];

/// What is known of a table at a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rows {
    /// Rows that were ever added.
    pub added: u64,
    /// Rows that were ever removed.
    pub removed: u64,
    /// Rows that are there.
    pub present: u64,
}

impl Rows {
    /// Rows that were taken since the first time: at least so many, because time passes between reading one number and the next.
    fn taken_since(self, first: Self) -> u64 {
        let (added, removed) = (self.added - first.added, self.removed - first.removed);
        (first.present + added).saturating_sub(removed + self.present)
    }

    /// How many rows there could be if none were taken.
    fn most(self, last: Self) -> u64 {
        last.present + (self.added - last.added)
    }
}

/// What is known of all tables.
#[derive(Debug, Default)]
pub struct Evictions {
    watched: [Option<Watched>; TABLES.len()],
    /// Entries of unanswered flows that walks of the agent's own have removed.
    walked: u64,
}

/// A table from the time on when it was last far from full.
#[derive(Debug, Clone, Copy)]
struct Watched {
    first: Rows,
    last: Rows,
    counted: u64,
}

impl Watched {
    /// Takes a look; answers with how many rows were taken since the last.
    fn look(&mut self, rows: Rows, capacity: u64) -> u64 {
        let room = rows.most(self.last) < capacity / 2;
        self.last = rows;
        if room {
            (self.first, self.counted) = (rows, 0);
            return 0;
        }
        let taken = rows.taken_since(self.first);
        let more = taken.saturating_sub(self.counted);
        self.counted += more;
        more
    }
}

impl Evictions {
    /// Reads what the programs have added before a walk over the tables.
    pub fn before(folder: &Path) -> Result<[u64; TABLES.len()], KernelError> {
        let counts = counts(folder)?;
        Ok(counts.map(|count| count.added))
    }

    /// Notes what a walk has found. `added` is what had been added before, `embryos` how many a walk of the agent's own has removed.
    pub fn after(
        &mut self,
        folder: &Path,
        added: [u64; TABLES.len()],
        embryos: u64,
        scale: u32,
    ) -> Result<(), KernelError> {
        self.walked += embryos;
        let removed = counts(folder)?.map(|count| count.removed);
        let mut gauges: Array<MapData, u64> = open(folder, name::GAUGES)?;
        for (at, (map, _, kept)) in TABLES.into_iter().enumerate() {
            let last = self.watched[at].map(|watched| watched.last).unwrap_or_default();
            let removed = removed[at] + if map == name::EMBRYOS { self.walked } else { 0 };
            let capacity =
                name::MAPS.iter().find(|own| own.name == map).map_or(0, |own| own.capacity(scale) as u64);
            let mut rows = Rows { added: added[at], removed, present: 0 };
            rows.present = match map {
                name::EMBRYOS => gauges.get(&gauge::EMBRYOS, 0).map_err(failed(name::GAUGES))?,
                _ if self.watched[at].is_some() && rows.most(last) < capacity / 2 => rows.most(last),
                _ => present(&folder.join(map))?,
            };
            let watched = self.watched[at].get_or_insert(Watched { first: rows, last: rows, counted: 0 });
            let more = watched.look(rows, capacity);
            if more > 0 {
                let total = gauges.get(&kept, 0).map_err(failed(name::GAUGES))? + more;
                gauges.set(kept, total, 0).map_err(failed(name::GAUGES))?;
            }
        }
        Ok(())
    }
}

fn present(pin: &Path) -> Result<u64, KernelError> {
    let mut present = 0;
    let counted = RawMap::open(pin)?.rows(|_, _| present += 1);
    counted.map_err(KernelError::io(format!("count the rows of {}", pin.display())))?;
    Ok(present)
}

fn counts(folder: &Path) -> Result<[TableCount; TABLES.len()], KernelError> {
    let cells: PerCpuArray<MapData, TableCount> = open(folder, name::TABLE_COUNTS)?;
    let mut all = [TableCount::default(); TABLES.len()];
    for (sum, (_, index, _)) in all.iter_mut().zip(TABLES) {
        for cell in cells.get(&index, 0).map_err(failed(name::TABLE_COUNTS))?.iter() {
            sum.added += cell.added;
            sum.removed += cell.removed;
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(added: u64, removed: u64, present: u64) -> Rows {
        Rows { added, removed, present }
    }

    #[test]
    fn what_was_added_and_not_removed_and_is_not_there_was_taken_once() {
        let first = rows(500, 100, 20);
        let mut watched = Watched { first, last: first, counted: 0 };
        let mut look = |rows| watched.look(rows, 100);
        assert_eq!(look(rows(510, 105, 25)), 0, "balanced");
        assert_eq!(
            look(rows(520, 105, 10)),
            0,
            "far from full nothing is taken: somebody else has removed them"
        );
        assert_eq!(look(rows(720, 115, 90)), 110, "200 came, 10 went, 90 of 200 are there");
        assert_eq!(look(rows(720, 115, 90)), 0, "counted once");
        assert_eq!(look(rows(720, 115, 95)), 0, "the numbers are not of one moment");
        assert_eq!(
            look(rows(730, 115, 95)),
            5,
            "of ten that came since, five found room as it was first seen"
        );
        assert_eq!(look(rows(730, 200, 10)), 0, "removed");
    }
}
