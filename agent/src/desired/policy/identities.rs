//! Identities: addresses of which the same clauses hold, and whose pods call the same ports by the same names, are one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use abi::policy::identity;

use super::cidrs::{Kind, Regions};
use super::clauses::{Clause, Scope, matches};
use super::numbers::Numbers;
use super::sets::{Entry, Subject};
use crate::tables::Protocol;
use crate::tables::policy::{Labels, NamedPort, Namespace};

/// Names a clause for as long as any set asks it.
pub type ClauseId = u32;

/// Named ports that rules leave to the other side.
pub type Names = BTreeSet<(Protocol, Arc<str>)>;

/// More profiles than pods could ever need are those of pods that went.
const PROFILES: usize = 1 << 18;

/// What an identity stands for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Traits {
    /// The clauses that hold.
    pub clauses: Vec<Arc<Clause>>,
    /// Its named ports, as far as rules ask for them.
    pub ports: Vec<NamedPort>,
}

/// An identity that addresses have.
#[derive(Debug)]
pub struct Identity {
    /// What it stands for.
    pub traits: Arc<Traits>,
    /// The clauses that hold.
    pub clauses: Vec<ClauseId>,
}

/// Clauses of a pod's or a node's own, and a pod's ports: what all with the same labels have in common.
#[derive(Debug, Default)]
struct Profile {
    clauses: Vec<ClauseId>,
    ports: Vec<NamedPort>,
}

/// A clause that can hold of a pod.
type Candidate = (ClauseId, Arc<Clause>);

/// Everything that gives addresses their identities.
#[derive(Debug)]
pub struct Identities {
    clauses: BTreeMap<Arc<Clause>, ClauseId>,
    by_id: HashMap<ClauseId, Arc<Clause>>,
    next: ClauseId,
    names: Names,
    regions: Regions,
    /// Clauses about pods, with the labels they ask for, by namespace.
    candidates: HashMap<Arc<str>, Arc<[Candidate]>>,
    profiles: HashMap<Subject, u32>,
    /// Those of nodes, by their labels.
    node_profiles: HashMap<Arc<Labels>, u32>,
    profile_rows: Vec<Profile>,
    mixed: HashMap<(u32, Kind), u32>,
    numbers: Numbers<Traits>,
    known: HashMap<u32, Identity>,
}

impl Default for Identities {
    fn default() -> Self {
        Self {
            clauses: BTreeMap::new(),
            by_id: HashMap::new(),
            next: 0,
            names: Names::new(),
            regions: Regions::default(),
            candidates: HashMap::new(),
            profiles: HashMap::new(),
            node_profiles: HashMap::new(),
            profile_rows: vec![Profile::default()],
            mixed: HashMap::new(),
            numbers: Numbers::from(identity::FIRST),
            known: HashMap::new(),
        }
    }
}

impl Identities {
    /// Asks what these entries ask, and nothing else; answers whether that makes a difference, so that every address has to
    /// be looked at again.
    pub fn ask<'a>(&mut self, entries: impl Iterator<Item = &'a Entry>) -> bool {
        let (mut wanted, mut names) = (BTreeSet::new(), Names::new());
        for entry in entries {
            wanted.extend(entry.peers.iter().flatten());
            names.extend(entry.names().map(|(protocol, name)| (protocol, Arc::clone(name))));
        }
        if names == self.names
            && wanted.len() == self.clauses.len()
            && wanted.iter().all(|one| self.clauses.contains_key(*one))
        {
            return false;
        }
        let old = std::mem::take(&mut self.clauses);
        for clause in wanted {
            let id = old.get(clause).copied().unwrap_or_else(|| {
                self.next += 1;
                self.next
            });
            self.clauses.insert(Arc::clone(clause), id);
        }
        self.by_id = self.clauses.iter().map(|(clause, id)| (*id, Arc::clone(clause))).collect();
        self.names = names;
        let blocks = self.clauses.iter().filter_map(|(clause, id)| match &**clause {
            Clause::Block(cidr, except) => Some((*id, cidr, except)),
            Clause::Pods(..) | Clause::Nodes(_) => None,
        });
        self.regions = Regions::of(blocks);
        self.forget();
        true
    }

    /// Whatever was found out about labels and namespaces may be wrong.
    pub fn forget(&mut self) {
        self.candidates.clear();
        self.profiles.clear();
        self.node_profiles.clear();
        self.profile_rows.truncate(1);
        self.mixed.clear();
    }

    /// The clause's name, if any set asks it.
    pub fn id(&self, clause: &Arc<Clause>) -> Option<ClauseId> {
        self.clauses.get(clause).copied()
    }

    /// Where blocks begin and end.
    pub fn regions(&self) -> &Regions {
        &self.regions
    }

    /// The identity of an address of nobody in particular.
    pub fn of_kind(&mut self, kind: Kind) -> u32 {
        self.mix(0, kind)
    }

    /// The identity of an address of a pod.
    pub fn of_pod(
        &mut self,
        subject: &Subject,
        namespaces: &BTreeMap<String, Arc<Namespace>>,
        address: IpAddr,
    ) -> u32 {
        let profile = self.profile(subject, namespaces);
        self.mix(profile, self.regions.at(address))
    }

    /// The identity of an address of a node.
    pub fn of_node(&mut self, labels: &Arc<Labels>, address: IpAddr) -> u32 {
        let profile = self.node_profile(labels);
        self.mix(profile, self.regions.at(address))
    }

    /// An identity that was given to somebody.
    pub fn known(&self, number: u32) -> Option<&Identity> {
        self.known.get(&number)
    }

    /// Takes back the numbers of identities that nobody has any more.
    pub fn retain(&mut self, keep: impl Fn(u32) -> bool) {
        self.numbers.retain(&keep);
        self.known.retain(|number, _| keep(*number));
        self.mixed.retain(|_, number| keep(*number));
    }

    fn mix(&mut self, profile: u32, kind: Kind) -> u32 {
        if let Some(known) = self.mixed.get(&(profile, kind)) {
            return *known;
        }
        let own = &self.profile_rows[profile as usize];
        let mut clauses: Vec<ClauseId> =
            own.clauses.iter().chain(self.regions.blocks(kind)).copied().collect();
        clauses.sort_unstable();
        let number = if clauses.is_empty() && own.ports.is_empty() {
            identity::WORLD
        } else {
            let mut holds: Vec<Arc<Clause>> =
                clauses.iter().filter_map(|id| self.by_id.get(id)).map(Arc::clone).collect();
            holds.sort();
            let traits = Arc::new(Traits { clauses: holds, ports: own.ports.clone() });
            let number = self.numbers.of(&traits);
            self.known.insert(number, Identity { traits, clauses });
            number
        };
        self.mixed.insert((profile, kind), number);
        number
    }

    fn profile(&mut self, subject: &Subject, namespaces: &BTreeMap<String, Arc<Namespace>>) -> u32 {
        if let Some(known) = self.profiles.get(subject) {
            return *known;
        }
        if self.profiles.len() >= PROFILES {
            self.forget();
        }
        let candidates = self.candidates(&subject.namespace, namespaces);
        let holds = candidates.iter().filter(|(_, clause)| match &**clause {
            Clause::Pods(_, pods) => matches(pods, &subject.labels),
            Clause::Block(..) | Clause::Nodes(_) => false,
        });
        let asked = |port: &&NamedPort| self.names.contains(&(port.protocol, Arc::clone(&port.name)));
        let profile = Profile {
            clauses: holds.map(|(id, _)| *id).collect(),
            ports: subject.ports.iter().filter(asked).cloned().collect(),
        };
        let number = self.enlist(profile);
        self.profiles.insert(subject.clone(), number);
        number
    }

    fn node_profile(&mut self, labels: &Arc<Labels>) -> u32 {
        if let Some(known) = self.node_profiles.get(labels) {
            return *known;
        }
        let holds = self.clauses.iter().filter(|(clause, _)| match &***clause {
            Clause::Nodes(selector) => matches(selector, labels),
            Clause::Pods(..) | Clause::Block(..) => false,
        });
        let profile = Profile { clauses: holds.map(|(_, id)| *id).collect(), ports: Vec::new() };
        let number = self.enlist(profile);
        self.node_profiles.insert(Arc::clone(labels), number);
        number
    }

    fn enlist(&mut self, profile: Profile) -> u32 {
        self.profile_rows.push(profile);
        self.profile_rows.len() as u32 - 1
    }

    /// The clauses that can hold of pods in a namespace.
    fn candidates(
        &mut self,
        namespace: &Arc<str>,
        namespaces: &BTreeMap<String, Arc<Namespace>>,
    ) -> Arc<[Candidate]> {
        if let Some(known) = self.candidates.get(namespace) {
            return Arc::clone(known);
        }
        let labels = namespaces.get(&**namespace).map(|row| Arc::clone(&row.labels)).unwrap_or_default();
        let mut asked = HashMap::new();
        let mut is_about = |clause: &Clause| match clause {
            Clause::Block(..) | Clause::Nodes(_) => false,
            Clause::Pods(Scope::Named(own), _) => own == namespace,
            Clause::Pods(Scope::Labelled(selector), _) => {
                *asked.entry(selector.clone()).or_insert_with(|| matches(selector, &labels))
            }
        };
        let list = self.clauses.iter().filter(|(clause, _)| is_about(clause));
        let list: Arc<[Candidate]> = list.map(|(clause, id)| (*id, Arc::clone(clause))).collect();
        self.candidates.insert(Arc::clone(namespace), Arc::clone(&list));
        list
    }
}
