//! `healthCheckNodePort`: load balancers ask each node whether a Service with `externalTrafficPolicy: Local` has backends
//! there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::proxy::Proxy;
use crate::desired::{NodeFacts, NodePortAddresses};
use crate::plain_http::{self, Reply};
use crate::tables::{Complaint, ObjectName, Snapshot, Tables};

/// Changes within this time are looked at once.
const PAUSE: Duration = Duration::from_millis(200);

/// A Service's port for health checks, and how many of its ready endpoints are on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The Service.
    pub service: ObjectName,
    /// Ready endpoints here, by address.
    pub endpoints: usize,
}

/// A check per address and port.
pub type Checks = BTreeMap<SocketAddr, Check>;

/// Every check this node answers; pure.
pub fn checks(rows: &Snapshot, facts: &NodeFacts) -> Checks {
    let wanted: BTreeMap<&ObjectName, u16> = rows
        .services
        .iter()
        .filter(|(_, service)| service.external_local && !service.cluster_ips.is_empty())
        .filter_map(|(name, service)| Some((name, service.health_check_node_port?)))
        .collect();
    if wanted.is_empty() {
        return Checks::new();
    }
    let mut here: BTreeMap<ObjectName, BTreeSet<IpAddr>> = BTreeMap::new();
    for (name, slice) in &rows.slices {
        let service = ObjectName { namespace: name.namespace.clone(), name: slice.service.clone() };
        if wanted.contains_key(&service) {
            let own = slice
                .endpoints
                .iter()
                .filter(|endpoint| endpoint.ready && endpoint.node.as_deref() == Some(facts.name.as_str()));
            here.entry(service).or_default().extend(own.map(|endpoint| endpoint.address));
        }
    }
    let addresses = addresses(rows, facts);
    let mut checks = Checks::new();
    for (name, port) in wanted {
        let check = Check { service: name.clone(), endpoints: here.get(name).map_or(0, BTreeSet::len) };
        for address in &addresses {
            // Two Services cannot have one port; should they, the first keeps it.
            checks.entry(SocketAddr::new(*address, port)).or_insert_with(|| check.clone());
        }
    }
    checks
}

fn addresses(rows: &Snapshot, facts: &NodeFacts) -> BTreeSet<IpAddr> {
    match &facts.nodeport {
        NodePortAddresses::Primary => facts.addresses.iter().copied().collect(),
        NodePortAddresses::Within(prefixes) => {
            let is_inside = |address: &IpAddr| prefixes.iter().any(|prefix| prefix.contains(*address));
            rows.host_addresses.iter().copied().filter(is_inside).collect()
        }
    }
}

/// The answer of one check.
pub fn answer(check: &Check, proxy_serves: bool) -> Reply {
    let well = check.endpoints > 0 && proxy_serves;
    let status = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::json!({
        "service": { "namespace": check.service.namespace, "name": check.service.name },
        "localEndpoints": check.endpoints,
        "serviceProxyHealthy": proxy_serves,
    });
    let mut reply = Reply::json(status, body.to_string());
    reply.headers.push(("x-load-balancing-endpoint-weight", check.endpoints.to_string()));
    reply
}

/// Serves all checks, and follows the tables, until `stop`.
pub async fn run(tables: Arc<Tables>, facts: NodeFacts, proxy: Arc<Proxy>, stop: CancellationToken) {
    let mut changes = tables.changes();
    let mut serving: BTreeMap<SocketAddr, (watch::Sender<Check>, CancellationToken)> = BTreeMap::new();
    loop {
        let wanted = tables.look(|rows| checks(rows, &facts));
        serving.retain(|address, (_, server)| {
            let stays = wanted.contains_key(address);
            if !stays {
                server.cancel();
            }
            stays
        });
        for (address, check) in wanted {
            let (current, _) = serving.entry(address).or_insert_with(|| {
                start(address, check.clone(), &tables, Arc::clone(&proxy), stop.child_token())
            });
            current.send_if_modified(|known| std::mem::replace(known, check.clone()) != check);
        }
        let changed = tokio::select! {
            changed = changes.changed() => changed,
            () = stop.cancelled() => return,
        };
        if changed.is_err() {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Serves one check as soon as its port can be had; its owner is told when that is not at once.
fn start(
    address: SocketAddr,
    check: Check,
    tables: &Arc<Tables>,
    proxy: Arc<Proxy>,
    stop: CancellationToken,
) -> (watch::Sender<Check>, CancellationToken) {
    let object = check.service.clone();
    let (current, seen) = watch::channel(check);
    let reply = move |_: String| {
        let reply = answer(&seen.borrow(), proxy.serves());
        async move { reply }
    };
    let (tables, server) = (Arc::clone(tables), stop.clone());
    tokio::spawn(async move {
        let tell = |error: &std::io::Error| {
            let message =
                format!("port {address} for health checks cannot be opened, it is tried again: {error}");
            let reason = "HealthCheckNodePort";
            tables.complain(Complaint { kind: "Service", object, uid: 0, reason, message });
        };
        if let Some(listener) = plain_http::listen(address, tell, &server).await {
            plain_http::serve(listener, reply, server).await;
        }
    });
    (current, stop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::pulse::Pulse;
    use crate::tables::{Service, Slice, SliceEndpoint, Source};

    fn rows(endpoints: &[(&str, bool, &str)]) -> Snapshot {
        let name = ObjectName { namespace: "shop".into(), name: "web".into() };
        let endpoint = |(address, ready, node): &(&str, bool, &str)| SliceEndpoint {
            ready: *ready,
            node: Some((*node).into()),
            ..SliceEndpoint::new(address.parse().unwrap())
        };
        let service = Service {
            cluster_ips: vec!["10.96.0.10".parse().unwrap()],
            external_local: true,
            health_check_node_port: Some(32000),
            ..Service::default()
        };
        let slice = Slice {
            service: "web".into(),
            endpoints: endpoints.iter().map(endpoint).collect(),
            ports: Vec::new(),
        };
        let mut rows = Snapshot::default();
        rows.services.insert(name.clone(), Arc::new(service));
        rows.slices.insert(name, Arc::new(slice));
        rows
    }

    fn facts() -> NodeFacts {
        NodeFacts { name: "n1".into(), addresses: vec!["192.0.2.1".parse().unwrap()], ..NodeFacts::default() }
    }

    #[test]
    fn ready_endpoints_of_this_node_count_once() {
        let rows = rows(&[
            ("10.0.0.1", true, "n1"),
            ("10.0.0.1", true, "n1"),
            ("10.0.0.2", false, "n1"),
            ("10.0.0.3", true, "n2"),
        ]);
        let checks = checks(&rows, &facts());
        let (address, check) = checks.first_key_value().unwrap();
        assert_eq!((address.to_string().as_str(), check.endpoints), ("192.0.2.1:32000", 1));
    }

    #[test]
    fn the_port_is_open_on_the_addresses_of_node_ports() {
        let mut rows = rows(&[]);
        rows.host_addresses = ["192.0.2.1", "172.16.0.1"].map(|address| address.parse().unwrap()).into();
        let within = NodePortAddresses::Within(vec!["172.16.0.0/12".parse().unwrap()]);
        let checks = checks(&rows, &NodeFacts { nodeport: within, ..facts() });
        assert_eq!(checks.keys().map(ToString::to_string).collect::<Vec<_>>(), ["172.16.0.1:32000"]);
    }

    #[test]
    fn the_cluster_wide_policy_has_no_check() {
        let mut rows = rows(&[]);
        for service in rows.services.values_mut() {
            Arc::make_mut(service).external_local = false;
        }
        assert!(checks(&rows, &facts()).is_empty());
    }

    #[test]
    fn the_answer_is_upstreams() {
        let check = |endpoints| Check {
            service: ObjectName { namespace: "shop".into(), name: "web".into() },
            endpoints,
        };
        let reply = answer(&check(2), true);
        assert_eq!(reply.status, StatusCode::OK);
        assert_eq!(
            reply.body,
            r#"{"service":{"namespace":"shop","name":"web"},"localEndpoints":2,"serviceProxyHealthy":true}"#
        );
        assert!(reply.headers.contains(&("x-load-balancing-endpoint-weight", "2".to_owned())));
        assert_eq!(answer(&check(0), true).status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer(&check(2), false).status, StatusCode::SERVICE_UNAVAILABLE);
    }

    /// A proxy whose first round is over.
    fn serving(tables: &Arc<Tables>) -> Arc<Proxy> {
        let pulse = Arc::<Pulse>::default();
        [Source::Services, Source::Slices].into_iter().for_each(|source| tables.synced(source));
        pulse.taken(tables, std::time::Instant::now());
        pulse.done(std::time::Instant::now(), crate::health::pulse::Summary::default());
        Arc::new(Proxy::new(pulse, Arc::clone(tables), "n1".into()))
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_complained_about_once_and_opened_when_it_is_free() {
        let (tables, stop) = (Arc::<Tables>::default(), CancellationToken::new());
        let mut complaints = tables.complaints().unwrap();
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let service = ObjectName { namespace: "shop".into(), name: "web".into() };
        let check = Check { service: service.clone(), endpoints: 1 };
        start(address, check, &tables, serving(&tables), stop.clone());
        let complaint = complaints.recv().await.unwrap();
        assert_eq!((complaint.reason, complaint.object), ("HealthCheckNodePort", service));
        assert!(complaint.message.contains(&address.to_string()), "{}", complaint.message);
        tokio::time::sleep(2 * plain_http::RETRY).await;
        assert!(complaints.try_recv().is_err(), "said once");
        drop(taken);
        assert_eq!(status(address.port(), 200).await, 200);
        stop.cancel();
    }

    #[tokio::test]
    async fn a_check_follows_the_tables() {
        let (tables, stop) = (Arc::<Tables>::default(), CancellationToken::new());
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let tell = |endpoints: &[(&str, bool, &str)]| {
            let mut told = rows(endpoints);
            for service in told.services.values_mut() {
                Arc::make_mut(service).health_check_node_port = Some(port);
            }
            tables.update(|rows| (rows.services, rows.slices) = (told.services, told.slices));
        };
        let facts = NodeFacts { addresses: vec!["127.0.0.1".parse().unwrap()], ..facts() };
        let proxy = serving(&tables);
        tell(&[]);
        tokio::spawn(run(Arc::clone(&tables), facts, proxy, stop.clone()));
        assert_eq!(status(port, 503).await, 503);
        tell(&[("10.0.0.1", true, "n1")]);
        assert_eq!(status(port, 200).await, 200);
        tables.update(|rows| rows.services.clear());
        assert_eq!(status(port, 0).await, 0, "nobody listens any more");
        stop.cancel();
    }

    /// Asks until the status is `want`, or for five seconds; zero is no answer.
    async fn status(port: u16, want: u16) -> u16 {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut got = u16::MAX;
        for _ in 0..50 {
            got = 0;
            if let Ok(mut stream) = tokio::net::TcpStream::connect(("127.0.0.1", port)).await {
                stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
                let mut text = String::new();
                if stream.read_to_string(&mut text).await.is_ok() {
                    got = text.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
                }
            }
            if got == want {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        got
    }
}
