//! Counters and gauges of the programs, read from the pinned maps by whoever wants them: nobody waits for the reconciler.

use std::path::Path;

use abi::count::{Count, PATHS, gauge};
use abi::drops::DROPS;
use abi::name;
use aya::maps::{Array, Map, MapData, MapError, PerCpuArray};

use super::{KernelError, Tally, evictions};

/// What the programs have counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meters {
    /// Packets by [`abi::count::Path`].
    pub paths: Vec<(&'static str, Tally)>,
    /// Packets by [`abi::drops::Drop`].
    pub drops: Vec<(&'static str, Tally)>,
    /// Entries of answered flows: two for each.
    pub flows: u64,
    /// Entries of flows that were not answered.
    pub embryos: u64,
    /// Flows that hold a source port of the node.
    pub masqueraded: u64,
    /// Rows that tables have given up to make room, by map.
    pub evicted: Vec<(&'static str, u64)>,
}

/// Reads the meters of the maps pinned in `folder`.
pub fn read(folder: &Path) -> Result<Meters, KernelError> {
    let drops: PerCpuArray<_, Count> = open(folder, name::DROPS)?;
    let paths: PerCpuArray<_, Count> = open(folder, name::PATHS)?;
    let gauges: Array<_, u64> = open(folder, name::GAUGES)?;
    let gauge = |index: u32| gauges.get(&index, 0).map_err(failed(name::GAUGES));
    Ok(Meters {
        paths: tallies(&paths, PATHS, name::PATHS)?,
        drops: tallies(&drops, DROPS, name::DROPS)?,
        flows: gauge(gauge::FLOWS)?,
        embryos: gauge(gauge::EMBRYOS)?,
        masqueraded: gauge(gauge::MASQUERADED)?,
        evicted: evictions::TABLES
            .iter()
            .map(|(map, _, kept)| gauge(*kept).map(|rows| (*map, rows)))
            .collect::<Result<_, _>>()?,
    })
}

/// Opens a pinned map as its type.
pub fn open<M: TryFrom<Map, Error = MapError>>(folder: &Path, map: &'static str) -> Result<M, KernelError> {
    MapData::from_pin(folder.join(map))
        .and_then(Map::from_map_data)
        .and_then(M::try_from)
        .map_err(failed(map))
}

fn tallies(
    cells: &PerCpuArray<MapData, Count>,
    names: &[(u32, &'static str, &str)],
    map: &'static str,
) -> Result<Vec<(&'static str, Tally)>, KernelError> {
    names
        .iter()
        .map(|(index, name, _)| {
            let values = cells.get(index, 0).map_err(failed(map))?;
            let sum = values.iter().fold(Tally::default(), |sum, cell| Tally {
                packets: sum.packets + cell.packets,
                bytes: sum.bytes + cell.bytes,
            });
            Ok((*name, sum))
        })
        .collect()
}

pub(super) fn failed(map: &'static str) -> impl FnOnce(MapError) -> KernelError {
    move |source| KernelError::Map { map, source }
}
