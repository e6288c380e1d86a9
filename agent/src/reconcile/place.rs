//! Where segments, services and backend numbers go.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::desired::BackendKey;
use crate::reconcile::actual::Actual;

/// A map that is too small for what the cluster wants.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum Full {
    /// No gap is long enough.
    #[error("no room for a segment of {0} backends; the backend map holds {max}", max = abi::name::BACKENDS_SIZE)]
    Backends(usize),
    /// All indices are taken.
    #[error("no room for another service port; the service map holds {max}", max = abi::name::SERVICES_SIZE)]
    Services,
    /// All numbers are taken.
    #[error("no room for another backend address; the map of backend states holds {max}", max = abi::name::BACKEND_STATES_SIZE)]
    Numbers,
}

/// Free places of one moment, computed from what is in the kernel.
pub struct Places {
    used: BTreeMap<u32, u32>,
    services: BTreeSet<u32>,
    numbers: BTreeMap<BackendKey, u32>,
    taken: BTreeSet<u32>,
    next_number: u32,
    next_service: u32,
}

impl Places {
    /// `resting` are segments that a program may still be reading.
    pub fn new(actual: &Actual, resting: &BTreeMap<u32, u32>) -> Self {
        let mut used = resting.clone();
        used.extend(actual.segments.iter().map(|(base, backends)| (*base, backends.len() as u32)));
        let numbers: BTreeMap<BackendKey, u32> = actual
            .segments
            .values()
            .flatten()
            .map(|backend| ((backend.addr, backend.port), backend.id))
            .collect();
        let taken = numbers.values().copied().chain(actual.leaving.iter().copied()).collect();
        let services = actual.services.keys().copied().collect();
        Self { used, services, numbers, taken, next_number: 1, next_service: 0 }
    }

    /// The first gap that is long enough.
    pub fn segment(&mut self, length: usize) -> Result<u32, Full> {
        let wanted = length as u32;
        let mut base = 0;
        for (start, length) in &self.used {
            if base + wanted <= *start {
                break;
            }
            base = base.max(start + length);
        }
        if base as usize + length > abi::name::BACKENDS_SIZE {
            return Err(Full::Backends(length));
        }
        self.used.insert(base, wanted);
        Ok(base)
    }

    /// An index that no service has.
    pub fn service(&mut self) -> Result<u32, Full> {
        while self.services.contains(&self.next_service) {
            self.next_service += 1;
        }
        if self.next_service as usize >= abi::name::SERVICES_SIZE {
            return Err(Full::Services);
        }
        self.services.insert(self.next_service);
        Ok(self.next_service)
    }

    /// The number of a backend: its own if it has one. Zero is nobody's.
    pub fn number(&mut self, backend: &BackendKey) -> Result<u32, Full> {
        if let Some(number) = self.numbers.get(backend) {
            return Ok(*number);
        }
        while self.taken.contains(&self.next_number) {
            self.next_number += 1;
        }
        if self.next_number as usize >= abi::name::BACKEND_STATES_SIZE {
            return Err(Full::Numbers);
        }
        self.taken.insert(self.next_number);
        self.numbers.insert(*backend, self.next_number);
        Ok(self.next_number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_fill_gaps_and_leave_resting_ones_alone() {
        let mut places = Places::new(&Actual::default(), &BTreeMap::from([(0, 4), (6, 2)]));
        assert_eq!(places.segment(3), Ok(8));
        assert_eq!(places.segment(2), Ok(4));
        assert_eq!(places.segment(1), Ok(11));
    }

    #[test]
    fn a_full_map_is_said_to_be_full() {
        let mut places = Places::new(&Actual::default(), &BTreeMap::new());
        assert_eq!(
            places.segment(abi::name::BACKENDS_SIZE + 1),
            Err(Full::Backends(abi::name::BACKENDS_SIZE + 1))
        );
    }
}
