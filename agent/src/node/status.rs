//! The status of this node: a pure function of the machine, its health and the time.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Identity, Machine};

/// An unchanged status is told again after this, as kubelets do.
const RETELL: SignedDuration = SignedDuration::from_mins(5);
/// As many pods as kubelets take.
const PODS: u32 = 110;

/// Whether the node can run pods; on the other side why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The container runtime.
    pub runtime: Result<(), String>,
    /// The pod network.
    pub network: Result<(), String>,
}

impl Health {
    /// Can the node run pods?
    pub fn is_ready(&self) -> bool {
        self.runtime.is_ok() && self.network.is_ok()
    }
}

/// Computes the status.
pub fn status(
    identity: &Identity,
    machine: &Machine,
    health: &Health,
    before: &core::NodeStatus,
    now: Timestamp,
) -> core::NodeStatus {
    let address = |kind: &str, address: String| core::NodeAddress { address, type_: kind.to_owned() };
    let mut addresses: Vec<core::NodeAddress> =
        identity.addresses.iter().map(|ip| address("InternalIP", ip.to_string())).collect();
    addresses.push(address("Hostname", identity.name.clone()));
    let capacity = capacity(machine);
    core::NodeStatus {
        addresses: Some(addresses),
        allocatable: Some(capacity.clone()),
        capacity: Some(capacity),
        conditions: Some(conditions(health, before, now)),
        daemon_endpoints: Some(core::NodeDaemonEndpoints {
            kubelet_endpoint: Some(core::DaemonEndpoint { port: i32::from(identity.kubelet_port) }),
        }),
        node_info: Some(core::NodeSystemInfo {
            architecture: machine.architecture.clone(),
            boot_id: machine.boot_id.clone(),
            container_runtime_version: identity.runtime.clone(),
            kernel_version: machine.kernel.clone(),
            kube_proxy_version: String::new(),
            kubelet_version: concat!("v1.36.0+hawser-", env!("CARGO_PKG_VERSION")).to_owned(),
            machine_id: machine.machine_id.clone(),
            operating_system: "linux".to_owned(),
            os_image: machine.os.clone(),
            system_uuid: machine.machine_id.clone(),
            ..Default::default()
        }),
        ..core::NodeStatus::default()
    }
}

/// Does the API server have to be told?
pub(super) fn is_news(before: &core::NodeStatus, after: &core::NodeStatus, now: Timestamp) -> bool {
    let told =
        before.conditions.iter().flatten().filter_map(|c| c.last_heartbeat_time.as_ref()).map(|t| t.0).min();
    let stale = told.is_none_or(|told| now.duration_since(told) >= RETELL);
    let substance = |status: &core::NodeStatus| {
        let conditions: Vec<_> = status
            .conditions
            .iter()
            .flatten()
            .map(|c| (c.type_.clone(), c.status.clone(), c.reason.clone(), c.message.clone()))
            .collect();
        let facts = (status.addresses.clone(), status.capacity.clone(), status.node_info.clone());
        (conditions, facts, status.daemon_endpoints.clone())
    };
    stale || substance(before) != substance(after)
}

fn capacity(machine: &Machine) -> BTreeMap<String, Quantity> {
    let amounts = [
        ("cpu", machine.processors.to_string()),
        ("memory", format!("{}Ki", machine.memory / 1024)),
        ("ephemeral-storage", format!("{}Ki", machine.disk / 1024)),
        ("pods", PODS.to_string()),
    ];
    amounts.into_iter().map(|(name, amount)| (name.to_owned(), Quantity(amount))).collect()
}

fn conditions(health: &Health, before: &core::NodeStatus, now: Timestamp) -> Vec<core::NodeCondition> {
    let pressures = [
        ("MemoryPressure", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ];
    let mut all: Vec<(&str, bool, &str, String)> =
        pressures.map(|(kind, reason, message)| (kind, false, reason, message.to_owned())).to_vec();
    let troubles: Vec<String> = [
        health.runtime.as_ref().err().map(|why| format!("container runtime is down: {why}")),
        health.network.as_ref().err().map(|why| format!("container runtime network not ready: {why}")),
    ]
    .into_iter()
    .flatten()
    .collect();
    all.push(if troubles.is_empty() {
        ("Ready", true, "KubeletReady", "the node runs pods".to_owned())
    } else {
        ("Ready", false, "KubeletNotReady", troubles.join(", "))
    });
    // Fractions of seconds would make every status another.
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    let known = |kind: &str| before.conditions.iter().flatten().find(|known| known.type_ == kind);
    let ours = all.into_iter().map(|(kind, holds, reason, message)| {
        let value = if holds { "True" } else { "False" };
        let since =
            known(kind).filter(|known| known.status == value).and_then(|k| k.last_transition_time.clone());
        core::NodeCondition {
            last_heartbeat_time: Some(now.clone()),
            last_transition_time: Some(since.unwrap_or_else(|| now.clone())),
            message: Some(message),
            reason: Some(reason.to_owned()),
            status: value.to_owned(),
            type_: kind.to_owned(),
        }
    });
    let ours: Vec<core::NodeCondition> = ours.collect();
    let others =
        before.conditions.iter().flatten().filter(|known| ours.iter().all(|own| own.type_ != known.type_));
    let others: Vec<core::NodeCondition> = others.cloned().collect();
    others.into_iter().chain(ours).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            name: "n".into(),
            addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            kubelet_port: 10250,
            state_dir: "/".into(),
            runtime: "containerd://1".into(),
        }
    }

    #[test]
    fn a_node_is_ready_when_runtime_and_network_are() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let down = Health { runtime: Ok(()), network: Err("no podCIDR".into()) };
        let up = Health { runtime: Ok(()), network: Ok(()) };
        let machine = Machine::default();
        let first = status(&identity(), &machine, &down, &core::NodeStatus::default(), at(0));
        let ready = |status: &core::NodeStatus| {
            status.conditions.as_ref().unwrap().iter().find(|c| c.type_ == "Ready").unwrap().clone()
        };
        assert_eq!(ready(&first).status, "False");
        assert!(ready(&first).message.unwrap().contains("no podCIDR"));
        let second = status(&identity(), &machine, &up, &first, at(10));
        assert_eq!(ready(&second).last_transition_time.unwrap().0, at(10));
        assert!(is_news(&first, &second, at(10)));
        let third = status(&identity(), &machine, &up, &second, at(20));
        assert_eq!(ready(&third).last_transition_time.unwrap().0, at(10));
        assert!(!is_news(&second, &third, at(20)));
        assert!(is_news(&second, &third, at(400)));
    }
}
