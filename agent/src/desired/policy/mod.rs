//! NetworkPolicy and ClusterNetworkPolicy compiled: identities for addresses, rule sets for local pods, rows for what sets say about identities.
//!
//! Policies become [sets] of rules, whose peers are [clauses]. An [identity](identities) is the set of clauses that hold of an
//! address; a row says for a set, an identity and [ports] what becomes of a flow. Sets, identities and rules have [numbers] that
//! follow from what they are: a row that is right once is right for ever, and a restart finds all of them again. What
//! changes is computed, not everything: a pod costs its addresses, an identity nobody had before its rows, a set its rows.

pub mod addresses;
pub mod cidrs;
pub mod clauses;
pub mod identities;
pub mod lookup;
pub mod numbers;
pub mod ports;
pub mod sets;
pub mod tiers;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use abi::policy::identity;
use ipnetwork::IpNetwork;

use crate::tables::{Endpoint, EndpointId, ObjectName, PolicyChanges, Snapshot, Source};
use addresses::Addresses;
use identities::{ClauseId, Identities, Identity};
use numbers::Numbers;
use ports::{Match, Verdict};
use sets::{Direction, RuleName, RuleSet, Subject};

/// The rows of one set and one identity.
pub type PairRows = Vec<(Match, Verdict)>;
/// A set and an identity.
pub type Pair = (u32, u32);

/// What a local pod may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Policed {
    /// Number of the set for what comes to it; zero if it is not isolated.
    pub ingress: u32,
    /// The same for what it sends.
    pub egress: u32,
    /// What the sets deny passes, and is told.
    pub audit: bool,
}

impl Policed {
    /// Sets that nobody writes: everything is denied.
    pub const ISOLATED: Self = Self { ingress: u32::MAX, egress: u32::MAX, audit: false };
}

/// What the kernel should have about policies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Addresses whose identity is not that of the networks around them.
    pub identities: BTreeMap<IpAddr, u32>,
    /// Networks of which the longest counts; elsewhere is the world.
    pub cidrs: BTreeMap<IpNetwork, u32>,
    /// What sets say.
    pub rules: BTreeMap<Pair, PairRows>,
    /// What is known of local pods: who is not here has to wait, because its labels are not known.
    pub endpoints: BTreeMap<EndpointId, Policed>,
}

/// What changed since somebody last looked.
#[derive(Debug, Clone, Default)]
pub struct Todo {
    /// Sets and identities.
    pub pairs: BTreeSet<Pair>,
    /// Addresses.
    pub addresses: BTreeSet<IpAddr>,
    /// Those among them whose pods or namespaces changed, not only the rules.
    pub moved: BTreeSet<IpAddr>,
    /// Networks.
    pub cidrs: bool,
}

/// The compiler, with what it need not compute again.
#[derive(Debug)]
pub struct Policies {
    /// What the kernel should have.
    pub state: State,
    /// What changed.
    pub todo: Todo,
    /// Whether everything was delivered that policies depend on; until then there is nothing here.
    pub known: bool,
    identities: Identities,
    addresses: Addresses,
    rules: Numbers<RuleName>,
    set_numbers: Numbers<RuleSet>,
    /// The sets of local pods, and those that pods may still have in the kernel.
    sets: BTreeMap<u32, Compiled>,
    wanted: BTreeSet<u32>,
    /// Those whose clauses are asked.
    asked: BTreeSet<u32>,
    sets_of: HashMap<Subject, (u32, u32)>,
    local: BTreeMap<EndpointId, Subject>,
    /// Identities that addresses and networks have, and how many.
    users: HashMap<u32, usize>,
    having: HashMap<ClauseId, BTreeSet<u32>>,
    with_ports: BTreeSet<u32>,
}

/// A set, and which of its rules depend on what.
#[derive(Debug)]
struct Compiled {
    set: Arc<RuleSet>,
    by_clause: HashMap<ClauseId, Vec<usize>>,
    /// Rules for everybody with ports that have names.
    by_name: Vec<usize>,
}

impl Compiled {
    /// Rules that are about everybody.
    fn for_all(&self) -> impl Iterator<Item = usize> {
        let entries = self.set.entries.iter().enumerate();
        entries.filter(|(_, entry)| entry.peers.is_none()).map(|(at, _)| at)
    }
}

impl Default for Policies {
    fn default() -> Self {
        Self {
            state: State::default(),
            todo: Todo::default(),
            known: false,
            identities: Identities::default(),
            addresses: Addresses::default(),
            rules: Numbers::from(1),
            set_numbers: Numbers::from(1),
            sets: BTreeMap::new(),
            wanted: BTreeSet::new(),
            asked: BTreeSet::new(),
            sets_of: HashMap::new(),
            local: BTreeMap::new(),
            users: HashMap::new(),
            having: HashMap::new(),
            with_ports: BTreeSet::new(),
        }
    }
}

impl Policies {
    /// Follows the tables. `hosts` are the addresses of this node.
    pub fn update(
        &mut self,
        tables: &Snapshot,
        changes: &PolicyChanges,
        everything: bool,
        hosts: &BTreeSet<IpAddr>,
    ) {
        let sources = [
            Source::Policies,
            Source::ClusterPolicies,
            Source::Namespaces,
            Source::ClusterPods,
            Source::Nodes,
        ];
        if !sources.iter().all(|source| tables.synced.contains(source)) {
            return;
        }
        let everything = !std::mem::replace(&mut self.known, true) || everything;
        if everything || changes.policies || changes.namespaces && !tables.policy.cluster.is_empty() {
            self.sets_of.clear();
        }
        if everything || changes.namespaces {
            self.identities.forget();
        }
        let mut touched = self.addresses.hosts(hosts);
        touched.extend(self.addresses.nodes(&tables.nodes));
        let moved = if everything {
            self.addresses.all_pods(&tables.policy.pods)
        } else {
            let pods = changes.pods.iter().map(|name| (name, tables.policy.pods.get(name)));
            self.addresses.pods(pods)
        };
        touched.extend(self.addresses.local(&tables.endpoints));
        self.todo.moved.extend(moved.iter().chain(&touched));
        if changes.namespaces {
            self.todo.moved.extend(self.addresses.all());
        }
        touched.extend(moved);
        self.follow_endpoints(tables);
        self.compile(tables, everything || changes.namespaces, &touched);
    }

    /// Every pod has its sets: what those had before and nobody has any more is forgotten. Answers whether there was any.
    pub fn settle(&mut self, tables: &Snapshot) -> bool {
        let before = self.sets.len();
        self.sets.retain(|number, _| self.wanted.contains(number));
        if before == self.sets.len() {
            return false;
        }
        let is_there = |number: &u32| *number == 0 || self.sets.contains_key(number);
        self.sets_of.retain(|_, (ingress, egress)| is_there(ingress) && is_there(egress));
        self.compile(tables, false, &BTreeSet::new());
        self.drop_sets();
        self.set_numbers.retain(|number| self.sets.contains_key(&number));
        let used: BTreeSet<u32> = self.entries().map(|entry| entry.number).collect();
        self.rules.retain(|number| used.contains(&number));
        true
    }

    /// The numbers of all sets.
    pub fn set_numbers(&self) -> impl Iterator<Item = u32> {
        self.sets.keys().copied()
    }

    /// The set with a number.
    pub fn set(&self, number: u32) -> Option<&Arc<RuleSet>> {
        self.sets.get(&number).map(|compiled| &compiled.set)
    }

    /// The rule with a number.
    pub fn rule(&self, number: u32) -> Option<&Arc<RuleName>> {
        self.rules.who(number)
    }

    /// Which sets the local pods should have.
    fn follow_endpoints(&mut self, tables: &Snapshot) {
        let mut endpoints = BTreeMap::new();
        self.local.retain(|id, _| tables.endpoints.contains_key(id));
        for (id, endpoint) in &tables.endpoints {
            let audit = tables
                .policy
                .namespaces
                .get(&endpoint.pod_namespace)
                .is_some_and(|namespace| namespace.audit);
            if let Some(subject) = self.subject(id, endpoint, tables) {
                let (ingress, egress) = self.sets_of(subject, tables);
                endpoints.insert(id.clone(), Policed { ingress, egress, audit });
            } else if !has_policies(tables, &endpoint.pod_namespace) {
                endpoints.insert(id.clone(), Policed { audit, ..Policed::default() });
            }
        }
        self.wanted = endpoints.values().flat_map(|policed| [policed.ingress, policed.egress]).collect();
        self.wanted.remove(&0);
        self.state.endpoints = endpoints;
    }

    /// A pod that was deleted, but is still there, stays what it was.
    fn subject(&mut self, id: &EndpointId, endpoint: &Endpoint, tables: &Snapshot) -> Option<Subject> {
        let name = ObjectName { namespace: endpoint.pod_namespace.clone(), name: endpoint.pod_name.clone() };
        if let Some(row) = tables.policy.pods.get(&name).filter(|row| endpoint.is_of(row)) {
            let subject = self.addresses.subject(&name, row);
            self.local.insert(id.clone(), subject);
        }
        self.local.get(id).cloned()
    }

    fn sets_of(&mut self, subject: Subject, tables: &Snapshot) -> (u32, u32) {
        if let Some(known) = self.sets_of.get(&subject) {
            return *known;
        }
        let [ingress, egress] = [Direction::Ingress, Direction::Egress].map(|direction| {
            let rules = &mut self.rules;
            let set = sets::set(&subject, direction, &tables.policy, |rule| rules.of(rule))?;
            let set = Arc::new(set);
            let number = self.set_numbers.of(&set);
            let fresh = || Compiled { set, by_clause: HashMap::new(), by_name: Vec::new() };
            self.sets.entry(number).or_insert_with(fresh);
            Some(number)
        });
        let numbers = (ingress.unwrap_or(0), egress.unwrap_or(0));
        self.sets_of.insert(subject, numbers);
        numbers
    }

    fn entries(&self) -> impl Iterator<Item = &sets::Entry> {
        self.sets.values().flat_map(|compiled| &compiled.set.entries)
    }

    /// Identities of what was touched, or of everything if clauses changed; then the rows of what is new.
    fn compile(&mut self, tables: &Snapshot, everything: bool, touched: &BTreeSet<IpAddr>) {
        if self.ask() || everything {
            self.identify_all(tables);
            return;
        }
        let fresh: Vec<u32> = self
            .sets
            .keys()
            .filter(|number| !self.state.rules.contains_key(&(**number, ANCHOR)))
            .copied()
            .collect();
        let gone: BTreeSet<u32> =
            touched.iter().filter_map(|address| self.identify(*address, tables)).collect();
        for number in gone {
            self.leave(number);
        }
        for number in fresh {
            self.index(number);
            let rows = self.rows_of_set(number);
            self.put_rows(rows);
        }
    }

    /// Asks what the sets ask, if they are others than the last time; answers whether that makes a difference.
    fn ask(&mut self) -> bool {
        if self.sets.keys().eq(&self.asked) {
            return false;
        }
        self.asked = self.sets.keys().copied().collect();
        self.identities.ask(self.sets.values().flat_map(|compiled| &compiled.set.entries))
    }

    fn identify_all(&mut self, tables: &Snapshot) {
        self.users.clear();
        self.having.clear();
        self.with_ports.clear();
        self.follow_regions();
        let former: Vec<IpAddr> = self.state.identities.keys().copied().collect();
        let all: BTreeSet<IpAddr> = self.addresses.all().chain(former).collect();
        self.addresses.forget_identities();
        for address in all {
            self.identify_quietly(address, tables);
        }
        let users = &self.users;
        self.identities.retain(|number| users.contains_key(&number));
        let numbers: Vec<u32> = self.sets.keys().copied().collect();
        let mut rules = BTreeMap::new();
        for number in numbers {
            self.index(number);
            rules.extend(self.rows_of_set(number));
        }
        let former = std::mem::replace(&mut self.state.rules, rules);
        let now = &self.state.rules;
        let differs = |pair: &&Pair| former.get(*pair) != now.get(*pair);
        let changed: Vec<Pair> = former.keys().chain(now.keys()).filter(differs).copied().collect();
        self.todo.pairs.extend(changed);
    }

    /// The networks that blocks make.
    fn follow_regions(&mut self) {
        let regions: Vec<(IpNetwork, u32)> =
            self.identities.regions().rows().iter().map(|(network, kind)| (*network, *kind)).collect();
        let mut cidrs = BTreeMap::new();
        for (network, kind) in regions {
            let number = self.identities.of_kind(kind);
            self.enter(number);
            cidrs.insert(network, number);
        }
        self.todo.cidrs |= cidrs != self.state.cidrs;
        self.state.cidrs = cidrs;
    }
}

/// The identity whose rows every set has, were they none: a set is known by them.
const ANCHOR: u32 = identity::ANYBODY;

fn has_policies(tables: &Snapshot, namespace: &str) -> bool {
    let from = ObjectName { namespace: namespace.to_owned(), name: String::new() };
    tables.policy.policies.range(from..).next().is_some_and(|(name, _)| name.namespace == namespace)
        || tiers::may_select(&tables.policy, namespace)
}

/// Who has which identity.
impl Policies {
    /// Gives an address its identity; answers with the one that it had and nobody has any more.
    fn identify(&mut self, address: IpAddr, tables: &Snapshot) -> Option<u32> {
        let (before, now) = self.identify_quietly(address, tables);
        if let Some(fresh) = now.filter(|number| self.users.get(number) == Some(&1) && before != now) {
            let rows = self.rows_of_identity(fresh);
            self.put_rows(rows);
        }
        let before = before.filter(|_| before != now)?;
        let users = self.users.get_mut(&before)?;
        *users -= 1;
        (*users == 0).then_some(before)
    }

    /// The same without rows; answers with the identity that it had, and the one it has, if they are of somebody.
    fn identify_quietly(&mut self, address: IpAddr, tables: &Snapshot) -> (Option<u32>, Option<u32>) {
        let owner = self.addresses.owner(address);
        let own = owner.map(|owner| {
            self.addresses.identity(owner, address, &mut self.identities, &tables.policy.namespaces)
        });
        let own = own.flatten();
        let kind = self.identities.regions().at(address);
        let around = self.identities.of_kind(kind);
        let before = self.addresses.give(address, own);
        if before != own
            && let Some(number) = own
        {
            self.enter(number);
        }
        let row = own.filter(|number| *number != around);
        let known = match row {
            Some(number) => self.state.identities.insert(address, number),
            None => self.state.identities.remove(&address),
        };
        if known != row {
            self.todo.addresses.insert(address);
        }
        (before, own)
    }

    fn enter(&mut self, number: u32) {
        let users = self.users.entry(number).or_default();
        *users += 1;
        if *users > 1 {
            return;
        }
        let Some(Identity { traits, clauses }) = self.identities.known(number) else { return };
        for clause in clauses {
            self.having.entry(*clause).or_default().insert(number);
        }
        if !traits.ports.is_empty() {
            self.with_ports.insert(number);
        }
    }

    /// Nobody has an identity any more.
    fn leave(&mut self, number: u32) {
        if self.users.get(&number).is_some_and(|users| *users > 0) {
            return;
        }
        self.users.remove(&number);
        for clause in self.identities.known(number).iter().flat_map(|known| &known.clauses) {
            if let Some(all) = self.having.get_mut(clause) {
                all.remove(&number);
            }
        }
        self.with_ports.remove(&number);
        for set in self.sets.keys() {
            if self.state.rules.remove(&(*set, number)).is_some() {
                self.todo.pairs.insert((*set, number));
            }
        }
        self.identities.retain(|known| known != number);
    }
}

/// What sets say about identities.
impl Policies {
    fn index(&mut self, number: u32) {
        let Some(compiled) = self.sets.get_mut(&number) else { return };
        compiled.by_clause.clear();
        compiled.by_name.clear();
        for (at, entry) in compiled.set.entries.iter().enumerate() {
            for clause in entry.peers.iter().flatten() {
                if let Some(id) = self.identities.id(clause) {
                    compiled.by_clause.entry(id).or_default().push(at);
                }
            }
            if entry.peers.is_none() && entry.names().next().is_some() {
                compiled.by_name.push(at);
            }
        }
    }

    fn rows_of_set(&self, number: u32) -> BTreeMap<Pair, PairRows> {
        let Some(compiled) = self.sets.get(&number) else { return BTreeMap::new() };
        let for_all = compiled.set.entries.iter().filter(|entry| entry.peers.is_none());
        // Rows or not: the set is known by this.
        let mut rows = BTreeMap::from([((number, ANCHOR), compiled.set.rows(for_all, &[]))]);
        if compiled.set.is_tiered() {
            rows.insert((number, identity::NOBODY), ports::nothing());
        }
        let having = compiled.by_clause.keys().filter_map(|clause| self.having.get(clause)).flatten();
        let named = if compiled.by_name.is_empty() { None } else { Some(&self.with_ports) };
        let concerned: BTreeSet<u32> = having.chain(named.into_iter().flatten()).copied().collect();
        rows.extend(
            concerned
                .into_iter()
                .filter_map(|identity| Some(((number, identity), self.rows_of_pair(compiled, identity)?))),
        );
        rows
    }

    fn rows_of_identity(&self, identity: u32) -> BTreeMap<Pair, PairRows> {
        let pair = |(number, compiled): (&u32, &Compiled)| {
            Some(((*number, identity), self.rows_of_pair(compiled, identity)?))
        };
        self.sets.iter().filter_map(pair).collect()
    }

    fn rows_of_pair(&self, compiled: &Compiled, identity: u32) -> Option<PairRows> {
        let Identity { traits, clauses } = self.identities.known(identity)?;
        let fitting = clauses.iter().filter_map(|clause| compiled.by_clause.get(clause)).flatten();
        let named = if traits.ports.is_empty() { &[][..] } else { &compiled.by_name };
        let mut fitting: BTreeSet<usize> = fitting.chain(named).copied().collect();
        if !fitting.is_empty() && compiled.set.is_tiered() {
            fitting.extend(compiled.for_all());
        }
        let rows = compiled.set.rows(fitting.iter().map(|at| &compiled.set.entries[*at]), &traits.ports);
        (!fitting.is_empty() && !rows.is_empty()).then_some(rows)
    }

    fn put_rows(&mut self, rows: BTreeMap<Pair, PairRows>) {
        for (pair, rows) in rows {
            if self.state.rules.get(&pair) != Some(&rows) {
                self.state.rules.insert(pair, rows);
                self.todo.pairs.insert(pair);
            }
        }
    }

    /// Takes away the rows of sets that are no more.
    fn drop_sets(&mut self) {
        let gone = |(set, _): &&Pair| !self.sets.contains_key(set);
        let gone: Vec<Pair> = self.state.rules.keys().filter(gone).copied().collect();
        for pair in gone {
            self.state.rules.remove(&pair);
            self.todo.pairs.insert(pair);
        }
    }
}
