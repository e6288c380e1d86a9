//! What annotations under `hawser.dev/` say, and those that upstream has for what we do. A value that cannot be used is said, and counts as absent.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::decode::About;
use crate::pods::resources::units;
use crate::tables::{Balancing, Limits, PodOptions, Service};

const BALANCING: &str = "hawser.dev/load-balancing";
const WEIGHTS: &str = "hawser.dev/weights";
const FORWARDING: &str = "hawser.dev/forwarding";
const AUDIT: &str = "hawser.dev/policy-audit";
const SOCKETS: &str = "hawser.dev/socket-lb";
/// Written by Istio on pods it put its sidecar into: that must see the address the application asked for.
const SIDECAR: &str = "sidecar.istio.io/status";
const EGRESS: &str = "kubernetes.io/egress-bandwidth";
const INGRESS: &str = "kubernetes.io/ingress-bandwidth";
/// Bits per second that upstream accepts.
const BANDWIDTH: std::ops::RangeInclusive<i64> = 1_000..=1_000_000_000_000_000;
/// Runtimes whose sockets are not this kernel's, by how their classes are called.
const OTHER_KERNELS: [&str; 3] = ["kata", "gvisor", "runsc"];

type Annotations = BTreeMap<String, String>;

/// Puts what the annotations of a Service say into its row.
pub(super) fn service(annotations: &Annotations, row: &mut Service, about: &mut About<'_>) {
    let balancing = [
        ("random", Balancing::Random),
        ("maglev", Balancing::Maglev),
        ("least-connections", Balancing::LeastConnections),
    ];
    row.balancing = choice(annotations, BALANCING, &balancing, about).unwrap_or_default();
    row.dsr = choice(annotations, FORWARDING, &[("nat", false), ("dsr", true)], about).unwrap_or(false);
    row.no_sockets = sockets_off(annotations, about).unwrap_or(false);
    if let Some(text) = annotations.get(WEIGHTS) {
        match weights(text) {
            Some(weights) => row.weights = weights,
            None => invalid(WEIGHTS, text, "NAME=N,... with N from 0 to 65535", about),
        }
    }
}

/// What a Pod wants for its own traffic.
pub(super) fn pod(
    annotations: &Annotations,
    runtime_class: Option<&str>,
    about: &mut About<'_>,
) -> PodOptions {
    let has_other_kernel =
        runtime_class.is_some_and(|class| OTHER_KERNELS.iter().any(|name| class.starts_with(name)));
    let automatic = has_other_kernel || annotations.contains_key(SIDECAR);
    PodOptions {
        no_sockets: sockets_off(annotations, about).unwrap_or(automatic),
        limits: Limits {
            egress: bandwidth(annotations, EGRESS, about),
            ingress: bandwidth(annotations, INGRESS, about),
        },
    }
}

/// Bytes per second.
fn bandwidth(annotations: &Annotations, name: &str, about: &mut About<'_>) -> Option<u64> {
    let text = annotations.get(name)?;
    let bits = units(&Quantity(text.clone())).filter(|bits| BANDWIDTH.contains(bits));
    if bits.is_none() {
        invalid(name, text, "bits per second from 1k to 1P", about);
    }
    bits.and_then(|bits| u64::try_from(bits).ok()).map(|bits| bits / 8)
}

/// Whether what policies deny the pods of a namespace passes, and is told.
pub(super) fn audit(annotations: &Annotations, about: &mut About<'_>) -> bool {
    choice(annotations, AUDIT, &[("enabled", true), ("disabled", false)], about).unwrap_or(false)
}

fn sockets_off(annotations: &Annotations, about: &mut About<'_>) -> Option<bool> {
    choice(annotations, SOCKETS, &[("enabled", false), ("disabled", true)], about)
}

fn choice<T: Copy>(
    annotations: &Annotations,
    name: &str,
    values: &[(&str, T)],
    about: &mut About<'_>,
) -> Option<T> {
    let text = annotations.get(name)?;
    let found = values.iter().find(|(value, _)| value == text).map(|(_, meaning)| *meaning);
    if found.is_none() {
        let known: Vec<&str> = values.iter().map(|(value, _)| *value).collect();
        invalid(name, text, &known.join(" or "), about);
    }
    found
}

fn weights(text: &str) -> Option<BTreeMap<String, u16>> {
    text.split(',')
        .map(|pair| {
            let (name, weight) = pair.split_once('=')?;
            let name = name.trim();
            Some((name.to_owned(), weight.trim().parse().ok()?)).filter(|_| !name.is_empty())
        })
        .collect()
}

fn invalid(name: &str, text: &str, wanted: &str, about: &mut About<'_>) {
    about.say("InvalidAnnotation", format!("{name} is {text:?}, not {wanted}; the default is used"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables::{Complaint, ObjectName};

    fn annotated(pairs: &[(&str, &str)]) -> (Service, PodOptions, Vec<Complaint>) {
        let annotations =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut complaints = Vec::new();
        let object = ObjectName { namespace: "default".into(), name: "web".into() };
        let mut about = About { kind: "Service", object, uid: 0, complaints: &mut complaints };
        let mut row = Service::default();
        service(&annotations, &mut row, &mut about);
        let options = pod(&annotations, None, &mut About { complaints: &mut Vec::new(), ..about });
        (row, options, complaints)
    }

    #[test]
    fn every_annotation_is_understood() {
        let (row, options, complaints) = annotated(&[
            (BALANCING, "maglev"),
            (WEIGHTS, "web-0=3, 10.0.0.1=0"),
            (FORWARDING, "dsr"),
            (SOCKETS, "disabled"),
        ]);
        assert_eq!(row.balancing, Balancing::Maglev);
        assert_eq!(row.weights, BTreeMap::from([("web-0".into(), 3), ("10.0.0.1".into(), 0)]));
        assert!(row.dsr && row.no_sockets && options.no_sockets);
        assert!(complaints.is_empty(), "{complaints:?}");
    }

    #[test]
    fn a_bad_value_is_said_and_counts_as_absent() {
        for (name, value) in [
            (BALANCING, "fastest"),
            (WEIGHTS, "web-0"),
            (WEIGHTS, "a=70000"),
            (FORWARDING, ""),
            (SOCKETS, "no"),
        ] {
            let (row, _, complaints) = annotated(&[(name, value)]);
            assert_eq!(row, Service::default(), "{name}");
            assert_eq!(complaints.len(), 1, "{name}");
            assert_eq!(complaints[0].reason, "InvalidAnnotation");
            assert!(complaints[0].message.contains(name), "{}", complaints[0].message);
        }
    }

    #[test]
    fn bandwidth_is_a_quantity_of_bits_within_the_bounds_of_upstream() {
        let ask = |egress: &str, ingress: &str| {
            let pairs = [(EGRESS, egress), (INGRESS, ingress)];
            let annotations = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            let object = ObjectName { namespace: "default".into(), name: "web".into() };
            let mut complaints = Vec::new();
            let mut about = About { kind: "Pod", object, uid: 0, complaints: &mut complaints };
            (pod(&annotations, None, &mut about).limits, complaints)
        };
        let (limits, complaints) = ask("10M", "1.5Gi");
        assert_eq!(limits, Limits { egress: Some(1_250_000), ingress: Some(201_326_592) });
        assert!(complaints.is_empty(), "{complaints:?}");
        assert_eq!(ask("1k", "1P").0, Limits { egress: Some(125), ingress: Some(125_000_000_000_000) });
        for wrong in ["", "fast", "999", "-10M", "2P", "10Mbit", "0"] {
            let (limits, complaints) = ask(wrong, "10M");
            assert_eq!(limits, Limits { egress: None, ingress: Some(1_250_000) }, "{wrong}");
            assert_eq!(complaints.len(), 1, "{wrong}");
            assert!(complaints[0].message.contains(EGRESS), "{}", complaints[0].message);
        }
    }

    #[test]
    fn pods_that_hooks_would_break_are_left_alone_unless_they_say_otherwise() {
        let ask = |pairs: &[(&str, &str)], class| {
            let annotations =
                pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let object = ObjectName { namespace: "default".into(), name: "web".into() };
            pod(&annotations, class, &mut About { kind: "Pod", object, uid: 0, complaints: &mut Vec::new() })
                .no_sockets
        };
        assert!(!ask(&[], None));
        assert!(ask(&[(SIDECAR, "{}")], None));
        assert!(ask(&[], Some("kata-qemu")));
        assert!(ask(&[], Some("gvisor")));
        assert!(!ask(&[], Some("runc")));
        assert!(!ask(&[(SIDECAR, "{}"), (SOCKETS, "enabled")], Some("kata")));
    }
}
