//! ClusterNetworkPolicies (`policy.networking.k8s.io`, `v1alpha2` and `v1beta1`) into rows. A rule that cannot be understood fails closed, as its
//! API asks: one that accepts fits nothing, one that denies or passes denies everything. Its owner is told.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use super::decode::{About, Context, object_name, port, uid};
use super::objects;
use super::policy::{Wrong, prefix, selector};
use crate::tables::Protocol;
use crate::tables::policy::{Action, ClusterPolicy, ClusterRule, Peer, Ports, Rule, Selector, Tier};

/// Why something is not understood.
#[derive(Debug, Error)]
enum Misread {
    /// What it says makes no sense.
    #[error("{0}")]
    Meaning(Wrong),
    /// Its fields are not those that are known.
    #[error(transparent)]
    Shape(#[from] serde_json::Error),
}

impl From<Wrong> for Misread {
    fn from(wrong: Wrong) -> Self {
        Self::Meaning(wrong)
    }
}

/// The greatest priority there is.
const LAST: i64 = 1000;

/// Fields with a name that is not known here may ask for more than is understood: such a rule is not.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenRule {
    name: Option<String>,
    #[serde(rename = "action")]
    _action: Value,
    from: Option<Vec<GivenPeer>>,
    to: Option<Vec<GivenPeer>>,
    #[serde(default)]
    protocols: Vec<GivenProtocol>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenPeer {
    namespaces: Option<LabelSelector>,
    pods: Option<GivenPods>,
    networks: Option<Vec<String>>,
    nodes: Option<LabelSelector>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct GivenPods {
    /// Optional since v1beta1: without it, all namespaces.
    #[serde(default)]
    namespace_selector: LabelSelector,
    pod_selector: LabelSelector,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GivenSubject {
    namespaces: Option<LabelSelector>,
    pods: Option<GivenPods>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct GivenProtocol {
    tcp: Option<GivenPort>,
    udp: Option<GivenPort>,
    sctp: Option<GivenPort>,
    destination_named_port: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct GivenPort {
    destination_port: Option<Numbers>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Numbers {
    number: Option<i64>,
    range: Option<Range>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Range {
    start: i64,
    end: i64,
}

/// A direction, with the name of the field of its peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Ingress,
    Egress,
}

/// A ClusterNetworkPolicy.
pub fn cluster_policy(object: objects::ClusterNetworkPolicy, context: &mut Context) -> ClusterPolicy {
    let mut said = Vec::new();
    let mut about = About {
        kind: "ClusterNetworkPolicy",
        object: object_name(&object),
        uid: uid(&object),
        complaints: &mut said,
    };
    let spec = object.spec;
    let mut row = head(&spec, context).unwrap_or_else(|wrong| {
        let effect = "the policy is about all pods, before all others, and only what it denies counts";
        about.say("InvalidPolicy", format!("{wrong}; {effect}"));
        ClusterPolicy {
            tier: Tier::Admin,
            priority: 0,
            namespaces: Selector::default(),
            pods: Selector::default(),
            ingress: Vec::new(),
            egress: Vec::new(),
        }
    });
    let is_trusted = about.complaints.is_empty();
    row.ingress = rules(Direction::Ingress, &spec, context, &mut about);
    row.egress = rules(Direction::Egress, &spec, context, &mut about);
    if !is_trusted {
        row.ingress.retain(|rule| rule.action == Action::Deny);
        row.egress.retain(|rule| rule.action == Action::Deny);
    }
    context.complaints.append(&mut said);
    row
}

/// Everything but the rules.
fn head(spec: &Value, context: &mut Context) -> Result<ClusterPolicy, Wrong> {
    let tier = match spec["tier"].as_str() {
        Some("Admin") => Tier::Admin,
        Some("Baseline") => Tier::Baseline,
        _ => return Err(format!("spec.tier: {} is unknown", spec["tier"])),
    };
    let given = &spec["priority"];
    let priority = given.as_i64().filter(|number| (0..=LAST).contains(number));
    let priority = priority.ok_or_else(|| format!("spec.priority: {given} is not between 0 and {LAST}"))?;
    let (namespaces, pods) =
        subject(&spec["subject"], context).map_err(|wrong| format!("spec.subject: {wrong}"))?;
    let (ingress, egress) = (Vec::new(), Vec::new());
    Ok(ClusterPolicy { tier, priority: priority as u16, namespaces, pods, ingress, egress })
}

fn subject(given: &Value, context: &mut Context) -> Result<(Selector, Selector), Misread> {
    let given = GivenSubject::deserialize(given)?;
    match (given.namespaces, given.pods) {
        (Some(labels), None) => Ok((selector(labels, context)?, Selector::default())),
        (None, Some(given)) => Ok(pods(given, context)?),
        (Some(_), Some(_)) => Err("there are both namespaces and pods".to_owned().into()),
        (None, None) => Err("there are neither namespaces nor pods".to_owned().into()),
    }
}

/// Labels of namespaces, and of their pods.
fn pods(given: GivenPods, context: &mut Context) -> Result<(Selector, Selector), Wrong> {
    let namespaces = selector(given.namespace_selector, context);
    let namespaces = namespaces.map_err(|wrong| format!("pods.namespaceSelector: {wrong}"))?;
    let pods = selector(given.pod_selector, context);
    Ok((namespaces, pods.map_err(|wrong| format!("pods.podSelector: {wrong}"))?))
}

fn rules(
    direction: Direction,
    spec: &Value,
    context: &mut Context,
    about: &mut About<'_>,
) -> Vec<ClusterRule> {
    let field = match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    };
    let given = match &spec[field] {
        Value::Array(given) => given.as_slice(),
        Value::Null => &[],
        // Whatever stands there, it may be a denial.
        other => std::slice::from_ref(other),
    };
    let mut rules = Vec::new();
    for (index, given) in (0..u16::MAX).zip(given) {
        match rule(direction, index, given, context) {
            Ok(rule) => rules.push(rule),
            Err(wrong) if given["action"] == "Accept" => {
                about.say(
                    "InvalidPolicy",
                    format!("spec.{field}[{index}]: {wrong}; the rule accepts nothing"),
                );
            }
            Err(wrong) => {
                about.say(
                    "InvalidPolicy",
                    format!("spec.{field}[{index}]: {wrong}; the rule denies everything"),
                );
                let fits = Rule { index, peers: None, ports: None };
                rules.push(ClusterRule { fits, action: Action::Deny, name: None });
            }
        }
    }
    rules
}

fn rule(
    direction: Direction,
    index: u16,
    given: &Value,
    context: &mut Context,
) -> Result<ClusterRule, Misread> {
    let action = match given["action"].as_str() {
        Some("Accept") => Action::Accept,
        Some("Deny") => Action::Deny,
        Some("Pass") => Action::Pass,
        _ => return Err(format!("action: {} is unknown", given["action"]).into()),
    };
    let given = GivenRule::deserialize(given)?;
    let (field, given_peers) = match (direction, given.from, given.to) {
        (Direction::Ingress, Some(from), None) => ("from", from),
        (Direction::Egress, None, Some(to)) => ("to", to),
        (Direction::Ingress, ..) => {
            return Err("from: there have to be peers, and no others".to_owned().into());
        }
        (Direction::Egress, ..) => return Err("to: there have to be peers, and no others".to_owned().into()),
    };
    if given_peers.is_empty() {
        return Err(format!("{field}: there has to be one peer at least").into());
    }
    let mut peers = Vec::new();
    for (at, one) in given_peers.into_iter().enumerate() {
        let read = peer(direction, one, context).map_err(|wrong| format!("{field}[{at}]: {wrong}"))?;
        peers.extend(read);
    }
    let ports = ports(given.protocols, context)?;
    let name = given.name.as_deref().map(|name| context.name(name));
    Ok(ClusterRule { fits: Rule { index, peers: Some(peers), ports }, action, name })
}

fn peer(direction: Direction, given: GivenPeer, context: &mut Context) -> Result<Vec<Peer>, Wrong> {
    let is_egress = direction == Direction::Egress;
    let (namespaces, pods) = match (given.namespaces, given.pods, given.networks, given.nodes) {
        (Some(labels), None, None, None) => (selector(labels, context)?, Selector::default()),
        (None, Some(given), None, None) => pods(given, context)?,
        (None, None, Some(networks), None) if is_egress => return blocks(&networks),
        (None, None, Some(_), None) => return Err("networks are for egress only".to_owned()),
        (None, None, None, Some(labels)) if is_egress => {
            let labels = selector(labels, context).map_err(|wrong| format!("nodes: {wrong}"))?;
            return Ok(vec![Peer::Nodes(labels)]);
        }
        (None, None, None, Some(_)) => return Err("nodes are for egress only".to_owned()),
        (None, None, None, None) => return Err("there is no kind of peer that is known".to_owned()),
        _ => return Err("there is more than one kind of peer".to_owned()),
    };
    Ok(vec![Peer::Pods { namespaces: Some(namespaces), pods }])
}

fn blocks(networks: &[String]) -> Result<Vec<Peer>, Wrong> {
    if networks.is_empty() {
        return Err("networks: there is none".to_owned());
    }
    let block = |text: &String| {
        let cidr = prefix(text).ok_or_else(|| format!("networks: {text:?} is no prefix"))?;
        Ok(Peer::Block { cidr, except: [].into() })
    };
    networks.iter().map(block).collect()
}

/// Absent and empty mean everything.
fn ports(given: Vec<GivenProtocol>, context: &mut Context) -> Result<Option<Vec<Ports>>, Wrong> {
    let mut all = Vec::new();
    for (at, one) in given.into_iter().enumerate() {
        let wrong = |wrong: Wrong| format!("protocols[{at}]: {wrong}");
        match (one.tcp, one.udp, one.sctp, one.destination_named_port) {
            (Some(given), None, None, None) => all.push(range(Protocol::Tcp, given).map_err(wrong)?),
            (None, Some(given), None, None) => all.push(range(Protocol::Udp, given).map_err(wrong)?),
            (None, None, Some(given), None) => all.push(range(Protocol::Sctp, given).map_err(wrong)?),
            // A name without a protocol: whatever the container says.
            (None, None, None, Some(name)) if !name.is_empty() => {
                let name = context.name(&name);
                let named = |protocol| Ports::Named(protocol, name.clone());
                all.extend([Protocol::Tcp, Protocol::Udp, Protocol::Sctp].map(named));
            }
            _ => return Err(wrong("there has to be one of tcp, udp, sctp, destinationNamedPort".to_owned())),
        }
    }
    Ok((!all.is_empty()).then_some(all))
}

fn range(protocol: Protocol, given: GivenPort) -> Result<Ports, Wrong> {
    let number = |given: i64| {
        port(given).ok_or_else(|| format!("destinationPort: {given} is not between 1 and 65535"))
    };
    let Some(numbers) = given.destination_port else { return Ok(Ports::Range(protocol, 0, u16::MAX)) };
    match (numbers.number, numbers.range) {
        (Some(given), None) => number(given).map(|port| Ports::Range(protocol, port, port)),
        (None, Some(Range { start, end })) if start <= end => {
            Ok(Ports::Range(protocol, number(start)?, number(end)?))
        }
        (None, Some(Range { start, end })) => {
            Err(format!("destinationPort.range: {end} is less than {start}"))
        }
        _ => Err("destinationPort: there has to be either a number or a range".to_owned()),
    }
}

#[cfg(test)]
mod tests;
