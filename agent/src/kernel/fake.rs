//! A kernel in memory: keeps rows, counts operations, fails when told to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use abi::service::Backend;
use parking_lot::Mutex;

use super::{Counters, Feature, Kernel, KernelError};
use crate::reconcile::actual::{Actual, Op};

/// What the fake holds, shared with the test.
#[derive(Debug, Default)]
pub struct State {
    /// What a read returns.
    pub actual: Actual,
    /// Every operation carried out.
    pub log: Vec<Op>,
    /// Fail the operations with these ordinal numbers, counted from zero over the life of the fake.
    pub fail_at: BTreeSet<usize>,
    /// Operations asked for so far.
    pub asked: usize,
    /// By how much its maps are larger; zero is one.
    pub scale: u32,
    /// How many frontends, and how many source ranges of all services, find room; more are refused as a full map does.
    pub room: Option<(usize, usize)>,
    /// How many rows of rule sets find room.
    pub room_for_rules: Option<usize>,
    /// Whether cells that nobody refers to stay, as they do in arrays; else they vanish, so that tests see who forgets some.
    pub keeps_cells: bool,
}

impl State {
    fn has_room(&self, op: &Op) -> bool {
        if let (Some(room), Op::WriteRuling { pair, row, .. }) = (self.room_for_rules, op) {
            let rulings = &self.actual.rulings;
            let is_known = rulings.get(pair).is_some_and(|rows| rows.contains_key(row));
            return is_known || rulings.values().map(BTreeMap::len).sum::<usize>() < room;
        }
        let Some((frontends, ranges)) = self.room else { return true };
        match op {
            Op::WriteFrontend { key, .. } => {
                self.actual.frontends.len() < frontends || self.actual.frontends.contains_key(key)
            }
            Op::WriteSourceRange { .. } => {
                self.actual.source_ranges.values().map(BTreeSet::len).sum::<usize>() < ranges
            }
            _ => true,
        }
    }

    fn cells_of(&self, index: u32) -> Vec<(u32, Vec<Backend>)> {
        let spans = self.actual.services.get(&index).map(|row| self.actual.spans(row)).unwrap_or_default();
        let run = |base| Some((base, self.actual.segments.get(&base)?.clone()));
        spans.into_iter().filter_map(|span| run(span.base)).collect()
    }
}

/// The fake. Clones share their state, so a "restarted" agent finds what the former one left.
#[derive(Debug, Clone, Default)]
pub struct FakeKernel {
    /// Shared with the test.
    pub state: Arc<Mutex<State>>,
}

impl FakeKernel {
    /// With larger maps.
    pub fn of_scale(scale: u32) -> Self {
        let kernel = Self::default();
        kernel.state.lock().scale = scale;
        kernel
    }
}

impl Kernel for FakeKernel {
    fn read(&mut self) -> Result<Actual, KernelError> {
        Ok(self.state.lock().actual.clone())
    }

    fn look(&mut self, actual: &mut Actual) -> Result<(), KernelError> {
        let held = &self.state.lock().actual;
        actual.overlay.clone_from(&held.overlay);
        actual.tunnels.clone_from(&held.tunnels);
        actual.rules.clone_from(&held.rules);
        actual.routes.clone_from(&held.routes);
        Ok(())
    }

    fn apply(&mut self, op: &Op) -> Result<(), KernelError> {
        let mut state = self.state.lock();
        let ordinal = state.asked;
        state.asked += 1;
        if state.fail_at.contains(&ordinal) {
            return Err(KernelError::Injected(format!("operation {ordinal}")));
        }
        if !state.has_room(op) {
            let source = std::io::Error::from_raw_os_error(libc::E2BIG);
            return Err(KernelError::Io { action: "write a row".to_owned(), source });
        }
        let kept = match op {
            Op::WriteService { index, .. } if state.keeps_cells => state.cells_of(*index),
            _ => Vec::new(),
        };
        let slots = if kept.is_empty() { None } else { Some(state.actual.slots.clone()) };
        state.actual.follow(op);
        for (base, run) in slots.into_iter().flatten() {
            state.actual.slots.entry(base).or_insert(run);
        }
        for (base, run) in kept {
            state.actual.segments.entry(base).or_insert(run);
        }
        state.log.push(op.clone());
        Ok(())
    }

    fn counters(&mut self) -> Result<Counters, KernelError> {
        Ok(Counters::default())
    }

    fn expire_flows(&mut self) -> Result<(), KernelError> {
        Ok(())
    }

    fn scale(&self) -> u32 {
        self.state.lock().scale.max(1)
    }

    fn pins(&self) -> Option<std::path::PathBuf> {
        None
    }

    fn features(&self) -> Vec<Feature> {
        Vec::new()
    }
}
