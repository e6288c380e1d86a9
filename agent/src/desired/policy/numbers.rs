//! Numbers for values: the same value has the same number after a restart, so that nothing is written anew.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Who has which number; the greatest is never given.
#[derive(Debug)]
pub struct Numbers<T> {
    first: u32,
    of: HashMap<Arc<T>, u32>,
    taken: HashMap<u32, Arc<T>>,
}

impl<T: Hash + Eq> Numbers<T> {
    /// None yet; they will not be less than `first`.
    pub fn from(first: u32) -> Self {
        Self { first, of: HashMap::new(), taken: HashMap::new() }
    }

    /// The number of a value: what it hashes to, or the next that is free.
    pub fn of(&mut self, value: &Arc<T>) -> u32 {
        if let Some(known) = self.of.get(value) {
            return *known;
        }
        let mut hasher = Fnv::default();
        value.hash(&mut hasher);
        let hash = hasher.finish();
        let mut number = ((hash >> 32) ^ hash) as u32;
        while number < self.first || number == u32::MAX || self.taken.contains_key(&number) {
            number = number.wrapping_add(1).max(self.first);
        }
        self.of.insert(Arc::clone(value), number);
        self.taken.insert(number, Arc::clone(value));
        number
    }

    /// Whose number that is.
    pub fn who(&self, number: u32) -> Option<&Arc<T>> {
        self.taken.get(&number)
    }

    /// Takes back the numbers of everybody else.
    pub fn retain(&mut self, keep: impl Fn(u32) -> bool) {
        self.of.retain(|_, number| keep(*number));
        self.taken.retain(|number, _| keep(*number));
    }
}

/// FNV-1a, 64 bits: the same in every process, which the standard library's hasher is not.
#[derive(Debug)]
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everybody hashes to the same.
    #[derive(Debug, PartialEq, Eq)]
    struct Same(u8);

    impl Hash for Same {
        fn hash<H: Hasher>(&self, state: &mut H) {
            state.write_u8(0);
        }
    }

    #[test]
    fn two_values_never_share_a_number() {
        let mut numbers = Numbers::from(16);
        let given: Vec<u32> = (0..3).map(|value| numbers.of(&Arc::new(Same(value)))).collect();
        assert!(given[0] != given[1] && given[1] != given[2] && given[0] != given[2], "{given:?}");
        assert_eq!(numbers.of(&Arc::new(Same(1))), given[1]);
        numbers.retain(|number| number != given[1]);
        assert!(numbers.who(given[1]).is_none());
        assert_eq!(numbers.of(&Arc::new(Same(3))), given[1]);
    }

    #[test]
    fn a_number_does_not_depend_on_who_came_before() {
        let (mut one, mut two) = (Numbers::from(1), Numbers::from(1));
        two.of(&Arc::new("b"));
        assert_eq!(one.of(&Arc::new("a")), two.of(&Arc::new("a")));
    }
}
