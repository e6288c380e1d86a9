//! The engine's twin in memory, with fault injection: nothing survives the process, everything else is the same.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Commit, Engine, EngineError, Record};
use crate::entry::Revision;

/// Rows of history that are kept.
const HISTORY_ROWS: usize = 1024;

/// Shares its content between clones, so that a test can "restart" a store over the same memory.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    revision: Revision,
    records: BTreeMap<String, Record>,
    /// The newest last.
    history: VecDeque<(Revision, Vec<u8>)>,
    /// Commits that still succeed before one fails; `None` never fails.
    fail_after: Option<usize>,
}

impl Memory {
    /// Lets `commits` more commits succeed, fails the one after, and then works again.
    pub fn fail_after(&self, commits: usize) {
        self.state.lock().fail_after = Some(commits);
    }
}

impl Engine for Memory {
    fn load(&mut self, each: &mut dyn FnMut(Record)) -> Result<Revision, EngineError> {
        let state = self.state.lock();
        state.records.values().cloned().for_each(each);
        Ok(state.revision)
    }

    fn history(&mut self) -> Result<Vec<(Revision, Vec<u8>)>, EngineError> {
        Ok(self.state.lock().history.iter().rev().cloned().collect())
    }

    fn commit(&mut self, commit: &Commit<'_>) -> Result<(), EngineError> {
        let mut state = self.state.lock();
        match state.fail_after {
            Some(0) => {
                state.fail_after = None;
                return Err(EngineError::Injected);
            }
            Some(left) => state.fail_after = Some(left - 1),
            None => {}
        }
        for key in commit.deletes {
            state.records.remove(key);
        }
        for record in commit.puts {
            state.records.insert(record.key.clone(), record.clone());
        }
        state.revision = commit.revision;
        state.history.push_back((commit.revision, commit.history.to_vec()));
        if state.history.len() > HISTORY_ROWS {
            state.history.pop_front();
        }
        Ok(())
    }
}
