//! The filter of virtual addresses: which bits the frontends need.

use std::collections::HashMap;

use abi::Addr16;
use abi::service::{FrontendKey, filter_place};

/// How many frontends each bit stands for.
#[derive(Debug, Default)]
pub struct Filter {
    counts: HashMap<(u32, u64), u32>,
}

impl Filter {
    /// Counts the frontends that are there.
    pub fn of<'a>(frontends: impl Iterator<Item = &'a FrontendKey>) -> Self {
        let mut filter = Self::default();
        frontends.for_each(|key| filter.add(&key.addr));
        filter
    }

    /// One frontend more.
    pub fn add(&mut self, addr: &Addr16) {
        *self.counts.entry(filter_place(addr)).or_default() += 1;
    }

    /// One frontend less; answers whether its bit stands for none any more.
    pub fn remove(&mut self, addr: &Addr16) -> bool {
        let place = filter_place(addr);
        let Some(count) = self.counts.get_mut(&place) else { return false };
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&place);
            return true;
        }
        false
    }

    /// All words that are not zero.
    pub fn words(&self) -> HashMap<u32, u64> {
        let mut words = HashMap::<u32, u64>::new();
        for (word, bit) in self.counts.keys() {
            *words.entry(*word).or_default() |= bit;
        }
        words
    }
}
