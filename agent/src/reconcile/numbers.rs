//! Stable numbers of backends: one for each address, port and protocol that any service uses.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};

use abi::service::BackendKey;
use hashbrown::HashTable;

use super::place::Full;

/// Who has a number, and how many services use it.
#[derive(Debug, Clone, Copy)]
struct Holder {
    key: BackendKey,
    users: u32,
}

/// All numbers. Zero is nobody's.
#[derive(Debug)]
pub struct Numbers {
    max: u32,
    free: VecDeque<u32>,
    hasher: RandomState,
    /// The numbers that are given out, by the hash of their holders' keys.
    by_key: HashTable<u32>,
    /// The holder of each number that was ever given out.
    holders: Vec<Option<Holder>>,
}

impl Numbers {
    /// None is given out.
    pub fn new(max: u32) -> Self {
        Self {
            max,
            free: VecDeque::new(),
            hasher: RandomState::new(),
            by_key: HashTable::new(),
            holders: vec![None],
        }
    }

    /// Takes over a number that is in use; `false` if that cannot be. After the last one, [`Self::adopted`] is due.
    pub fn adopt(&mut self, key: BackendKey, id: u32) -> bool {
        if let Some(known) = self.find(&key) {
            return known == id;
        }
        if id == 0 || id >= self.max || self.holder(id).is_some() {
            return false;
        }
        self.holders.resize(self.holders.len().max(id as usize + 1), None);
        self.put(key, id);
        true
    }

    /// All numbers in use are taken over. Those between them may belong to flows whose backend is in no segment any more:
    /// they are given out last.
    pub fn adopted(&mut self) {
        let numbers = (1..).zip(&self.holders[1..]);
        self.free = numbers.filter(|(_, holder)| holder.is_none()).map(|(id, _)| id).collect();
    }

    /// The number of a backend, if it has one.
    pub fn find(&self, key: &BackendKey) -> Option<u32> {
        self.by_key.find(self.hasher.hash_one(key), |id| self.is_of(*id, key)).copied()
    }

    /// The number of a backend: its own if it has one. Fresh ones come first, then those that were given back longest ago.
    pub fn of(&mut self, key: BackendKey) -> Result<u32, Full> {
        if let Some(known) = self.find(&key) {
            return Ok(known);
        }
        let next = u32::try_from(self.holders.len()).map_err(|_too_many| Full::Numbers(self.max))?;
        let id = if next < self.max {
            self.holders.push(None);
            next
        } else {
            self.free.pop_front().ok_or(Full::Numbers(self.max))?
        };
        self.put(key, id);
        Ok(id)
    }

    fn put(&mut self, key: BackendKey, id: u32) {
        self.holders[id as usize] = Some(Holder { key, users: 0 });
        let (hasher, holders) = (&self.hasher, &self.holders);
        let rehash = |id: &u32| holders[*id as usize].map_or(0, |holder| hasher.hash_one(holder.key));
        self.by_key.insert_unique(hasher.hash_one(key), id, rehash);
    }

    fn holder(&self, id: u32) -> Option<&Holder> {
        self.holders.get(id as usize)?.as_ref()
    }

    fn holder_mut(&mut self, id: u32) -> Option<&mut Holder> {
        self.holders.get_mut(id as usize)?.as_mut()
    }

    fn is_of(&self, id: u32, key: &BackendKey) -> bool {
        self.holder(id).is_some_and(|holder| holder.key == *key)
    }

    /// Who has a number.
    pub fn key(&self, id: u32) -> Option<BackendKey> {
        self.holder(id).map(|holder| holder.key)
    }

    /// One more service uses the backend.
    pub fn hold(&mut self, id: u32) {
        if let Some(holder) = self.holder_mut(id) {
            holder.users += 1;
        }
    }

    /// One service less uses the backend; answers whether none does.
    pub fn release(&mut self, id: u32) -> bool {
        let Some(holder) = self.holder_mut(id) else { return false };
        holder.users = holder.users.saturating_sub(1);
        holder.users == 0
    }

    /// Whether no service uses the backend.
    pub fn is_idle(&self, id: u32) -> bool {
        self.holder(id).is_some_and(|holder| holder.users == 0)
    }

    /// Gives the number back.
    pub fn forget(&mut self, id: u32) {
        let Some(holder) = self.holders.get_mut(id as usize).and_then(Option::take) else { return };
        if let Ok(known) = self.by_key.find_entry(self.hasher.hash_one(holder.key), |known| *known == id) {
            known.remove();
        }
        self.free.push_back(id);
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
