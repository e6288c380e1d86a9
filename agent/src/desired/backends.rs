//! Which endpoints take a service port's flows, by kube-proxy's rules.

use std::sync::Arc;

use abi::{Addr16, Be16};

use super::{BackendKey, Choice, View};
use crate::tables::{Protocol, Service, ServicePort, Slice, SliceEndpoint};

/// The backends of one port in one family.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Backends {
    /// Those for clients that may go anywhere.
    pub cluster: Vec<Choice>,
    /// Those on this node.
    pub local: Vec<Choice>,
    /// Those that take no new flows, but whose flows go on.
    pub kept: Vec<BackendKey>,
    /// Whether anybody in the cluster takes new flows.
    pub somebody: bool,
}

/// An endpoint with the number of the port and its weight.
#[derive(Clone, Copy)]
struct Candidate<'a> {
    endpoint: &'a SliceEndpoint,
    port: u16,
    weight: u16,
}

impl Candidate<'_> {
    fn key(&self) -> BackendKey {
        (Addr16::from(self.endpoint.address), Be16::new(self.port))
    }
}

/// Sorts the endpoints of `slices` into who serves whom.
pub fn backends(
    service: &Service,
    port: &ServicePort,
    slices: &[Arc<Slice>],
    view: View<'_>,
    v4: bool,
) -> Backends {
    let everybody = candidates(service, port, slices, v4);
    // Weight zero takes no new flows: as if it were not there.
    let all: Vec<Candidate<'_>> = everybody.iter().copied().filter(|one| one.weight > 0).collect();
    let node = view.facts.name.as_str();
    let local: Vec<Candidate<'_>> =
        all.iter().copied().filter(|one| one.endpoint.node.as_deref() == Some(node)).collect();
    let usable_anywhere = usable(&all);
    let mut found = Backends {
        somebody: !usable_anywhere.is_empty(),
        cluster: choices(nearby(usable_anywhere, view)),
        local: choices(usable(&local)),
        kept: Vec::new(),
    };
    found.kept = kept(&everybody, &found, port.protocol);
    found
}

fn candidates<'a>(
    service: &Service,
    port: &ServicePort,
    slices: &'a [Arc<Slice>],
    v4: bool,
) -> Vec<Candidate<'a>> {
    let mut all = Vec::new();
    for slice in slices {
        let numbers =
            slice.ports.iter().filter(|(name, protocol, _)| *name == port.name && *protocol == port.protocol);
        for (_, _, number) in numbers {
            let own = slice.endpoints.iter().filter(|endpoint| endpoint.address.is_ipv4() == v4);
            all.extend(own.map(|endpoint| Candidate {
                endpoint,
                port: *number,
                weight: weight(service, endpoint),
            }));
        }
    }
    all
}

fn weight(service: &Service, endpoint: &SliceEndpoint) -> u16 {
    if service.weights.is_empty() {
        return 1;
    }
    let address = endpoint.address.to_string();
    let names = [endpoint.target.as_deref(), endpoint.node.as_deref(), Some(address.as_str())];
    names.into_iter().flatten().find_map(|name| service.weights.get(name)).copied().unwrap_or(1)
}

/// Ready endpoints; where there is none, those that still serve while they terminate.
fn usable<'a>(all: &[Candidate<'a>]) -> Vec<Candidate<'a>> {
    let ready: Vec<_> = all.iter().copied().filter(|one| one.endpoint.ready).collect();
    if !ready.is_empty() {
        return ready;
    }
    all.iter().copied().filter(|one| one.endpoint.serving && one.endpoint.terminating).collect()
}

/// Ready endpoints that have hints are those of this node, if all have hints for nodes and one is for this; else those of
/// this zone likewise; else all. Who terminates serves everybody.
fn nearby<'a>(usable: Vec<Candidate<'a>>, view: View<'_>) -> Vec<Candidate<'a>> {
    if usable.iter().any(|one| !one.endpoint.ready) {
        return usable;
    }
    let hinted = |hints: fn(&SliceEndpoint) -> &[String], own: &str| {
        if usable.iter().any(|one| hints(one.endpoint).is_empty()) {
            return None;
        }
        let ours: Vec<Candidate<'a>> =
            usable.iter().copied().filter(|one| hints(one.endpoint).iter().any(|hint| hint == own)).collect();
        (!ours.is_empty()).then_some(ours)
    };
    hinted(SliceEndpoint::nodes, &view.facts.name)
        .or_else(|| hinted(SliceEndpoint::zones, view.zone?))
        .unwrap_or(usable)
}

/// In order, each backend once.
fn choices(candidates: Vec<Candidate<'_>>) -> Vec<Choice> {
    let mut all: Vec<Choice> =
        candidates.iter().map(|one| Choice { backend: one.key(), weight: one.weight }).collect();
    all.sort_unstable();
    all.dedup_by_key(|choice| choice.backend);
    all
}

/// Flows outlive readiness and policy: TCP's as long as the endpoint exists, UDP's while it serves, or while nobody does.
fn kept(everybody: &[Candidate<'_>], found: &Backends, protocol: Protocol) -> Vec<BackendKey> {
    let serves = |one: &Candidate<'_>| one.endpoint.serving || one.endpoint.ready;
    let all_count = protocol != Protocol::Udp || !everybody.iter().any(serves);
    let is_chosen = |key: &BackendKey| {
        [&found.cluster, &found.local]
            .iter()
            .any(|set| set.binary_search_by_key(key, |choice| choice.backend).is_ok())
    };
    let mut kept: Vec<BackendKey> = everybody
        .iter()
        .filter(|one| all_count || serves(one))
        .map(Candidate::key)
        .filter(|key| !is_chosen(key))
        .collect();
    kept.sort_unstable();
    kept.dedup();
    kept
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::net::IpAddr;

    use super::*;
    use crate::desired::NodeFacts;
    use crate::tables::Hints;

    /// `address state node hints`: state is `ready`, `terminating`, `dead` or `unready`; hints are `n:NODE` and `z:ZONE`.
    fn endpoint(text: &str) -> SliceEndpoint {
        let mut words = text.split(' ');
        let address: IpAddr = words.next().unwrap().parse().unwrap();
        let (ready, serving, terminating) = match words.next().unwrap() {
            "ready" => (true, true, false),
            "terminating" => (false, true, true),
            "dead" => (false, false, true),
            _ => (false, false, false),
        };
        let node = words.next().map(Into::into);
        let hints: Vec<&str> = words.collect();
        let of =
            |kind: &str| hints.iter().filter_map(|hint| hint.strip_prefix(kind)).map(str::to_owned).collect();
        SliceEndpoint {
            ready,
            serving,
            terminating,
            node,
            hints: Hints::new(of("z:"), of("n:")),
            ..SliceEndpoint::new(address)
        }
    }

    fn sorted(
        protocol: Protocol,
        weights: &[(&str, u16)],
        endpoints: &[&str],
    ) -> (String, String, String, bool) {
        let port = ServicePort { protocol, ..ServicePort::default() };
        let weights = weights.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect();
        let service = Service { weights, ..Service::default() };
        let slice = Slice {
            service: String::new(),
            endpoints: endpoints.iter().map(|text| endpoint(text)).collect(),
            ports: vec![(String::new(), protocol, 80)],
        };
        let facts = NodeFacts { name: "n1".into(), ..NodeFacts::default() };
        let view = View { facts: &facts, zone: Some("a"), host_addresses: &BTreeSet::new() };
        let found = backends(&service, &port, &[Arc::new(slice)], view, true);
        let last = |key: &BackendKey| key.0.bytes[15].to_string();
        let list = |choices: &[Choice]| {
            choices.iter().map(|choice| last(&choice.backend)).collect::<Vec<_>>().join(" ")
        };
        let kept = found.kept.iter().map(last).collect::<Vec<_>>().join(" ");
        (list(&found.cluster), list(&found.local), kept, found.somebody)
    }

    #[test]
    fn endpoints_are_chosen_by_the_rules() {
        type Case = (
            &'static str,
            Protocol,
            &'static [&'static str],
            (&'static str, &'static str, &'static str, bool),
        );
        let cases: &[Case] = &[
            (
                "ready ones",
                Protocol::Tcp,
                &["10.0.0.1 ready n1", "10.0.0.2 ready n2"],
                ("1 2", "1", "", true),
            ),
            (
                "who terminates keeps its flows",
                Protocol::Tcp,
                &["10.0.0.1 ready n1", "10.0.0.2 terminating n1", "10.0.0.3 dead n1", "10.0.0.4 unready n1"],
                ("1", "1", "2 3 4", true),
            ),
            (
                "UDP stays only with who serves",
                Protocol::Udp,
                &["10.0.0.1 ready n1", "10.0.0.2 terminating n1", "10.0.0.3 dead n1", "10.0.0.4 unready n1"],
                ("1", "1", "2", true),
            ),
            ("UDP stays when nobody serves", Protocol::Udp, &["10.0.0.4 unready n1"], ("", "", "4", false)),
            (
                "nobody ready: who terminates serves, here and everywhere each by itself",
                Protocol::Tcp,
                &["10.0.0.1 ready n2", "10.0.0.2 terminating n1", "10.0.0.3 dead n1"],
                ("1", "2", "3", true),
            ),
            (
                "all hinted, one for this node",
                Protocol::Tcp,
                &["10.0.0.1 ready n1 n:n1 z:a", "10.0.0.2 ready n2 n:n2 z:a"],
                ("1", "1", "2", true),
            ),
            (
                "nobody for this node: this zone",
                Protocol::Tcp,
                &["10.0.0.1 ready n3 n:n3 z:b", "10.0.0.2 ready n2 n:n2 z:a"],
                ("2", "", "1", true),
            ),
            (
                "one hint missing: all",
                Protocol::Tcp,
                &["10.0.0.1 ready n3 z:b", "10.0.0.2 ready n2 z:a", "10.0.0.3 ready n2"],
                ("1 2 3", "", "", true),
            ),
            (
                "hints of those that are not ready do not count",
                Protocol::Tcp,
                &["10.0.0.2 ready n2 z:a", "10.0.0.3 unready n2"],
                ("2", "", "3", true),
            ),
            (
                "an address twice counts when it is ready once",
                Protocol::Tcp,
                &["10.0.0.1 dead n2", "10.0.0.1 ready n1"],
                ("1", "1", "", true),
            ),
            ("another family is not ours", Protocol::Tcp, &["fd00::1 ready n1"], ("", "", "", false)),
        ];
        for (name, protocol, endpoints, want) in cases {
            let got = sorted(*protocol, &[], endpoints);
            assert_eq!((got.0.as_str(), got.1.as_str(), got.2.as_str(), got.3), *want, "{name}");
        }
    }

    #[test]
    fn weight_zero_takes_no_new_flows_and_keeps_its_own() {
        let got =
            sorted(Protocol::Tcp, &[("n1", 0), ("10.0.0.2", 7)], &["10.0.0.1 ready n1", "10.0.0.2 ready n2"]);
        assert_eq!(got, ("2".into(), String::new(), "1".into(), true));
        let got = sorted(Protocol::Tcp, &[("n1", 0)], &["10.0.0.1 ready n1"]);
        assert_eq!(got, (String::new(), String::new(), "1".into(), false));
    }

    #[test]
    fn weights_are_those_of_the_pod_the_node_or_the_address_in_this_order() {
        let mut one = endpoint("10.0.0.1 ready n1");
        let all = [("10.0.0.1", 1), ("n1", 2), ("p", 3)].map(|(name, weight)| (name.to_owned(), weight));
        let service = Service { weights: BTreeMap::from(all), ..Service::default() };
        assert_eq!(weight(&service, &one), 2);
        one.target = Some("p".into());
        assert_eq!(weight(&service, &one), 3);
        one.target = Some("q".into());
        one.node = None;
        assert_eq!(weight(&service, &one), 1);
    }
}
