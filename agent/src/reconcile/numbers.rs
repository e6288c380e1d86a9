//! Stable numbers of backends: one for each address, port and protocol that any service uses.

use std::collections::{HashMap, VecDeque};

use abi::service::BackendKey;

use super::place::Full;

#[derive(Debug, Clone, Copy)]
struct Number {
    id: u32,
    users: u32,
}

/// All numbers. Zero is nobody's.
#[derive(Debug)]
pub struct Numbers {
    max: u32,
    free: VecDeque<u32>,
    by_key: HashMap<BackendKey, Number>,
    /// Who has each number below `next`.
    keys: Vec<Option<BackendKey>>,
}

impl Numbers {
    /// None is given out.
    pub fn new(max: u32) -> Self {
        Self { max, free: VecDeque::new(), by_key: HashMap::new(), keys: vec![None] }
    }

    /// Takes over a number that is in use; `false` if that cannot be. After the last one, [`Self::adopted`] is due.
    pub fn adopt(&mut self, key: BackendKey, id: u32) -> bool {
        if let Some(known) = self.by_key.get(&key) {
            return known.id == id;
        }
        if id == 0 || id >= self.max || self.key(id).is_some() {
            return false;
        }
        self.keys.resize(self.keys.len().max(id as usize + 1), None);
        self.put(key, id);
        true
    }

    /// All numbers in use are taken over. Those between them may belong to flows whose backend is in no segment any more:
    /// they are given out last.
    pub fn adopted(&mut self) {
        self.free = (1..).zip(&self.keys[1..]).filter(|(_, key)| key.is_none()).map(|(id, _)| id).collect();
    }

    /// The number of a backend, if it has one.
    pub fn find(&self, key: &BackendKey) -> Option<u32> {
        self.by_key.get(key).map(|number| number.id)
    }

    /// The number of a backend: its own if it has one. Fresh ones come first, then those that were given back longest ago.
    pub fn of(&mut self, key: BackendKey) -> Result<u32, Full> {
        if let Some(known) = self.find(&key) {
            return Ok(known);
        }
        let next = u32::try_from(self.keys.len()).map_err(|_too_many| Full::Numbers(self.max))?;
        let id = if next < self.max {
            self.keys.push(None);
            next
        } else {
            self.free.pop_front().ok_or(Full::Numbers(self.max))?
        };
        self.put(key, id);
        Ok(id)
    }

    fn put(&mut self, key: BackendKey, id: u32) {
        self.by_key.insert(key, Number { id, users: 0 });
        self.keys[id as usize] = Some(key);
    }

    /// Who has a number.
    pub fn key(&self, id: u32) -> Option<BackendKey> {
        self.keys.get(id as usize).copied().flatten()
    }

    /// One more service uses the backend.
    pub fn hold(&mut self, id: u32) {
        if let Some(number) = self.number(id) {
            number.users += 1;
        }
    }

    /// One service less uses the backend; answers whether none does.
    pub fn release(&mut self, id: u32) -> bool {
        let Some(number) = self.number(id) else { return false };
        number.users = number.users.saturating_sub(1);
        number.users == 0
    }

    /// Whether no service uses the backend.
    pub fn is_idle(&self, id: u32) -> bool {
        self.key(id).and_then(|key| self.by_key.get(&key)).is_some_and(|number| number.users == 0)
    }

    /// Gives the number back.
    pub fn forget(&mut self, id: u32) {
        if let Some(key) = self.keys.get_mut(id as usize).and_then(Option::take) {
            self.by_key.remove(&key);
            self.free.push_back(id);
        }
    }

    fn number(&mut self, id: u32) -> Option<&mut Number> {
        self.by_key.get_mut(&self.key(id)?)
    }
}

#[cfg(test)]
mod tests {
    use abi::{Addr16, Be16};

    use super::*;

    fn key(last: u8) -> BackendKey {
        BackendKey { addr: Addr16::mapped([10, 0, 0, last]), port: Be16::new(80), proto: 6, zero: 0 }
    }

    #[test]
    fn a_number_is_given_out_again_when_no_fresh_one_is_left() {
        let mut numbers = Numbers::new(4);
        assert_eq!([1, 2, 3].map(|last| numbers.of(key(last)).unwrap()), [1, 2, 3]);
        assert_eq!(numbers.of(key(2)), Ok(2));
        assert_eq!(numbers.of(key(4)), Err(Full::Numbers(4)));
        numbers.forget(2);
        assert_eq!(numbers.of(key(4)), Ok(2));
    }

    #[test]
    fn what_is_in_use_is_adopted_once() {
        let mut numbers = Numbers::new(10);
        assert!(numbers.adopt(key(1), 7) && numbers.adopt(key(1), 7) && numbers.adopt(key(2), 3));
        assert!(!numbers.adopt(key(1), 2), "it has another");
        assert!(!numbers.adopt(key(3), 7), "somebody has it");
        assert!(!numbers.adopt(key(3), 0) && !numbers.adopt(key(3), 10));
        numbers.adopted();
        assert_eq!(numbers.of(key(4)), Ok(8));
        assert_eq!(numbers.of(key(5)), Ok(9));
        assert_eq!(numbers.of(key(6)), Ok(1));
        assert_eq!(numbers.of(key(7)), Ok(2));
        assert_eq!(numbers.of(key(8)), Ok(4));
    }

    #[test]
    fn a_backend_is_idle_when_its_last_service_lets_go() {
        let mut numbers = Numbers::new(10);
        let id = numbers.of(key(1)).unwrap();
        numbers.hold(id);
        numbers.hold(id);
        assert!(!numbers.release(id) && !numbers.is_idle(id));
        assert!(numbers.release(id) && numbers.is_idle(id));
    }
}
