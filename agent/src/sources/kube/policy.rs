//! NetworkPolicies, Namespaces and all pods into rows. A rule with a field that cannot be used allows nothing, and its owner
//! is told; the rest of the policy works.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::{IpNetwork, Ipv4Network};
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use super::annotations;
use super::decode::{About, Context, object_name, port, protocol, uid};
use super::objects;
use crate::tables;
use crate::tables::policy::{
    ClusterPod, Holds, Labels, NamedPort, Namespace, Peer, Policy, Ports, Requirement, Rule, Selector,
};

/// What is wrong with a field, in words.
pub(super) type Wrong = String;

/// A pod of the cluster.
pub fn cluster_pod(object: objects::Pod, context: &mut Context) -> ClusterPod {
    let uid = uid_for_runtimes(&object);
    let objects::Pod { metadata, spec, status } = object;
    let texts = if status.pod_ips.is_empty() {
        status.pod_ip.into_iter().collect()
    } else {
        status.pod_ips.into_iter().map(|row| row.ip).collect::<Vec<_>>()
    };
    // Sidecars are init containers that go on.
    let sidecars = spec.init_containers.iter().filter(|one| one.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| &container.ports);
    let named = ports.filter_map(|row| {
        let name = row.name.as_deref().filter(|name| !name.is_empty())?;
        let protocol = protocol(row.protocol.as_deref())?;
        Some(NamedPort { name: context.name(name), protocol, port: port(row.container_port)? })
    });
    let mut named: Vec<NamedPort> = named.collect();
    named.sort();
    named.dedup();
    ClusterPod {
        addresses: texts.iter().filter_map(|text| text.parse::<IpAddr>().ok()).collect(),
        ports: context.ports(named),
        labels: context.labels(metadata.labels.unwrap_or_default()),
        host_network: spec.host_network.unwrap_or(false),
        finished: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
        uid,
        created: metadata.creation_timestamp.map_or(0, |time| time.0.as_second()),
    }
}

/// What runtimes call a pod: its unique number, but for the pods of a node's own files, whose objects are made after them.
fn uid_for_runtimes(object: &objects::Pod) -> u128 {
    match object.annotations().get("kubernetes.io/config.hash") {
        Some(hash) => tables::uid(hash),
        None => uid(object),
    }
}

/// A Namespace.
pub fn namespace(object: objects::Namespace, context: &mut Context) -> Namespace {
    let mut about = About {
        kind: "Namespace",
        object: object_name(&object),
        uid: uid(&object),
        complaints: &mut context.complaints,
    };
    let audit = annotations::audit(object.annotations(), &mut about);
    Namespace { labels: context.labels(object.metadata.labels.unwrap_or_default()), audit }
}

/// A NetworkPolicy.
pub fn policy(object: objects::NetworkPolicy, context: &mut Context) -> Policy {
    let mut said = Vec::new();
    let mut about = About {
        kind: "NetworkPolicy",
        object: object_name(&object),
        uid: uid(&object),
        complaints: &mut said,
    };
    let spec = object.spec;
    let kinds = spec.policy_types.unwrap_or_default();
    let (ingress, egress) =
        directions(&kinds, spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()), &mut about);
    let pods = selector(spec.pod_selector.unwrap_or_default(), context);
    let about_nobody = pods.is_err();
    if let Err(wrong) = &pods {
        about.say(
            "InvalidPolicy",
            format!("spec.podSelector: {wrong}; all pods of the namespace are isolated, and no rule counts"),
        );
    }
    let ingress_rules = spec.ingress.unwrap_or_default().into_iter().map(|rule| (rule.from, rule.ports));
    let egress_rules = spec.egress.unwrap_or_default().into_iter().map(|rule| (rule.to, rule.ports));
    let ingress = ingress
        .then(|| rules("ingress", "from", ingress_rules.take(limit(about_nobody)), context, &mut about));
    let egress =
        egress.then(|| rules("egress", "to", egress_rules.take(limit(about_nobody)), context, &mut about));
    context.complaints.append(&mut said);
    Policy { pods: pods.unwrap_or_default(), ingress, egress }
}

/// How many rules of a policy count.
fn limit(about_nobody: bool) -> usize {
    if about_nobody { 0 } else { usize::from(u16::MAX) }
}

/// Which directions a policy is about: without a word, ingress, and egress if it has such rules.
fn directions(kinds: &[String], has_egress: bool, about: &mut About<'_>) -> (bool, bool) {
    if kinds.is_empty() {
        return (true, has_egress);
    }
    if let Some(unknown) = kinds.iter().find(|kind| !matches!(kind.as_str(), "Ingress" | "Egress")) {
        about.say(
            "InvalidPolicy",
            format!("spec.policyTypes: {unknown:?} is unknown and counts as both directions"),
        );
        return (true, true);
    }
    let has = |kind: &str| kinds.iter().any(|one| one == kind);
    (has("Ingress"), has("Egress"))
}

type Parts = (Option<Vec<NetworkPolicyPeer>>, Option<Vec<NetworkPolicyPort>>);

fn rules(
    direction: &str,
    peers_field: &str,
    given: impl Iterator<Item = Parts>,
    context: &mut Context,
    about: &mut About<'_>,
) -> Vec<Rule> {
    let mut rules = Vec::new();
    for (index, (given_peers, given_ports)) in (0..).zip(given) {
        let place = format!("spec.{direction}[{index}]");
        let read = peers(given_peers.unwrap_or_default(), context)
            .map_err(|(at, wrong)| format!("{place}.{peers_field}[{at}].{wrong}"))
            .and_then(|peers| {
                let ports = ports(given_ports.unwrap_or_default(), context);
                Ok((peers, ports.map_err(|(at, wrong)| format!("{place}.ports[{at}].{wrong}"))?))
            });
        match read {
            Ok((peers, ports)) => rules.push(Rule { index, peers, ports }),
            Err(wrong) => about.say("InvalidPolicy", format!("{wrong}; the rule allows nothing")),
        }
    }
    rules
}

/// Absent and empty mean everybody.
fn peers(given: Vec<NetworkPolicyPeer>, context: &mut Context) -> Result<Option<Vec<Peer>>, (usize, Wrong)> {
    if given.is_empty() {
        return Ok(None);
    }
    let read = given.into_iter().enumerate().map(|(at, one)| peer(one, context).map_err(|wrong| (at, wrong)));
    read.collect::<Result<Vec<_>, _>>().map(Some)
}

fn peer(given: NetworkPolicyPeer, context: &mut Context) -> Result<Peer, Wrong> {
    let NetworkPolicyPeer { ip_block, namespace_selector, pod_selector } = given;
    match (ip_block, namespace_selector, pod_selector) {
        (Some(given), None, None) => block(&given),
        (Some(_), _, _) => Err("ipBlock: stands beside a selector".to_owned()),
        (None, None, None) => Err("ipBlock: there is neither a block nor a selector".to_owned()),
        (None, namespaces, pods) => Ok(Peer::Pods {
            namespaces: namespaces
                .map(|given| selector(given, context).map_err(|wrong| format!("namespaceSelector: {wrong}")))
                .transpose()?,
            pods: selector(pods.unwrap_or_default(), context)
                .map_err(|wrong| format!("podSelector: {wrong}"))?,
        }),
    }
}

fn block(given: &IPBlock) -> Result<Peer, Wrong> {
    let cidr = prefix(&given.cidr).ok_or_else(|| format!("ipBlock.cidr: {:?} is no prefix", given.cidr))?;
    let mut except = BTreeSet::new();
    for text in given.except.iter().flatten() {
        let network = prefix(text).ok_or_else(|| format!("ipBlock.except: {text:?} is no prefix"))?;
        let is_inside = network.is_ipv4() == cidr.is_ipv4()
            && network.prefix() > cidr.prefix()
            && cidr.contains(network.network());
        if !is_inside {
            return Err(format!("ipBlock.except: {text} is not inside {}", given.cidr));
        }
        except.insert(network);
    }
    Ok(Peer::Block { cidr, except })
}

/// The network a text names; bits of hosts are ignored, as the API server allows them.
pub(super) fn prefix(text: &str) -> Option<IpNetwork> {
    let (address, length) = text.split_once('/')?;
    let length: u8 = length.parse().ok().filter(|_| length.bytes().all(|byte| byte.is_ascii_digit()))?;
    let address: IpAddr = address.parse().ok()?;
    let network = match address {
        // IPv4 written as IPv6 is IPv4.
        IpAddr::V6(v6) if length >= 96 && v6.to_ipv4_mapped().is_some() => {
            Ipv4Network::new(v6.to_ipv4_mapped()?, length - 96).ok()?.into()
        }
        address => IpNetwork::new(address, length).ok()?,
    };
    IpNetwork::new(network.network(), network.prefix()).ok()
}

/// Absent and empty mean every port.
fn ports(given: Vec<NetworkPolicyPort>, context: &mut Context) -> Result<Option<Vec<Ports>>, (usize, Wrong)> {
    if given.is_empty() {
        return Ok(None);
    }
    let read = given.iter().enumerate().map(|(at, one)| one_port(one, context).map_err(|wrong| (at, wrong)));
    read.collect::<Result<Vec<_>, _>>().map(Some)
}

fn one_port(given: &NetworkPolicyPort, context: &mut Context) -> Result<Ports, Wrong> {
    let named = given.protocol.as_deref();
    let protocol =
        protocol(named).ok_or_else(|| format!("protocol: {:?} is unknown", named.unwrap_or_default()))?;
    let number = |field: &str, number: i32| {
        port(number.into()).ok_or_else(|| format!("{field}: {number} is not between 1 and 65535"))
    };
    match (&given.port, given.end_port) {
        (None, None) => Ok(Ports::Range(protocol, 0, u16::MAX)),
        (None, Some(_)) => Err("endPort: there is no port to begin with".to_owned()),
        (Some(IntOrString::String(_)), Some(_)) => Err("endPort: a port with a name has no end".to_owned()),
        (Some(IntOrString::String(name)), None) if name.is_empty() => {
            Err("port: the name is empty".to_owned())
        }
        (Some(IntOrString::String(name)), None) => Ok(Ports::Named(protocol, context.name(name))),
        (Some(IntOrString::Int(first)), end) => {
            let first = number("port", *first)?;
            let last = end.map_or(Ok(first), |end| number("endPort", end))?;
            if last < first {
                return Err(format!("endPort: {last} is less than {first}"));
            }
            Ok(Ports::Range(protocol, first, last))
        }
    }
}

pub(super) fn selector(given: LabelSelector, context: &mut Context) -> Result<Selector, Wrong> {
    let mut requirements = BTreeSet::new();
    for (key, value) in given.match_labels.unwrap_or_default() {
        let holds = Holds::In([context.name(&value)].into());
        requirements.insert(Requirement { key: context.name(&key), holds });
    }
    for expression in given.match_expressions.unwrap_or_default() {
        requirements.insert(requirement(&expression, context)?);
    }
    Ok(Selector { requirements })
}

fn requirement(given: &LabelSelectorRequirement, context: &mut Context) -> Result<Requirement, Wrong> {
    let key = context.name(&given.key);
    let texts = given.values.iter().flatten();
    let values: BTreeSet<Arc<str>> = texts.map(|value| context.name(value)).collect();
    let holds = match (given.operator.as_str(), values.is_empty()) {
        ("In", false) => Holds::In(values),
        ("NotIn", false) => Holds::NotIn(values),
        ("In" | "NotIn", true) => return Err(format!("{} {} has no values", given.key, given.operator)),
        ("Exists", true) => Holds::Exists,
        ("DoesNotExist", true) => Holds::DoesNotExist,
        ("Exists" | "DoesNotExist", false) => {
            return Err(format!("{} {} has values", given.key, given.operator));
        }
        (unknown, _) => return Err(format!("operator {unknown:?} is unknown")),
    };
    Ok(Requirement { key, holds })
}

impl Context {
    /// Labels that are in memory once.
    pub(super) fn labels(&mut self, given: BTreeMap<String, String>) -> Arc<Labels> {
        let labels: Labels = given.iter().map(|(key, value)| (self.name(key), self.name(value))).collect();
        self.label_sets.of(Arc::new(labels))
    }

    /// Ports that are in memory once.
    fn ports(&mut self, given: Vec<NamedPort>) -> Arc<[NamedPort]> {
        self.port_sets.of(given)
    }
}

#[cfg(test)]
mod tests;
