//! A kernel in memory: keeps rows, counts operations, fails when told to.

use std::collections::BTreeSet;
use std::sync::Arc;

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

    fn apply(&mut self, op: &Op) -> Result<(), KernelError> {
        let mut state = self.state.lock();
        let ordinal = state.asked;
        state.asked += 1;
        if state.fail_at.contains(&ordinal) {
            return Err(KernelError::Injected(format!("operation {ordinal}")));
        }
        state.actual.follow(op);
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
