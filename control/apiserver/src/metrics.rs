//! Counters under the names dashboards for Kubernetes know.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::resources::Table;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    verb: String,
    resource: String,
    code: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerbLabels {
    verb: String,
    resource: String,
}

/// What is counted about requests.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    durations: Family<VerbLabels, Histogram>,
}

/// Upper bounds in seconds of the buckets of request durations.
const BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 60.0];

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let requests = Family::default();
        let durations = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> Histogram);
        registry.register("apiserver_request", "Requests by verb, resource and code", requests.clone());
        registry.register(
            "apiserver_request_duration_seconds",
            "Time until the reply began, by verb and resource",
            durations.clone(),
        );
        Self { registry, requests, durations }
    }
}

impl Metrics {
    /// Counts a request.
    pub fn record(&self, table: &Table, verb: &str, resource: &str, code: u16, took: Duration) {
        let known = !table.named(resource).is_empty();
        // A client may ask for any name: unknown ones share a label.
        let resource = if known || resource.is_empty() { resource } else { "unknown" };
        let (verb, resource) = (verb.to_owned(), resource.to_owned());
        let labels = Labels { verb: verb.clone(), resource: resource.clone(), code: code.to_string() };
        self.requests.get_or_create(&labels).inc();
        self.durations.get_or_create(&VerbLabels { verb, resource }).observe(took.as_secs_f64());
    }

    /// Everything in the text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .expect("writing to a string does not fail");
        text
    }
}
