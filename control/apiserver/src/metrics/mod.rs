//! What the server counts, under kube-apiserver's names, so that dashboards and alerts for Kubernetes work.
//!
//! ```text
//!  a request -> labels -> counters        scrape -> gauges: process, objects, health -> text
//! ```

mod gauges;
mod labels;
mod process;
mod text;

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::api::Api;
use crate::resources::{Deprecation, Row};
pub use labels::Asked;
use labels::{Answered, Attempts, Decision, Deprecated, Inflight, Operation};
pub use text::MEDIA;

/// What is counted about requests.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Answered, Counter>,
    durations: Family<Asked, Histogram>,
    /// By whether the request writes.
    inflight: Family<Inflight, Gauge>,
    long: Family<Asked, Gauge>,
    attempts: Family<Attempts, Counter>,
    decisions: Family<Decision, Counter>,
    deprecated: Family<Deprecated, Gauge>,
    /// TLS handshakes that failed.
    pub handshakes: Counter,
    store: Family<Operation, Histogram>,
    /// When the server began, seconds since the epoch.
    started: f64,
}

/// Upper bounds in seconds of the buckets of durations: kube-apiserver's, and below them what we need to tell our own
/// answers apart.
const BUCKETS: [f64; 26] = [
    0.0005, 0.001, 0.0025, 0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0,
    6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

impl Metrics {
    /// Counts from zero; `started` is the beginning of the process in seconds since the epoch.
    pub fn new(started: f64) -> Self {
        let metrics = Self {
            registry: Registry::default(),
            requests: Family::default(),
            durations: Family::new_with_constructor(histogram as fn() -> Histogram),
            inflight: Family::default(),
            long: Family::default(),
            attempts: Family::default(),
            decisions: Family::default(),
            deprecated: Family::default(),
            handshakes: Counter::default(),
            store: Family::new_with_constructor(histogram as fn() -> Histogram),
            started,
        };
        metrics.registered()
    }

    fn registered(mut self) -> Self {
        let registry = &mut self.registry;
        registry.register("apiserver_request", "Requests that were answered", self.requests.clone());
        let help = "Time until the answer began";
        registry.register("apiserver_request_duration_seconds", help, self.durations.clone());
        let help = "Requests being worked on, without watches and streams";
        registry.register("apiserver_current_inflight_requests", help, self.inflight.clone());
        let help = "Watches and streams that are open";
        registry.register("apiserver_longrunning_requests", help, self.long.clone());
        let help = "Requests whose sender was looked for, by what came of it";
        registry.register("authentication_attempts", help, self.attempts.clone());
        let help = "Requests that an authoriser decided on";
        registry.register("apiserver_authorization_decisions", help, self.decisions.clone());
        let help = "Deprecated versions that were asked for";
        registry.register("apiserver_requested_deprecated_apis", help, self.deprecated.clone());
        let help = "TLS handshakes that failed";
        registry.register("apiserver_tls_handshake_errors", help, self.handshakes.clone());
        let help = "Time until the store confirmed a transaction";
        registry.register("etcd_request_duration_seconds", help, self.store.clone());
        self
    }
}

impl Metrics {
    /// Counts a request that was answered.
    pub fn record(&self, asked: &Asked, code: u16, took: Duration) {
        self.durations.get_or_create(asked).observe(took.as_secs_f64());
        self.requests.get_or_create(&Answered { asked: asked.clone(), code }).inc();
    }

    /// Counts a request as being worked on, or as open, until the guard is dropped.
    pub fn enter(&self, asked: &Asked) -> Held {
        let gauge = if asked.is_long() {
            self.long.get_or_create(asked).clone()
        } else {
            self.inflight.get_or_create(&Inflight { request_kind: asked.request_kind() }).clone()
        };
        gauge.inc();
        Held(gauge)
    }

    /// Counts a request whose sender could be told, or could not.
    pub fn authenticated(&self, success: bool) {
        let result = if success { "success" } else { "failure" };
        self.attempts.get_or_create(&Attempts { result }).inc();
    }

    /// Counts a request that was allowed or denied.
    pub fn authorised(&self, by: &'static str, allowed: bool) {
        let decision = if allowed { "allowed" } else { "denied" };
        self.decisions.get_or_create(&Decision { r#type: by, decision }).inc();
    }

    /// Notes that somebody uses a deprecated version.
    pub fn uses_deprecated(&self, row: &Row, subresource: &'static str, deprecation: &Deprecation) {
        let labels = Deprecated {
            group: row.group.clone(),
            version: row.version.clone(),
            resource: row.plural.clone(),
            subresource,
            removed_release: deprecation.removed_release.clone(),
        };
        self.deprecated.get_or_create(&labels).set(1);
    }

    /// Counts a transaction that the store confirmed or refused.
    pub fn stored(&self, operation: &'static str, took: Duration) {
        self.store.get_or_create(&Operation { operation }).observe(took.as_secs_f64());
    }

    /// Everything in the text format.
    pub fn text(&self, api: &Api) -> String {
        let mut counted = String::new();
        prometheus_client::encoding::text::encode(&mut counted, &self.registry)
            .expect("writing to a string does not fail");
        let mut text = text::classic(&counted);
        gauges::write(&mut text, api, self);
        text
    }
}

/// A request that is counted as being there.
#[derive(Debug)]
pub struct Held(Gauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}
