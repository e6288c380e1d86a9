//! Two pods cannot have the same port of one node.

use super::{Candidate, Plugin};
use crate::cluster::NodeRow;
use crate::verdict::{Event, Fit};

pub(crate) struct HostPorts;

impl Plugin for HostPorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn filter(&self, candidate: &Candidate<'_>, node: &NodeRow) -> Fit {
        let taken = candidate
            .demand
            .host_ports
            .iter()
            .any(|wanted| node.host_ports.iter().any(|held| held.conflicts(wanted)));
        if taken {
            Fit::No("node(s) didn't have free ports for the requested pod ports".to_owned())
        } else {
            Fit::Yes
        }
    }

    fn wakes(&self, event: Event) -> bool {
        matches!(event, Event::NodeAdded | Event::PodGone)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{fits, node, pod};
    use super::HostPorts;
    use crate::cluster::HostPort;
    use serde_json::json;

    #[test]
    fn ports_conflict_by_number_protocol_and_address() {
        let mut busy = node(json!({"metadata": {"name": "a"}}));
        busy.host_ports = vec![HostPort { address: "10.0.0.1".into(), protocol: "TCP".into(), port: 80 }];
        for (port, want) in [
            (json!({"hostPort": 80}), false),
            (json!({"hostPort": 80, "hostIP": "0.0.0.0"}), false),
            (json!({"hostPort": 80, "hostIP": "10.0.0.1"}), false),
            (json!({"hostPort": 80, "hostIP": "10.0.0.2"}), true),
            (json!({"hostPort": 80, "protocol": "UDP"}), true),
            (json!({"hostPort": 81}), true),
        ] {
            let pod = pod(json!({"spec": {"containers": [{"ports": [port]}]}}));
            assert_eq!(fits(&HostPorts, &pod, &busy), want, "{port}");
        }
    }
}
