//! `/metrics` in the text format of Prometheus: kube-proxy's names where dashboards know them, and ours.

use std::fmt::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::audit::Audits;
use crate::desired::NodeFacts;
use crate::health::proxy::Proxy;
use crate::health::pulse::Pulse;
use crate::kernel::Tally;
use crate::kernel::meters::{self, Meters};
use crate::plain_http::Reply;
use crate::sources::cni::Cni;
use crate::tables::{Source, Tables};

/// The format's media type.
const KIND: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Where the figures come from.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Rounds of the reconciler.
    pub pulse: Arc<Pulse>,
    /// Answers of the health server.
    pub proxy: Arc<Proxy>,
    /// Changes, and services without local endpoints.
    pub tables: Arc<Tables>,
    /// Which node this is.
    pub facts: NodeFacts,
    /// Folder of the pinned maps, if the kernel is a real one.
    pub pins: Option<PathBuf>,
    /// Attachments of pods, and their addresses.
    pub cni: Cni,
    /// What audited namespaces would have been denied.
    pub audits: Audits,
    /// How many times the sizes of maps are what they are at scale one.
    pub scale: u32,
}

impl Metrics {
    /// The answer for a path.
    pub fn answer(&self, path: &str) -> Reply {
        if path != "/metrics" {
            return Reply::text(StatusCode::NOT_FOUND, "ask for /metrics\n");
        }
        Reply { status: StatusCode::OK, kind: KIND, headers: Vec::new(), body: self.text() }
    }

    /// Everything.
    pub fn text(&self) -> String {
        let mut registry = Registry::default();
        self.pulse.register(&mut registry);
        registry.register_collector(Box::new(self.clone()));
        let mut text = String::new();
        encode(&mut text, &registry).expect("writing to a string does not fail");
        text
    }

    fn upstream(&self, page: &mut Page<'_>) -> Result<(), Error> {
        let counts = |cells: &[AtomicU64; 2]| {
            ["200", "503"]
                .into_iter()
                .zip(cells.iter().map(|cell| cell.load(Ordering::Relaxed)))
                .collect::<Vec<_>>()
        };
        page.counters(
            "kubeproxy_proxy_healthz",
            "Answers of /healthz",
            "code",
            counts(&self.proxy.counts.healthz),
        )?;
        page.counters(
            "kubeproxy_proxy_livez",
            "Answers of /livez",
            "code",
            counts(&self.proxy.counts.livez),
        )?;
        for (source, what) in [(Source::Services, "service"), (Source::Slices, "endpoint")] {
            let (total, pending) = self.pulse.changes(&self.tables, source);
            let name = format!("kubeproxy_sync_proxy_rules_{what}_changes");
            page.counter(&name, "Changes that were seen", total)?;
            page.gauge(&format!("{name}_pending"), "Changes that are not in the kernel yet", pending)?;
        }
        let missing = self.tables.look(|rows| super::no_local::count(rows, &self.facts));
        page.gauges(
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
            "Service ports whose policy wants local endpoints, of which there are none",
            "traffic_policy",
            [("internal", missing.internal), ("external", missing.external)],
        )
    }

    fn ours(&self, page: &mut Page<'_>) -> Result<(), Error> {
        let round = self.pulse.summary();
        page.counter("hawser_reconcile_operations", "Changes carried out in the kernel", round.operations)?;
        page.counter("hawser_reconcile_errors", "Changes that failed, and were tried again", round.errors)?;
        page.gauge("hawser_unhealthy_rows", "What is not in the kernel as it should be", round.failing)?;
        page.gauge("hawser_rows_without_room", "What finds no room in a map", round.without_room)?;
        page.gauges(
            "hawser_rows",
            "What the kernel holds",
            "kind",
            [
                ("frontends", round.frontends),
                ("services", round.services),
                ("segments", round.segments),
                ("endpoints", round.endpoints),
                ("routes", round.routes),
            ],
        )?;
        page.audits(&self.audits)?;
        let without_room: Vec<String> =
            self.tables.policies_without_room().into_iter().map(|name| name.to_string()).collect();
        page.gauges(
            "hawser_policy_without_room",
            "Policies whose rules find no room in the kernel: their pods are isolated",
            "policy",
            without_room.iter().map(|name| (name.as_str(), 1_u64)),
        )?;
        let unread = self.tables.unread();
        page.gauges(
            "hawser_kind_unread",
            "Kinds whose objects the API server does not let this agent read",
            "kind",
            unread.keys().map(|kind| (*kind, 1_u64)),
        )?;
        let capacities = abi::name::MAPS.iter().map(|map| (map.name, map.capacity(self.scale) as u64));
        page.gauges("hawser_map_capacity", "How many entries a map can have", "map", capacities)
    }

    fn attachments(&self, page: &mut Page<'_>) -> Result<(), Error> {
        let counts = self.cni.counts();
        page.counter("hawser_cni_attached", "Pods that were given a network", counts.made())?;
        page.counters(
            "hawser_cni_refused",
            "Pods that were not given a network",
            "reason",
            counts.refused(),
        )?;
        let fill: Vec<(String, (u64, u64))> =
            self.cni.fill().into_iter().map(|(network, fill)| (network.to_string(), fill)).collect();
        let held = fill.iter().map(|(network, (held, _))| (network.as_str(), *held));
        page.gauges("hawser_pod_addresses_held", "Addresses that pods have", "network", held)?;
        let all = fill.iter().map(|(network, (_, all))| (network.as_str(), *all));
        page.gauges("hawser_pod_addresses", "Addresses there are for pods", "network", all)
    }

    fn packets(page: &mut Page<'_>, meters: &Meters) -> Result<(), Error> {
        let of = |tallies: &[(&'static str, Tally)], what: fn(&Tally) -> u64| {
            tallies.iter().map(|(name, tally)| (*name, what(tally))).collect::<Vec<_>>()
        };
        let (packets, bytes) = (|tally: &Tally| tally.packets, |tally: &Tally| tally.bytes);
        page.counters("hawser_packets", "Packets by path", "path", of(&meters.paths, packets))?;
        page.counters("hawser_bytes", "Bytes by path", "path", of(&meters.paths, bytes))?;
        page.counters(
            "hawser_dropped_packets",
            "Packets dropped by reason",
            "reason",
            of(&meters.drops, packets),
        )?;
        page.counters("hawser_dropped_bytes", "Bytes dropped by reason", "reason", of(&meters.drops, bytes))?;
        page.counters(
            "hawser_map_evictions",
            "Entries that a full map gave up for others, as far as the last walk over the flows could tell",
            "map",
            meters.evicted.iter().copied(),
        )?;
        page.gauge(
            "hawser_flow_entries",
            "Entries of flows that were answered, and of the first of those that were not",
            meters.flows,
        )?;
        page.gauge("hawser_embryo_entries", "Entries of flows that were not answered yet", meters.embryos)?;
        page.gauge("hawser_snat_ports", "Flows that hold a source port of the node", meters.masqueraded)
    }
}

impl Collector for Metrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut page = Page(encoder);
        self.upstream(&mut page)?;
        self.ours(&mut page)?;
        self.attachments(&mut page)?;
        match self.pins.as_deref().map(meters::read) {
            Some(Ok(meters)) => Self::packets(&mut page, &meters),
            Some(Err(error)) => {
                tracing::warn!(%error, "the programs' counters could not be read");
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// What is being written.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn audits(&mut self, audits: &Audits) -> Result<(), Error> {
        let help =
            "Flows of audited namespaces that no rule of these policies allows, or that this rule denies";
        let mut metric =
            self.0.encode_descriptor("hawser_policy_would_drop", help, None, MetricType::Counter)?;
        for (by, count) in audits.counts() {
            let labels = [("reason", &*by.direction), ("policies", &*by.policies), ("rule", &*by.rule)];
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> Result<(), Error> {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn gauge<V: EncodeGaugeValue>(&mut self, name: &str, help: &str, value: V) -> Result<(), Error> {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    fn counters(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'static str, u64)>,
    ) -> Result<(), Error> {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (value, count) in values {
            metric.encode_family(&[(label, value)])?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }

    fn gauges<'v>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'v str, u64)>,
    ) -> Result<(), Error> {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (value, level) in values {
            metric.encode_family(&[(label, value)])?.encode_gauge(&level)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::health::pulse::Summary;

    #[test]
    fn the_names_dashboards_know_are_there() {
        let tables = Arc::<Tables>::default();
        let pulse = Arc::<Pulse>::default();
        let proxy = Arc::new(Proxy::new(Arc::clone(&pulse), Arc::clone(&tables), "n1".into()));
        proxy.answer("/healthz");
        pulse.done(Instant::now(), Summary { without_room: 3, ..Summary::default() });
        tables.changed(Source::Slices, None);
        tables.set_unread("ClusterNetworkPolicy", Some("it is not allowed".into()));
        let state = tempfile::tempdir().unwrap();
        let cni = Cni::restore(Arc::clone(&tables), state.path()).unwrap();
        let metrics = Metrics {
            pulse,
            proxy,
            tables,
            facts: NodeFacts::default(),
            pins: None,
            cni,
            audits: Audits::default(),
            scale: 2,
        };
        let text = metrics.answer("/metrics").body;
        for line in [
            "kubeproxy_proxy_healthz_total{code=\"503\"} 1",
            "kubeproxy_proxy_livez_total{code=\"200\"} 0",
            "kubeproxy_sync_proxy_rules_endpoint_changes_total 1",
            "kubeproxy_sync_proxy_rules_endpoint_changes_pending 1",
            "kubeproxy_sync_proxy_rules_service_changes_total 0",
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total{traffic_policy=\"internal\"} 0",
            "kubeproxy_network_programming_duration_seconds_count 0",
            "hawser_map_capacity{map=\"hw_frontends\"} 131072",
            "hawser_rows_without_room 3",
            "hawser_kind_unread{kind=\"ClusterNetworkPolicy\"} 1",
            "hawser_cni_refused_total{reason=\"exhausted\"} 0",
            "# EOF",
        ] {
            assert!(text.lines().any(|own| own == line), "{line} is missing in\n{text}");
        }
        assert_eq!(metrics.answer("/").status, StatusCode::NOT_FOUND);
    }
}
