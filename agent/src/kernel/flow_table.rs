//! The flows that the programs remember, for questions about all of them.

use std::path::Path;

use abi::flow::{Flow, FlowKey, bits};
use abi::name;
use aya::maps::{HashMap, MapData};

use super::KernelError;
use super::meters::open;

/// Every flow of the maps pinned in `folder`, as it began: its key and what its packets become.
///
/// The maps change while they are read: a flow that comes or goes meanwhile may be missed.
pub fn begun(folder: &Path) -> Result<Vec<(FlowKey, Flow)>, KernelError> {
    let mut flows = Vec::new();
    for map in [name::FLOWS, name::EMBRYOS] {
        let rows: HashMap<MapData, FlowKey, Flow> = open(folder, map)?;
        // A row that vanishes under the reader is one that ended.
        flows.extend(rows.iter().filter_map(Result::ok).filter(|(_, flow)| flow.flags & bits::FORWARD != 0));
    }
    Ok(flows)
}
