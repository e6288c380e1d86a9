//! Forgetting silent flows from outside the kernel: for kernels whose programs cannot walk a map (before 5.13).
//!
//! An entry is looked at once more before it goes; a packet in the moment between makes its flow begin anew.

use std::path::Path;

use abi::count::gauge;
use abi::flow::{Flow, FlowKey, bits, timeout};
use abi::name;
use aya::maps::{Array, HashMap, MapData, MapError};

use super::KernelError;
use super::linux::gone;
use super::meters::open;

const TCP: u8 = 6;
const SCTP: u8 = 132;

/// Forgets what is over, and counts the rest; answers how many entries of unanswered flows it has removed. `now` is in seconds
/// of the monotonic clock.
pub fn expire(folder: &Path, now: u32) -> Result<u64, KernelError> {
    let (flows, embryos) = (open(folder, name::FLOWS)?, open(folder, name::EMBRYOS)?);
    let mut tables = Tables { flows, embryos, removed: 0 };
    let mut gauges: Array<MapData, u64> = open(folder, name::GAUGES)?;
    let flows = walk(&mut tables, |tables| &tables.flows, now)?;
    let embryos = walk(&mut tables, |tables| &tables.embryos, now)?;
    for (index, value) in [
        (gauge::FLOWS, flows.entries),
        (gauge::EMBRYOS, embryos.entries),
        (gauge::MASQUERADED, flows.masqueraded + embryos.masqueraded),
        (gauge::DIRECT, flows.direct),
        (gauge::BEGUN, flows.begun),
    ] {
        gauges.set(index, value, 0).map_err(|source| KernelError::Map { map: name::GAUGES, source })?;
    }
    Ok(tables.removed)
}

struct Tables {
    flows: HashMap<MapData, FlowKey, Flow>,
    embryos: HashMap<MapData, FlowKey, Flow>,
    /// Entries of the embryos that were removed.
    removed: u64,
}

type Table = HashMap<MapData, FlowKey, Flow>;

impl Tables {
    /// The entry, and whether it is of an answered flow.
    fn find(&self, key: &FlowKey) -> Result<Option<(Flow, bool)>, MapError> {
        for (table, answered) in [(&self.flows, true), (&self.embryos, false)] {
            match table.get(key, 0) {
                Ok(flow) => return Ok(Some((flow, answered))),
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn forget(&mut self, key: &FlowKey) -> Result<(), MapError> {
        gone(self.flows.remove(key))?;
        if self.embryos.get(key, 0).is_ok() {
            self.removed += 1;
        }
        gone(self.embryos.remove(key))
    }
}

/// What stays in a table.
#[derive(Default)]
struct Tally {
    entries: u64,
    masqueraded: u64,
    direct: u64,
    begun: u64,
}

fn walk(tables: &mut Tables, table: fn(&Tables) -> &Table, now: u32) -> Result<Tally, KernelError> {
    let failed = |source| KernelError::Map { map: name::FLOWS, source };
    // A walk that the kernel begins anew, because an entry went, shows some entries twice.
    let keys: Vec<FlowKey> = table(tables).keys().collect::<Result<_, _>>().map_err(failed)?;
    let mut tally = Tally::default();
    for key in keys {
        let Some((flow, _)) = tables.find(&key).map_err(failed)? else { continue };
        let twin = FlowKey { tuple: flow.to.reversed(), ..key };
        if is_over(&key, &flow, tables.find(&twin).map_err(failed)?, now) {
            tables.forget(&key).and_then(|()| tables.forget(&twin)).map_err(failed)?;
            continue;
        }
        let begins_with = |what| u64::from(flow.flags & (bits::FORWARD | what) == bits::FORWARD | what);
        tally.entries += 1;
        tally.masqueraded += begins_with(bits::MASQUERADE);
        tally.direct += begins_with(bits::DSR);
        tally.begun += u64::from(flow.flags & (bits::BOTH | bits::ANSWERED) == bits::BOTH);
    }
    Ok(tally)
}

/// As `ending::is_over` of the programs decides. The twin comes with whether it is of an answered flow.
fn is_over(key: &FlowKey, flow: &Flow, twin: Option<(Flow, bool)>, now: u32) -> bool {
    let both = flow.flags & bits::BOTH != 0;
    let answered =
        if both { flow.flags & bits::ANSWERED != 0 } else { twin.is_some_and(|(_, answered)| answered) };
    let twin = twin.filter(|_| !both);
    let twin = twin.map(|(twin, _)| twin).unwrap_or_default();
    let flags = flow.flags | twin.flags;
    let direct = flags & bits::DSR != 0 && flags & bits::FIN != 0;
    let closed = flags & bits::RST != 0
        || (flags & bits::FIN != 0 && flags & bits::FIN_BACK != 0)
        || flow.flags & twin.flags & bits::FIN != 0
        || direct;
    let patience = if !answered {
        timeout::EMBRYO
    } else if !matches!(key.proto, TCP | SCTP) {
        timeout::DATAGRAM
    } else if closed {
        timeout::TCP_CLOSED
    } else {
        timeout::TCP
    };
    now.saturating_sub(flow.last_seen.max(twin.last_seen)) >= patience
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_depends_on_protocol_answer_and_end() {
        let flow = |flags, last_seen| Flow { flags, last_seen, ..Flow::default() };
        let (start, fin) = (bits::FORWARD, bits::FORWARD | bits::FIN);
        for (proto, own, twin, age, over) in [
            (TCP, start, None, 59, false),
            (TCP, start, None, 60, true),
            (TCP, start, Some((0, false)), 60, true),
            (TCP, start, Some((0, true)), 7_999, false),
            (TCP, start, Some((0, true)), 8_000, true),
            (TCP, fin, Some((0, true)), 100, false),
            (TCP, fin, Some((bits::FIN, true)), 10, true),
            (TCP, start, Some((bits::RST, true)), 10, true),
            (TCP, fin | bits::DSR, Some((0, true)), 10, true),
            (TCP, start | bits::BOTH, None, 60, true),
            (TCP, start | bits::BOTH | bits::ANSWERED, None, 7_999, false),
            (TCP, start | bits::BOTH | bits::ANSWERED, None, 8_000, true),
            (TCP, fin | bits::BOTH | bits::ANSWERED, None, 100, false),
            (TCP, fin | bits::FIN_BACK | bits::BOTH | bits::ANSWERED, None, 10, true),
            (17, start, Some((0, true)), 179, false),
            (17, start, Some((0, true)), 180, true),
        ] {
            let key = FlowKey { proto, ..FlowKey::default() };
            let twin = twin.map(|(flags, answered)| (flow(flags, 1_000), answered));
            let found = is_over(&key, &flow(own, 900), twin, if twin.is_some() { 1_000 } else { 900 } + age);
            assert_eq!(found, over, "{proto} {own} {twin:?} {age}");
        }
    }
}
