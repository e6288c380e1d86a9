//! Quantities, quality of service, and what they mean for cgroups.

use std::collections::BTreeMap;

use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// The period of CPU quotas in microseconds.
const PERIOD: i64 = 100_000;
/// The smallest quota the kernel takes.
const SMALLEST_QUOTA: i64 = 1_000;
/// The smallest weight the kernel takes.
const FEWEST_SHARES: i64 = 2;

/// A class of pods by how sure they may be of their resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qos {
    /// Every container has limits for CPU and memory, and requests as much.
    Guaranteed,
    /// Some container requests something.
    Burstable,
    /// None does.
    BestEffort,
}

impl Qos {
    /// As `status.qosClass` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }

    /// The folder between the parent cgroup and the pod's; guaranteed pods have none.
    pub fn folder(self) -> Option<&'static str> {
        match self {
            Self::Guaranteed => None,
            Self::Burstable => Some("burstable"),
            Self::BestEffort => Some("besteffort"),
        }
    }
}

/// A quantity in thousandths; `None` for what is not one.
pub fn milli(quantity: &Quantity) -> Option<i128> {
    let text = quantity.0.trim();
    let digits_end =
        text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-' || c == '+')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits_end);
    let (numerator, denominator): (i128, i128) = match suffix {
        "" => (1_000, 1),
        "n" => (1, 1_000_000),
        "u" => (1, 1_000),
        "m" => (1, 1),
        "k" => (1_000_000, 1),
        "M" => (1_000_000_000, 1),
        "G" => (1_000_000_000_000, 1),
        "T" => (1_000_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000_000, 1),
        "E" => (1_000_000_000_000_000_000_000, 1),
        "Ki" => (1_000 << 10, 1),
        "Mi" => (1_000 << 20, 1),
        "Gi" => (1_000 << 30, 1),
        "Ti" => (1_000 << 40, 1),
        "Pi" => (1_000 << 50, 1),
        "Ei" => (1_000_i128 << 60, 1),
        exponent => (
            10_i128
                .checked_pow(exponent.strip_prefix(['e', 'E'])?.parse::<u32>().ok()?)?
                .checked_mul(1_000)?,
            1,
        ),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let scale = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let product = digits.checked_mul(numerator)?;
    let divisor = scale.checked_mul(denominator)?;
    // Rounded up, as Kubernetes does.
    Some(product.div_euclid(divisor) + i128::from(product.rem_euclid(divisor) != 0))
}

/// A quantity in whole units, rounded up.
pub fn units(quantity: &Quantity) -> Option<i64> {
    let milli = milli(quantity)?;
    i64::try_from(milli.div_euclid(1_000) + i128::from(milli.rem_euclid(1_000) != 0)).ok()
}

type Amounts<'a> = Option<&'a BTreeMap<String, Quantity>>;

fn amount<'a>(amounts: Amounts<'a>, name: &str) -> Option<&'a Quantity> {
    amounts.and_then(|amounts| amounts.get(name))
}

fn limits(container: &core::Container) -> Amounts<'_> {
    container.resources.as_ref().and_then(|resources| resources.limits.as_ref())
}

fn requests(container: &core::Container) -> Amounts<'_> {
    container.resources.as_ref().and_then(|resources| resources.requests.as_ref())
}

/// A request, for which a limit stands in.
fn request<'a>(container: &'a core::Container, name: &str) -> Option<&'a Quantity> {
    amount(requests(container), name).or_else(|| amount(limits(container), name))
}

/// The class of a pod.
pub fn qos(spec: &core::PodSpec) -> Qos {
    let all: Vec<&core::Container> =
        spec.init_containers.iter().flatten().chain(spec.containers.iter()).collect();
    let names = ["cpu", "memory"];
    let positive = |quantity: Option<&Quantity>| quantity.and_then(milli).filter(|amount| *amount > 0);
    let asks = |container: &&core::Container| {
        names.iter().any(|name| {
            positive(amount(limits(container), name)).is_some()
                || positive(amount(requests(container), name)).is_some()
        })
    };
    let sure = |container: &&core::Container| {
        names.iter().all(|name| {
            let limit = positive(amount(limits(container), name));
            limit.is_some() && positive(request(container, name)) == limit
        })
    };
    if !all.iter().any(asks) {
        Qos::BestEffort
    } else if all.iter().all(sure) {
        Qos::Guaranteed
    } else {
        Qos::Burstable
    }
}

/// The weight and limits of one container.
pub fn of_container(container: &core::Container, qos: Qos, node_memory: i64) -> cri::LinuxContainerResources {
    let cpu_request = request(container, "cpu").and_then(milli).unwrap_or(0);
    let cpu_limit = amount(limits(container), "cpu").and_then(milli).unwrap_or(0);
    let memory_limit = amount(limits(container), "memory").and_then(units).unwrap_or(0);
    let memory_request = request(container, "memory").and_then(units).unwrap_or(0);
    cri::LinuxContainerResources {
        cpu_period: PERIOD,
        cpu_quota: quota(cpu_limit),
        cpu_shares: shares(cpu_request),
        memory_limit_in_bytes: memory_limit,
        oom_score_adj: oom_score_adj(qos, memory_request, node_memory),
        ..Default::default()
    }
}

fn shares(milli: i128) -> i64 {
    i64::try_from(milli * 1024 / 1000).unwrap_or(i64::MAX).clamp(FEWEST_SHARES, 262_144)
}

fn quota(milli: i128) -> i64 {
    if milli == 0 {
        return 0;
    }
    i64::try_from(milli * i128::from(PERIOD) / 1000).unwrap_or(i64::MAX).max(SMALLEST_QUOTA)
}

/// The more of the node's memory a burstable container requests, the later it is killed.
fn oom_score_adj(qos: Qos, memory_request: i64, node_memory: i64) -> i64 {
    match qos {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let part = i128::from(memory_request) * 1000 / i128::from(node_memory.max(1));
            (1000 - i64::try_from(part).unwrap_or(1000)).clamp(3, 999)
        }
    }
}

/// The cgroup of a pod: `/<parent>[/<class>]/pod<uid>`.
pub fn cgroup(parent: &str, spec: &core::PodSpec, uid: &str) -> String {
    let [guaranteed, burstable, best_effort] = cgroups(parent, uid);
    match qos(spec) {
        Qos::Guaranteed => guaranteed,
        Qos::Burstable => burstable,
        Qos::BestEffort => best_effort,
    }
}

/// Wherever the cgroup of a pod may be, when its object is no longer there to say.
pub fn cgroups(parent: &str, uid: &str) -> [String; 3] {
    let parent = parent.trim_matches('/');
    [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort].map(|qos| match qos.folder() {
        Some(folder) => format!("/{parent}/{folder}/pod{uid}"),
        None => format!("/{parent}/pod{uid}"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quantities_of_every_form_are_read() {
        for (text, want) in [
            ("1", Some(1_000)),
            ("250m", Some(250)),
            ("1.5", Some(1_500)),
            ("0.1", Some(100)),
            ("64Mi", Some(67_108_864_000)),
            ("1G", Some(1_000_000_000_000)),
            ("1e3", Some(1_000_000)),
            ("100u", Some(1)),
            ("1500n", Some(1)),
            ("", None),
            ("abc", None),
            ("1Zi", None),
        ] {
            assert_eq!(milli(&Quantity(text.into())), want, "{text}");
        }
    }

    fn spec(resources: serde_json::Value) -> core::PodSpec {
        serde_json::from_value(json!({ "containers": [{ "name": "a", "resources": resources }] })).unwrap()
    }

    #[test]
    fn classes_follow_from_requests_and_limits() {
        for (resources, want) in [
            (json!({}), Qos::BestEffort),
            (json!({ "requests": { "cpu": "1" } }), Qos::Burstable),
            (json!({ "limits": { "cpu": "1" } }), Qos::Burstable),
            (json!({ "limits": { "cpu": "1", "memory": "1Gi" } }), Qos::Guaranteed),
            (
                json!({ "limits": { "cpu": "1", "memory": "1Gi" }, "requests": { "cpu": "1" } }),
                Qos::Guaranteed,
            ),
            (
                json!({ "limits": { "cpu": "1", "memory": "1Gi" }, "requests": { "cpu": "500m" } }),
                Qos::Burstable,
            ),
        ] {
            assert_eq!(qos(&spec(resources.clone())), want, "{resources}");
        }
    }

    #[test]
    fn a_container_gets_its_weight_and_its_limits() {
        let spec =
            spec(json!({ "limits": { "cpu": "500m", "memory": "64Mi" }, "requests": { "cpu": "250m" } }));
        let got = of_container(&spec.containers[0], qos(&spec), 1 << 30);
        assert_eq!((got.cpu_shares, got.cpu_quota, got.memory_limit_in_bytes), (256, 50_000, 64 << 20));
        assert_eq!(got.oom_score_adj, 938);
        assert_eq!(cgroup("/kubepods", &spec, "u"), "/kubepods/burstable/podu");
    }
}
