//! From words to a packet.

use std::net::{IpAddr, SocketAddr};

use super::{Question, Unexplained, is_host};
use crate::desired::NodeFacts;
use crate::desired::endpoints::attachment;
use crate::oracle::{Ask, Client, Packet};
use crate::tables::{Endpoint, ObjectName, Snapshot};

/// The packet that is asked about, and who sends it.
pub fn packet(
    rows: &Snapshot,
    facts: &NodeFacts,
    question: &Question,
) -> Result<(Packet, String), Unexplained> {
    let wrong_source = || Unexplained::Source(question.src.clone());
    let sources = sources(rows, facts, &question.src).ok_or_else(wrong_source)?;
    let any = sources.first().ok_or_else(wrong_source)?;
    let (dst, ask) = destination(rows, question, |v4| sources.iter().any(|own| own.is_ipv4() == v4))
        .ok_or_else(|| Unexplained::Destination(question.dst.clone()))?;
    let src = *sources
        .iter()
        .find(|own| own.is_ipv4() == dst.is_ipv4())
        .ok_or(Unexplained::Families { src: *any, dst })?;
    let (client, who) = client(rows, facts, src);
    Ok((Packet { client, src, dst, ask }, who))
}

/// The link of the local pod that has an address.
pub fn link(rows: &Snapshot, facts: &NodeFacts, address: IpAddr) -> Option<String> {
    pod(rows, address).map(|pod| attachment(pod, facts.mtu).host_link)
}

fn pod(rows: &Snapshot, address: IpAddr) -> Option<&Endpoint> {
    rows.endpoints.values().find(|endpoint| endpoint.addresses.contains(&address))
}

fn sources(rows: &Snapshot, facts: &NodeFacts, word: &str) -> Option<Vec<IpAddr>> {
    if word == "host" {
        return Some(facts.addresses.clone());
    }
    if let Ok(address) = word.parse() {
        return Some(vec![address]);
    }
    let (namespace, name) = word.split_once('/')?;
    let own = |pod: &&Endpoint| pod.pod_namespace == namespace && pod.pod_name == name;
    Some(rows.endpoints.values().find(own)?.addresses.clone())
}

fn destination(rows: &Snapshot, question: &Question, has: impl Fn(bool) -> bool) -> Option<(IpAddr, Ask)> {
    if let Ok(to) = question.dst.parse::<SocketAddr>() {
        return Some((to.ip(), Ask::Port(question.protocol, to.port())));
    }
    if let Ok(to) = question.dst.trim_matches(['[', ']']).parse() {
        return Some((to, Ask::Echo));
    }
    let (service, port) = question.dst.rsplit_once(':')?;
    let (namespace, name) = service.split_once('/')?;
    let name = ObjectName { namespace: namespace.to_owned(), name: name.to_owned() };
    let service = rows.services.get(&name)?;
    let address = *service.cluster_ips.iter().find(|own| has(own.is_ipv4()))?;
    let is_asked = |own: &&crate::tables::ServicePort| {
        own.protocol == question.protocol && (own.name == port || own.port.to_string() == port)
    };
    let port = service.ports.iter().find(is_asked)?.port;
    Some((address, Ask::Port(question.protocol, port)))
}

fn client(rows: &Snapshot, facts: &NodeFacts, src: IpAddr) -> (Client, String) {
    if let Some(pod) = pod(rows, src) {
        return (Client::Pod, format!("pod {}/{} of this node", pod.pod_namespace, pod.pod_name));
    }
    if is_host(rows, facts, src) {
        return (Client::Host, "this host".to_owned());
    }
    (Client::Outside, "somebody behind an uplink".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::tables::{Protocol, Service, ServicePort};

    fn world() -> (Snapshot, NodeFacts) {
        let mut rows = Snapshot::default();
        let pod = Endpoint {
            container_id: "c".into(),
            ifname: "eth0".into(),
            netns_path: "/proc/1/ns/net".into(),
            pod_namespace: "shop".into(),
            pod_name: "client".into(),
            addresses: vec!["10.244.1.2".parse().unwrap(), "fd00:244::2".parse().unwrap()],
            ..Endpoint::default()
        };
        rows.endpoints.insert(pod.id(), pod);
        let service = Service {
            cluster_ips: vec!["fd00:96::a".parse().unwrap(), "10.96.0.10".parse().unwrap()],
            ports: vec![ServicePort { name: "http".into(), port: 80, ..ServicePort::default() }],
            ..Service::default()
        };
        rows.services.insert(ObjectName { namespace: "shop".into(), name: "web".into() }, Arc::new(service));
        let facts = NodeFacts { addresses: vec!["192.0.2.1".parse().unwrap()], ..NodeFacts::default() };
        (rows, facts)
    }

    fn asked(src: &str, dst: &str) -> Result<(Packet, String), String> {
        let (rows, facts) = world();
        let question = Question { src: src.into(), dst: dst.into(), protocol: Protocol::Tcp };
        packet(&rows, &facts, &question).map_err(|error| error.to_string())
    }

    #[test]
    fn pods_services_and_addresses_are_understood() {
        let to = |packet: &Packet| (packet.src.to_string(), packet.dst.to_string(), packet.ask);
        let http = Ask::Port(Protocol::Tcp, 80);
        let (packet, who) = asked("shop/client", "shop/web:http").unwrap();
        assert_eq!(to(&packet), ("fd00:244::2".into(), "fd00:96::a".into(), http));
        assert_eq!((packet.client, who.as_str()), (Client::Pod, "pod shop/client of this node"));
        let (packet, _) = asked("host", "shop/web:80").unwrap();
        assert_eq!(to(&packet), ("192.0.2.1".into(), "10.96.0.10".into(), http), "in the host's one family");
        assert_eq!(packet.client, Client::Host);
        let (packet, _) = asked("192.0.2.9", "10.96.0.10").unwrap();
        assert_eq!((packet.client, packet.ask), (Client::Outside, Ask::Echo));
        assert_eq!(asked("fd00:244::2", "[fd00:96::a]:80").unwrap().0.ask, http);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        assert!(asked("shop/nobody", "10.96.0.10:80").unwrap_err().starts_with("shop/nobody is neither"));
        assert!(asked("host", "shop/web:443").unwrap_err().starts_with("shop/web:443 is neither"));
        assert_eq!(
            asked("10.244.1.2", "[fd00:96::a]:80").unwrap_err(),
            "10.244.1.2 and fd00:96::a are of different families"
        );
    }
}
