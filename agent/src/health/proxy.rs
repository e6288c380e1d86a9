//! `/healthz` and `/livez` as kube-proxy answers them: the first also says whether the node stays in the cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use http::StatusCode;
use jiff::Timestamp;

use super::pulse::Pulse;
use crate::plain_http::Reply;
use crate::tables::Tables;

/// The proxy's health.
#[derive(Debug)]
pub struct Proxy {
    pulse: Arc<Pulse>,
    tables: Arc<Tables>,
    node: String,
    /// Answers so far.
    pub counts: Counts,
}

/// How often which answer was given.
#[derive(Debug, Default)]
pub struct Counts {
    /// `/healthz`: well, ill.
    pub healthz: [AtomicU64; 2],
    /// `/livez`: well, ill.
    pub livez: [AtomicU64; 2],
}

impl Proxy {
    /// Of the node with this name.
    pub fn new(pulse: Arc<Pulse>, tables: Arc<Tables>, node: String) -> Self {
        Self { pulse, tables, node, counts: Counts::default() }
    }

    /// Whether changes reach the kernel, whatever becomes of the node.
    pub fn is_well(&self) -> bool {
        self.pulse.is_well(Instant::now())
    }

    /// Whether services are served: all were in the kernel once, and changes reach it.
    pub fn serves(&self) -> bool {
        self.pulse.has_served() && self.is_well()
    }

    /// The answer for a path.
    pub fn answer(&self, path: &str) -> Reply {
        match path {
            "/healthz" => {
                // A node that nobody has told us of is not one that is going.
                let eligible = self.tables.node(&self.node).is_none_or(|node| !node.leaving);
                let well = self.serves() && eligible;
                self.reply(well, &self.counts.healthz, &format!(", \"nodeEligible\": {eligible}"))
            }
            "/livez" => self.reply(self.is_well(), &self.counts.livez, ""),
            _ => Reply::text(StatusCode::NOT_FOUND, "ask for /healthz or /livez\n"),
        }
    }

    fn reply(&self, well: bool, counts: &[AtomicU64; 2], more: &str) -> Reply {
        counts[usize::from(!well)].fetch_add(1, Ordering::Relaxed);
        let now = Timestamp::now();
        // As long as all is well there is nothing that is not up to date.
        let updated = if well { now } else { self.pulse.last_round().unwrap_or(Timestamp::UNIX_EPOCH) };
        let status = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        Reply::json(
            status,
            format!("{{\"lastUpdated\": \"{}\",\"currentTime\": \"{}\"{more}}}", shown(updated), shown(now)),
        )
    }
}

/// As Go prints times.
fn shown(at: Timestamp) -> impl std::fmt::Display {
    at.strftime("%Y-%m-%d %H:%M:%S%.f +0000 UTC")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tables::{Node, Source};

    fn proxy() -> Proxy {
        let proxy = Proxy::new(Arc::default(), Arc::default(), "n1".into());
        serve(&proxy);
        proxy
    }

    /// As the reconciler's first round with all services does.
    fn serve(proxy: &Proxy) {
        [Source::Services, Source::Slices].into_iter().for_each(|source| proxy.tables.synced(source));
        proxy.pulse.taken(&proxy.tables, Instant::now());
        proxy.pulse.done(Instant::now(), crate::health::pulse::Summary::default());
    }

    fn leave(proxy: &Proxy, leaving: bool) {
        let node = Arc::new(Node { leaving, ..Node::default() });
        proxy.tables.update(|rows| drop(rows.nodes.insert("n1".into(), node)));
    }

    fn json(reply: &Reply) -> serde_json::Value {
        serde_json::from_str(&reply.body).unwrap()
    }

    #[test]
    fn a_node_that_goes_is_not_healthy_but_alive() {
        let proxy = proxy();
        assert_eq!(proxy.answer("/healthz").status, StatusCode::OK, "unknown to the cluster so far");
        leave(&proxy, false);
        assert_eq!(proxy.answer("/healthz").status, StatusCode::OK);
        leave(&proxy, true);
        let reply = proxy.answer("/healthz");
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(json(&reply)["nodeEligible"], false);
        assert_eq!(proxy.answer("/livez").status, StatusCode::OK);
        assert_eq!(proxy.counts.healthz[1].load(Ordering::Relaxed), 1);
    }

    #[test]
    fn nobody_is_sent_here_before_services_are_served() {
        let proxy = Proxy::new(Arc::default(), Arc::default(), "n1".into());
        assert_eq!(proxy.answer("/healthz").status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(
            proxy.answer("/livez").status,
            StatusCode::OK,
            "an API server that is away is no reason to restart"
        );
        serve(&proxy);
        assert_eq!(proxy.answer("/healthz").status, StatusCode::OK);
    }

    #[test]
    fn changes_that_wait_too_long_make_both_ill() {
        let proxy = Proxy::new(Arc::default(), Arc::default(), "n1".into());
        proxy.pulse.queued(Instant::now().checked_sub(Duration::from_secs(61)).unwrap());
        for path in ["/healthz", "/livez"] {
            let reply = proxy.answer(path);
            assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
            assert!(json(&reply)["lastUpdated"].as_str().unwrap().starts_with("1970"), "never");
        }
        serve(&proxy);
        let reply = proxy.answer("/livez");
        assert_eq!(reply.status, StatusCode::OK);
        let fields: Vec<String> = json(&reply).as_object().unwrap().keys().cloned().collect();
        assert_eq!(fields, ["lastUpdated", "currentTime"]);
        assert_eq!(json(&reply)["lastUpdated"], json(&reply)["currentTime"]);
    }
}
