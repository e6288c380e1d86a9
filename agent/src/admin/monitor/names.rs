//! Numbers and addresses into names, as the tables know them.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use abi::event::{Event, hook, kind};
use abi::{Addr16, Be16};
use ipnetwork::IpNetwork;

use super::line::Shown;
use crate::desired::NodeFacts;
use crate::oracle::{self, Ask, Client, Here, Packet};
use crate::tables::{ObjectName, Protocol, Tables};

/// How long a name is believed.
const BELIEF: Duration = Duration::from_secs(2);

/// Looks names up, and remembers them for a moment: a flood of events is about few services.
pub struct Names {
    tables: Arc<Tables>,
    facts: NodeFacts,
    services: Vec<IpNetwork>,
    known: HashMap<(Addr16, Be16, u8), Option<Arc<str>>>,
    pods: HashMap<IpAddr, String>,
    since: Option<Instant>,
}

/// What denies where no rule does: NetworkPolicies isolate the pod, and none of their rules allows the flow.
const ISOLATION: &str = "isolation";

impl Names {
    /// Of this node.
    pub fn new(tables: Arc<Tables>, facts: NodeFacts, services: Vec<IpNetwork>) -> Self {
        Self { tables, facts, services, known: HashMap::new(), pods: HashMap::new(), since: None }
    }

    /// An event with names.
    pub fn show(&mut self, event: &Event, now: Instant) -> Shown {
        self.refresh(now);
        let tuple = &event.key.tuple;
        let (src, dst) = (end(tuple.src, tuple.sport), end(tuple.dst, tuple.dport));
        let went = (event.to.dst != Addr16::NONE).then(|| end(event.to.dst, event.to.dport));
        let from = (event.to.src != Addr16::NONE).then(|| end(event.to.src, event.to.sport));
        let ends = [Some(src), Some(dst), went].into_iter().flatten();
        let mut pods: Vec<String> = ends.filter_map(|end| self.pods.get(&end.ip()).cloned()).collect();
        pods.dedup();
        let dropped = event.kind & (kind::DROP | kind::AUDIT) != 0;
        let set = self.tables.rule_set(event.set).unwrap_or_default();
        let denial = set.denials.get(&event.rule).cloned();
        let undecided: Vec<&ObjectName> = set.policies.iter().filter(|_| denial.is_none()).collect();
        let rule = denial.or_else(|| (!undecided.is_empty()).then(|| ISOLATION.to_owned()));
        Shown {
            time: time(event.at),
            kind: kind_name(event.kind).to_owned(),
            hook: hook_name(event.hook).to_owned(),
            device: device(event.ifindex),
            length: event.length,
            reason: dropped.then(|| reason(event.reason)),
            protocol: protocol_name(event.key.proto),
            src,
            dst,
            backend: went.filter(|went| *went != dst),
            hidden_as: from.filter(|from| *from != src),
            service: self.service(tuple.dst, tuple.dport, event.key.proto).map(|name| name.to_string()),
            pods,
            policies: undecided.iter().map(ToString::to_string).collect(),
            rule,
        }
    }

    fn refresh(&mut self, now: Instant) {
        if self.since.is_some_and(|since| now.saturating_duration_since(since) < BELIEF) {
            return;
        }
        self.since = Some(now);
        self.known.clear();
        let pod = |endpoint: &crate::tables::Endpoint| {
            let name = format!("{}/{}", endpoint.pod_namespace, endpoint.pod_name);
            endpoint.addresses.iter().map(move |address| (*address, name.clone())).collect::<Vec<_>>()
        };
        self.pods = self.tables.look(|rows| rows.endpoints.values().flat_map(pod).collect());
    }

    fn service(&mut self, addr: Addr16, port: Be16, proto: u8) -> Option<Arc<str>> {
        if let Some(known) = self.known.get(&(addr, port, proto)) {
            return known.clone();
        }
        let protocol =
            [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|own| own.number() == proto)?;
        // The host may ask for everything that has a name.
        let packet = Packet {
            client: Client::Host,
            src: addr.ip(),
            dst: addr.ip(),
            ask: Ask::Port(protocol, port.host()),
        };
        let here = Here { facts: &self.facts, services: &self.services };
        let name = self.tables.look(|rows| oracle::owner(rows, here, &packet)).map(Arc::from);
        self.known.insert((addr, port, proto), name.clone());
        name
    }
}

fn end(address: Addr16, port: Be16) -> SocketAddr {
    SocketAddr::new(address.ip(), port.host())
}

/// The wall clock's time of a moment of the monotonic clock.
fn time(at: u64) -> String {
    let passed = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map_or(Duration::ZERO, |now| Duration::from(now).saturating_sub(Duration::from_nanos(at)));
    let then = jiff::Timestamp::now() - passed;
    then.strftime("%H:%M:%S%.6f").to_string()
}

fn device(index: u32) -> Option<String> {
    if index == 0 {
        return None;
    }
    let name = nix::net::if_::if_indextoname(index).ok().and_then(|name| name.into_string().ok());
    Some(name.unwrap_or_else(|| format!("device {index}")))
}

fn reason(number: u32) -> String {
    abi::drops::DROPS
        .iter()
        .find(|(own, ..)| *own == number)
        .map_or_else(|| format!("reason {number}"), |(_, name, sentence)| format!("{name}: {sentence}"))
}

fn protocol_name(number: u8) -> String {
    match number {
        1 | 58 => "ICMP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        132 => "SCTP".to_owned(),
        other => format!("protocol {other}"),
    }
}

pub fn kind_name(bit: u32) -> &'static str {
    match bit {
        kind::DROP => "drop",
        kind::BEGUN => "begun",
        kind::ANSWERED => "answered",
        kind::ENDED => "ended",
        kind::SOCKET => "socket",
        kind::AUDIT => "audit",
        _ => "unknown",
    }
}

fn hook_name(number: u32) -> &'static str {
    match number {
        hook::SOCKET => "socket",
        hook::POD_OUT => "pod out",
        hook::POD_IN => "pod in",
        hook::UPLINK_IN => "uplink in",
        hook::UPLINK_OUT => "uplink out",
        hook::XDP => "xdp",
        hook::EXPIRE => "expiry",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use abi::Tuple;
    use abi::drops::Drop;
    use abi::flow::FlowKey;

    use super::*;
    use crate::admin::audit::{Audits, By};
    use crate::tables::policy::RuleSetName;
    use crate::tables::{Service, ServicePort};

    #[test]
    fn names_come_from_the_tables() {
        let tables = Arc::<Tables>::default();
        let service = Service {
            cluster_ips: vec!["10.96.0.10".parse().unwrap()],
            ports: vec![ServicePort { name: "http".into(), port: 80, ..ServicePort::default() }],
            ..Service::default()
        };
        let name = ObjectName { namespace: "shop".into(), name: "web".into() };
        tables.update(|rows| drop(rows.services.insert(name, Arc::new(service))));
        let mut names = Names::new(tables, NodeFacts::default(), Vec::new());
        let key = Tuple {
            src: Addr16::mapped([10, 244, 1, 2]),
            dst: Addr16::mapped([10, 96, 0, 10]),
            sport: Be16::new(40_000),
            dport: Be16::new(80),
        };
        let event = Event {
            kind: kind::DROP,
            reason: Drop::NoBackend as u32,
            hook: hook::POD_OUT,
            key: FlowKey { tuple: key, proto: 6, zero: [0; 3] },
            ..Event::default()
        };
        let shown = names.show(&event, Instant::now());
        assert_eq!(shown.service.as_deref(), Some("shop/web:http"));
        assert_eq!(shown.reason.as_deref(), Some("NoBackend: the service has no backend"));
        assert_eq!(
            (shown.kind.as_str(), shown.hook.as_str(), shown.protocol.as_str()),
            ("drop", "pod out", "TCP")
        );
        assert_eq!((shown.backend, shown.hidden_as), (None, None));
        assert!(shown.policies.is_empty());
        let to = Tuple { src: Addr16::mapped([192, 0, 2, 1]), dst: Addr16::mapped([10, 244, 2, 2]), ..key };
        let begun = names.show(&Event { kind: kind::BEGUN, to, ..event }, Instant::now());
        assert_eq!(begun.backend.map(|to| to.to_string()).as_deref(), Some("10.244.2.2:80"));
        assert_eq!(begun.hidden_as.map(|to| to.to_string()).as_deref(), Some("192.0.2.1:40000"));
        assert_eq!(begun.reason, None);
    }

    #[test]
    fn what_is_audited_names_the_policies_that_would_have_dropped_it() {
        let tables = Arc::<Tables>::default();
        let name = |name: &str| ObjectName { namespace: "shop".into(), name: name.into() };
        tables.name_rule_sets([7].into_iter(), |_| RuleSetName {
            policies: vec![name("few"), name("none")],
            denials: [(9, "guard rule 2".to_owned())].into(),
        });
        let mut names = Names::new(Arc::clone(&tables), NodeFacts::default(), Vec::new());
        let event =
            Event { kind: kind::AUDIT, reason: Drop::PolicyIngress as u32, set: 7, ..Event::default() };
        let shown = names.show(&event, Instant::now());
        assert_eq!(
            (shown.kind.as_str(), &shown.policies[..], shown.rule.as_deref()),
            ("audit", &["shop/few".into(), "shop/none".into()][..], Some(ISOLATION))
        );
        let audits = Audits::default();
        audits.count(&shown);
        audits.count(&shown);
        let by_rule = names.show(&Event { rule: 9, ..event }, Instant::now());
        assert_eq!((by_rule.rule.as_deref(), by_rule.policies.len()), (Some("guard rule 2"), 0));
        audits.count(&by_rule);
        let by = |policies: &str, rule: &str| By {
            direction: "PolicyIngress".to_owned(),
            policies: policies.to_owned(),
            rule: rule.to_owned(),
        };
        let want = [(by("", "guard rule 2"), 1), (by("shop/few,shop/none", ISOLATION), 2)];
        assert_eq!(audits.counts().into_iter().collect::<Vec<_>>(), want);
        tables.name_rule_sets(std::iter::empty(), |_| RuleSetName::default());
        let shown = names.show(&event, Instant::now());
        assert!(shown.policies.is_empty() && shown.rule.is_none(), "a set that is gone has no name");
    }
}
