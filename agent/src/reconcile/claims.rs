//! Who answers on an address and port that several want: the older Service.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use abi::service::FrontendKey;

use crate::desired::PortId;

/// Age and name: the least one wins.
type Rival = (i64, Arc<PortId>);

/// What a claim led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nobody else wants it.
    Alone,
    /// Somebody else has lost it.
    Took(Arc<PortId>),
    /// Somebody else has it.
    Lost(Arc<PortId>),
}

/// The owner of every frontend.
#[derive(Debug, Default)]
pub struct Claims {
    owners: HashMap<FrontendKey, Arc<PortId>>,
    /// Everybody who wants it, where that is more than one.
    rivals: HashMap<FrontendKey, BTreeSet<Rival>>,
}

impl Claims {
    /// The owner.
    pub fn owner(&self, key: &FrontendKey) -> Option<&Arc<PortId>> {
        self.owners.get(key)
    }

    /// `id`, made at `created`, wants `key`; `age` says when an owner was made.
    pub fn claim(
        &mut self,
        key: FrontendKey,
        id: &Arc<PortId>,
        created: i64,
        age: impl Fn(&PortId) -> i64,
    ) -> Claim {
        let Some(owner) = self.owners.get(&key).cloned() else {
            self.owners.insert(key, Arc::clone(id));
            return Claim::Alone;
        };
        if owner == *id {
            return Claim::Alone;
        }
        let rivals =
            self.rivals.entry(key).or_insert_with(|| BTreeSet::from([(age(&owner), Arc::clone(&owner))]));
        rivals.insert((created, Arc::clone(id)));
        if rivals.first().is_some_and(|(_, first)| first == id) {
            self.owners.insert(key, Arc::clone(id));
            Claim::Took(owner)
        } else {
            Claim::Lost(owner)
        }
    }

    /// `id` no longer wants `key`; answers with who has it now.
    pub fn release(&mut self, key: &FrontendKey, id: &PortId) -> Option<Arc<PortId>> {
        if let Some(rivals) = self.rivals.get_mut(key) {
            rivals.retain(|(_, rival)| **rival != *id);
            if let Some((_, first)) = rivals.first() {
                self.owners.insert(*key, Arc::clone(first));
            }
            if rivals.len() == 1 {
                self.rivals.remove(key);
            }
        } else if self.owners.get(key).is_some_and(|owner| **owner == *id) {
            self.owners.remove(key);
        }
        self.owners.get(key).cloned()
    }
}

#[cfg(test)]
mod tests {
    use abi::{Addr16, Be16};

    use super::*;
    use crate::tables::{ObjectName, Protocol};

    #[test]
    fn the_older_has_it_and_the_younger_gets_it_after() {
        let key = FrontendKey { addr: Addr16::mapped([10, 0, 0, 1]), port: Be16::new(80), proto: 6, zero: 0 };
        let id = |name: &str| {
            let service = ObjectName { namespace: "default".into(), name: name.into() };
            Arc::new(PortId { service, port: String::new(), protocol: Protocol::Tcp, v4: true })
        };
        let age = |id: &PortId| if id.service.name == "old" { 1 } else { 2 };
        let (old, young) = (id("old"), id("young"));
        let mut claims = Claims::default();
        assert_eq!(claims.claim(key, &young, 2, age), Claim::Alone);
        assert_eq!(claims.claim(key, &old, 1, age), Claim::Took(Arc::clone(&young)));
        assert_eq!(claims.claim(key, &young, 2, age), Claim::Lost(Arc::clone(&old)));
        assert_eq!(claims.release(&key, &old), Some(Arc::clone(&young)));
        assert_eq!(claims.release(&key, &young), None);
        assert_eq!(claims.owner(&key), None);
    }
}
