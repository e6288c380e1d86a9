//! The moment in which all hooks change sides: bridges stand at them and lead to the programs of the agent before this one, until
//! one word is written. From then on this agent's programs take flows over out of the older tables as they meet them.

use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use abi::name;
use abi::older::Older;

use super::raw::RawMap;
use super::{Conversion, KernelError, older, open_pin};

/// What lies in the folder of maps only while there is something to convert.
pub const PASSING: [&str; 4] = [name::BRIDGE, name::BRIDGE_PROGRAMS, name::OLDER_FLOWS, name::OLDER_EMBRYOS];

/// Tables, and where programs find those of the agent before.
const TABLES: [(&str, &str); 2] = [(name::FLOWS, name::OLDER_FLOWS), (name::EMBRYOS, name::OLDER_EMBRYOS)];

/// What stands at the hooks of TC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    /// Bridges.
    Bridges,
    /// The programs themselves.
    Programs,
}

impl Stand {
    /// What stands where `program` belongs.
    pub fn at(self, program: &str) -> Option<&str> {
        match self {
            Self::Programs => Some(program),
            Self::Bridges => name::BRIDGES.iter().find(|(_, to)| *to == program).map(|(bridge, _)| *bridge),
        }
    }
}

/// Whether the bridges of a folder lead to its own programs: then everything was copied, and its maps know better.
pub fn has_crossed(own: &Path) -> Result<bool, KernelError> {
    let pin = own.join(name::BRIDGE);
    if !pin.exists() {
        return Ok(false);
    }
    let side = RawMap::open(&pin)?.lookup(&[0; 4]).map_err(KernelError::io("read where the bridges lead"))?;
    Ok(side != [0; 4])
}

impl Conversion {
    /// Lays the older tables out for this agent's programs, and says how their rows lie. Before the programs are loaded.
    pub fn lay_out(&self) -> Result<Older, KernelError> {
        let Some(places) = self.places else { return Ok(Older::NONE) };
        for (table, holder) in TABLES.iter().filter(|(table, _)| !self.is_shared(table)) {
            let (inner, outer) = (self.old.join(table), self.own.join(holder));
            let shown = || format!("lay out {}", inner.display());
            let table = open_pin(&inner).map_err(KernelError::io(shown()))?;
            if !outer.exists() {
                let holder = RawMap::of_maps(holder, table.as_fd());
                holder.and_then(|holder| holder.pin(&outer)).map_err(KernelError::io(shown()))?;
            }
            let fd = table.as_raw_fd().to_ne_bytes();
            RawMap::open(&outer)?.update(&[0; 4], &fd, 0).map_err(KernelError::io(shown()))?;
        }
        Ok(places)
    }

    /// Gives the bridges the programs of both agents. They lead to the old ones.
    pub fn build(&self) -> Result<(), KernelError> {
        let programs = RawMap::open(&self.own.join(name::BRIDGE_PROGRAMS))?;
        let all =
            [&self.old, &self.own].into_iter().flat_map(|folder| name::BRIDGES.map(|(_, to)| (folder, to)));
        for (index, (folder, program)) in (0_u32..).zip(all) {
            let pin = folder.join(format!("prog_{program}"));
            let shown = || format!("build a bridge to {}", pin.display());
            let fd = open_pin(&pin).map_err(KernelError::io(shown()))?;
            let written = programs.update(&index.to_ne_bytes(), &fd.as_raw_fd().to_ne_bytes(), 0);
            written.map_err(KernelError::io(shown()))?;
        }
        Ok(())
    }

    /// All bridges lead to this agent's programs from here on.
    pub fn cross(&self) -> Result<(), KernelError> {
        let first = name::BRIDGES.len() as u32;
        let bridge = RawMap::open(&self.own.join(name::BRIDGE))?;
        bridge.update(&[0; 4], &first.to_ne_bytes(), 0).map_err(KernelError::io("turn the bridges"))
    }

    /// Takes the older tables from the programs: everything has been copied.
    pub(super) fn clear(&self) -> Result<(), KernelError> {
        for outer in TABLES.map(|(_, outer)| self.own.join(outer)).iter().filter(|outer| outer.exists()) {
            let removed = RawMap::open(outer)?.remove(&[0; 4]);
            // Whoever was interrupted had cleared it.
            match removed {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(KernelError::io(format!("clear {}", outer.display()))(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Where this agent's programs find the parts of the older flows, if they have to and can.
pub(super) fn places(conversion: &Conversion) -> Option<Older> {
    if TABLES.iter().all(|(table, _)| conversion.is_shared(table)) {
        return Some(Older::NONE);
    }
    older::places(&conversion.from, &conversion.to)
}

/// Removes what was pinned for the passage.
pub(super) fn clear_away(own: &Path) -> Result<(), KernelError> {
    let bridges = name::BRIDGES.map(|(bridge, _)| format!("prog_{bridge}"));
    for pin in PASSING.iter().map(|pin| (*pin).to_owned()).chain(bridges) {
        let pin = own.join(pin);
        if pin.exists() {
            std::fs::remove_file(&pin).map_err(KernelError::io(format!("remove {}", pin.display())))?;
        }
    }
    Ok(())
}
