//! How a pod resolves names: `dnsPolicy` and `dnsConfig` over what the node has.

use std::net::IpAddr;
use std::path::Path;

use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1 as core;

/// What the node knows about names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Dns {
    /// The cluster's name servers; without any, every pod resolves as the node does.
    pub cluster_servers: Vec<IpAddr>,
    /// The cluster's domain.
    pub cluster_domain: String,
    /// The node's own configuration.
    pub host: cri::DnsConfig,
}

impl Dns {
    /// The cluster's servers, and `resolv.conf` of the node.
    pub fn of_node(servers: Vec<IpAddr>, domain: String, resolv_conf: &Path) -> std::io::Result<Self> {
        let text = match std::fs::read_to_string(resolv_conf) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { cluster_servers: servers, cluster_domain: domain, host: parse(&text) })
    }

    /// The configuration of one pod.
    pub fn config(&self, spec: &core::PodSpec, namespace: &str) -> cri::DnsConfig {
        let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
        let through_cluster = match policy {
            "ClusterFirst" => spec.host_network != Some(true),
            "ClusterFirstWithHostNet" => true,
            _ => false,
        };
        let mut config = match policy {
            "None" => cri::DnsConfig::default(),
            _ if through_cluster && !self.cluster_servers.is_empty() => self.cluster(namespace),
            _ => self.host.clone(),
        };
        if let Some(extra) = &spec.dns_config {
            append(&mut config.servers, extra.nameservers.iter().flatten());
            append(&mut config.searches, extra.searches.iter().flatten());
            for option in extra.options.iter().flatten() {
                let name = option.name.clone().unwrap_or_default();
                config.options.retain(|known| known.split(':').next() != Some(&name));
                config.options.push(match &option.value {
                    Some(value) => format!("{name}:{value}"),
                    None => name,
                });
            }
        }
        config
    }

    fn cluster(&self, namespace: &str) -> cri::DnsConfig {
        let domain = &self.cluster_domain;
        let mut searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
        append(&mut searches, self.host.searches.iter());
        cri::DnsConfig {
            servers: self.cluster_servers.iter().map(ToString::to_string).collect(),
            searches,
            options: vec!["ndots:5".to_owned()],
        }
    }
}

fn append<'a>(list: &mut Vec<String>, more: impl Iterator<Item = &'a String>) {
    for item in more {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

fn parse(text: &str) -> cri::DnsConfig {
    let mut config = cri::DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => config.servers.extend(words.take(1)),
            Some("search") => config.searches = words.collect(),
            Some("options") => config.options.extend(words),
            _ => {}
        }
    }
    config
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn dns() -> Dns {
        Dns {
            cluster_servers: vec!["10.96.0.10".parse().unwrap()],
            cluster_domain: "cluster.local".into(),
            host: parse("# c\nnameserver 9.9.9.9\nsearch example.org\noptions edns0\n"),
        }
    }

    #[test]
    fn each_policy_has_its_servers() {
        for (spec, servers, options) in [
            (json!({}), vec!["10.96.0.10"], vec!["ndots:5"]),
            (json!({ "dnsPolicy": "Default" }), vec!["9.9.9.9"], vec!["edns0"]),
            (json!({ "dnsPolicy": "ClusterFirst", "hostNetwork": true }), vec!["9.9.9.9"], vec!["edns0"]),
            (
                json!({ "dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true }),
                vec!["10.96.0.10"],
                vec!["ndots:5"],
            ),
            (
                json!({ "dnsPolicy": "None", "dnsConfig": { "nameservers": ["1.1.1.1"], "options": [{ "name": "ndots", "value": "2" }] } }),
                vec!["1.1.1.1"],
                vec!["ndots:2"],
            ),
        ] {
            let mut whole = spec.clone();
            whole["containers"] = json!([]);
            let config = dns().config(&serde_json::from_value(whole).unwrap(), "ns");
            assert_eq!(
                (config.servers, config.options),
                (
                    servers.iter().map(|s| (*s).to_owned()).collect(),
                    options.iter().map(|s| (*s).to_owned()).collect()
                ),
                "{spec}"
            );
        }
    }

    #[test]
    fn names_of_the_own_namespace_come_first() {
        let spec = core::PodSpec::default();
        let searches = dns().config(&spec, "ns").searches;
        assert_eq!(searches, ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.org"]);
    }
}
