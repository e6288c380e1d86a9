//! A container's environment: values, references, whole ConfigMaps and Secrets, services, and `$(NAME)` in all of them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;

use super::resources;

/// The contents of ConfigMaps and Secrets a pod refers to, as text.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Referenced {
    /// By name; `None` for one that does not exist.
    pub config_maps: BTreeMap<String, Option<BTreeMap<String, String>>>,
    /// By name; `None` for one that does not exist.
    pub secrets: BTreeMap<String, Option<BTreeMap<String, String>>>,
}

/// What the environment is made from.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// The pod.
    pub pod: &'a core::Pod,
    /// What it refers to.
    pub referenced: &'a Referenced,
    /// `<NAME>_SERVICE_HOST` and the like.
    pub services: &'a [(String, String)],
    /// The pod's addresses.
    pub pod_addresses: &'a [IpAddr],
    /// The node's addresses.
    pub node_addresses: &'a [IpAddr],
}

/// Something referred to does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// The object.
    #[error("{kind} {name:?} not found")]
    NoObject {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The key in it.
    #[error("couldn't find key {key} in {kind} {name}")]
    NoKey {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// A field that cannot be had this way.
    #[error("field {0:?} cannot be read through the environment")]
    NoField(String),
}

/// The environment of `container`, in order.
pub fn environment(
    container: &core::Container,
    sources: Sources<'_>,
) -> Result<Vec<(String, String)>, EnvError> {
    let mut all: Vec<(String, String)> = Vec::new();
    let put = |name: String, value: String, all: &mut Vec<(String, String)>| {
        all.retain(|(known, _)| *known != name);
        all.push((name, value));
    };
    for (name, value) in sources.services {
        put(name.clone(), value.clone(), &mut all);
    }
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        for (key, value) in whole(from, sources.referenced)? {
            put(format!("{prefix}{key}"), value, &mut all);
        }
    }
    for var in container.env.iter().flatten() {
        let value = match (&var.value, &var.value_from) {
            (Some(value), _) => Some(expand(value, &all)),
            (None, Some(source)) => referenced(source, container, sources)?,
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            put(var.name.clone(), value, &mut all);
        }
    }
    Ok(all)
}

/// `$(NAME)` becomes the value of NAME, `$$` a dollar; what is not known stays as it is.
pub fn expand(text: &str, known: &[(String, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(more) = after.strip_prefix('$') {
            out.push('$');
            rest = more;
        } else if let Some((name, more)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            match known.iter().rev().find(|(key, _)| key == name) {
                Some((_, value)) => out.push_str(value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = more;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

type Text = BTreeMap<String, String>;

fn whole(from: &core::EnvFromSource, referenced: &Referenced) -> Result<Text, EnvError> {
    let (kind, name, optional, objects) = if let Some(source) = &from.config_map_ref {
        ("configmap", &source.name, source.optional, &referenced.config_maps)
    } else if let Some(source) = &from.secret_ref {
        ("secret", &source.name, source.optional, &referenced.secrets)
    } else {
        return Ok(Text::new());
    };
    match objects.get(name) {
        Some(Some(data)) => Ok(data.clone()),
        _ if optional == Some(true) => Ok(Text::new()),
        _ => Err(EnvError::NoObject { kind, name: name.clone() }),
    }
}

fn referenced(
    source: &core::EnvVarSource,
    container: &core::Container,
    sources: Sources<'_>,
) -> Result<Option<String>, EnvError> {
    let known = sources.referenced;
    if let Some(selector) = &source.config_map_key_ref {
        let lookup = (&known.config_maps, "configmap", "ConfigMap");
        return keyed(lookup, &selector.name, &selector.key, selector.optional);
    }
    if let Some(selector) = &source.secret_key_ref {
        let lookup = (&known.secrets, "secret", "Secret");
        return keyed(lookup, &selector.name, &selector.key, selector.optional);
    }
    if let Some(selector) = &source.field_ref {
        return field(&selector.field_path, sources)
            .map(Some)
            .ok_or_else(|| EnvError::NoField(selector.field_path.clone()));
    }
    if let Some(selector) = &source.resource_field_ref {
        return resource(selector, container)
            .map(Some)
            .ok_or_else(|| EnvError::NoField(selector.resource.clone()));
    }
    Ok(None)
}

type Lookup<'a> = (&'a BTreeMap<String, Option<Text>>, &'static str, &'static str);

fn keyed(
    (objects, lower, kind): Lookup<'_>,
    name: &str,
    key: &str,
    optional: Option<bool>,
) -> Result<Option<String>, EnvError> {
    let object = objects.get(name).and_then(Option::as_ref);
    match object.map(|data| data.get(key)) {
        Some(Some(value)) => Ok(Some(value.clone())),
        _ if optional == Some(true) => Ok(None),
        Some(None) => Err(EnvError::NoKey { kind, name: name.to_owned(), key: key.to_owned() }),
        None => Err(EnvError::NoObject { kind: lower, name: name.to_owned() }),
    }
}

/// A field of the pod; what the downward API knows apart from resources.
pub fn field(path: &str, sources: Sources<'_>) -> Option<String> {
    let metadata = &sources.pod.metadata;
    let spec = sources.pod.spec.as_ref();
    let joined =
        |addresses: &[IpAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let first = |addresses: &[IpAddr]| addresses.first().map(ToString::to_string).unwrap_or_default();
    let subscript =
        |prefix: &str| path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']").map(str::to_owned);
    Some(match path {
        "metadata.name" => metadata.name.clone().unwrap_or_default(),
        "metadata.namespace" => metadata.namespace.clone().unwrap_or_default(),
        "metadata.uid" => metadata.uid.clone().unwrap_or_default(),
        "metadata.labels" => pairs(metadata.labels.as_ref()),
        "metadata.annotations" => pairs(metadata.annotations.as_ref()),
        "spec.nodeName" => spec?.node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => spec?.service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => first(sources.node_addresses),
        "status.hostIPs" => joined(sources.node_addresses),
        "status.podIP" => first(sources.pod_addresses),
        "status.podIPs" => joined(sources.pod_addresses),
        _ => {
            let (map, key) = match subscript("metadata.labels") {
                Some(key) => (metadata.labels.as_ref(), key),
                None => (metadata.annotations.as_ref(), subscript("metadata.annotations")?),
            };
            map.and_then(|map| map.get(&key)).cloned().unwrap_or_default()
        }
    })
}

fn pairs(map: Option<&BTreeMap<String, String>>) -> String {
    map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}\n")).collect()
}

/// A limit or request of a container in units of the divisor.
pub fn resource(selector: &core::ResourceFieldSelector, container: &core::Container) -> Option<String> {
    let resources = container.resources.clone().unwrap_or_default();
    let (kind, name) = selector.resource.split_once('.')?;
    let amounts = match kind {
        "limits" => resources.limits,
        "requests" => resources.requests,
        _ => return None,
    };
    let milli = amounts.and_then(|amounts| amounts.get(name).and_then(resources::milli)).unwrap_or(0);
    let divisor = selector.divisor.as_ref().and_then(resources::milli).filter(|d| *d > 0).unwrap_or(1000);
    Some((milli / divisor + i128::from(milli % divisor != 0)).to_string())
}

/// The variables every container of a namespace gets for the services of that namespace, and for the API server.
pub fn service_variables<'a>(services: impl Iterator<Item = &'a core::Service>) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    for service in services {
        let Some(spec) = &service.spec else { continue };
        let Some(address) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else {
            continue;
        };
        let name = service.metadata.name.as_deref().unwrap_or_default().to_uppercase().replace('-', "_");
        let ports: Vec<&core::ServicePort> = spec.ports.iter().flatten().collect();
        let Some(first) = ports.first() else { continue };
        let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        let mut put = |key: String, value: String| variables.push((format!("{name}_{key}"), value));
        put("SERVICE_HOST".into(), address.to_owned());
        put("SERVICE_PORT".into(), first.port.to_string());
        for port in &ports {
            if let Some(named) = &port.name {
                put(
                    format!("SERVICE_PORT_{}", named.to_uppercase().replace('-', "_")),
                    port.port.to_string(),
                );
            }
        }
        let url = |port: &core::ServicePort| {
            let protocol = port.protocol.as_deref().unwrap_or("TCP").to_lowercase();
            (format!("{protocol}://{host}:{}", port.port), protocol)
        };
        put("PORT".into(), url(first).0);
        for port in &ports {
            let (url, protocol) = url(port);
            let prefix = format!("PORT_{}_{}", port.port, protocol.to_uppercase());
            put(prefix.clone(), url);
            put(format!("{prefix}_PROTO"), protocol);
            put(format!("{prefix}_PORT"), port.port.to_string());
            put(format!("{prefix}_ADDR"), address.to_owned());
        }
    }
    variables
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_in_values_are_expanded() {
        let known = vec![("A".to_owned(), "1".to_owned()), ("B".to_owned(), "$(A)".to_owned())];
        for (text, want) in [
            ("x$(A)y", "x1y"),
            ("$$(A)", "$(A)"),
            ("$(C)", "$(C)"),
            ("$(B)", "$(A)"),
            ("$(A", "$(A"),
            ("$", "$"),
            ("a$b", "a$b"),
        ] {
            assert_eq!(expand(text, &known), want, "{text}");
        }
    }

    fn run(container: serde_json::Value) -> Result<Vec<(String, String)>, EnvError> {
        let pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "n", "labels": { "app": "x" } },
            "spec": { "containers": [], "nodeName": "node" } }))
        .unwrap();
        let referenced = Referenced {
            config_maps: [
                ("cm".to_owned(), Some([("k".to_owned(), "v".to_owned())].into())),
                ("gone".to_owned(), None),
            ]
            .into(),
            secrets: BTreeMap::new(),
        };
        let addresses = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        let sources = Sources {
            pod: &pod,
            referenced: &referenced,
            services: &[("S".to_owned(), "svc".to_owned())],
            pod_addresses: &addresses,
            node_addresses: &[],
        };
        environment(&serde_json::from_value(container).unwrap(), sources)
    }

    #[test]
    fn every_source_gives_its_value_and_later_ones_win() {
        let got = run(json!({ "name": "c",
            "envFrom": [{ "prefix": "P_", "configMapRef": { "name": "cm" } }, { "configMapRef": { "name": "gone", "optional": true } }],
            "env": [
                { "name": "A", "value": "$(P_k)$(S)" },
                { "name": "S", "value": "own" },
                { "name": "N", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } },
                { "name": "L", "valueFrom": { "fieldRef": { "fieldPath": "metadata.labels['app']" } } },
                { "name": "I", "valueFrom": { "fieldRef": { "fieldPath": "status.podIPs" } } },
                { "name": "K", "valueFrom": { "configMapKeyRef": { "name": "cm", "key": "k" } } },
                { "name": "O", "valueFrom": { "secretKeyRef": { "name": "no", "key": "k", "optional": true } } },
                { "name": "M", "valueFrom": { "resourceFieldRef": { "resource": "limits.memory", "divisor": "1Mi" } } },
            ],
            "resources": { "limits": { "memory": "64Mi" } } }))
        .unwrap();
        let want = [
            ("P_k", "v"),
            ("A", "vsvc"),
            ("S", "own"),
            ("N", "node"),
            ("L", "x"),
            ("I", "10.0.0.1,fd00::1"),
            ("K", "v"),
            ("M", "64"),
        ];
        assert_eq!(got, want.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn what_is_missing_is_named() {
        let missing = |source| {
            run(json!({ "name": "c", "env": [{ "name": "A", "valueFrom": source }] }))
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            missing(json!({ "configMapKeyRef": { "name": "gone", "key": "k" } })),
            "configmap \"gone\" not found"
        );
        assert_eq!(
            missing(json!({ "configMapKeyRef": { "name": "cm", "key": "z" } })),
            "couldn't find key z in ConfigMap cm"
        );
        assert_eq!(
            missing(json!({ "fieldRef": { "fieldPath": "spec.volumes" } })),
            "field \"spec.volumes\" cannot be read through the environment"
        );
    }

    #[test]
    fn services_have_the_variables_of_links() {
        let service: core::Service = serde_json::from_value(json!({ "metadata": { "name": "my-db" },
            "spec": { "clusterIP": "10.96.0.7", "ports": [{ "name": "sql", "port": 5432 }] } }))
        .unwrap();
        let got = service_variables([&service].into_iter());
        let text: Vec<String> = got.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            text,
            [
                "MY_DB_SERVICE_HOST=10.96.0.7",
                "MY_DB_SERVICE_PORT=5432",
                "MY_DB_SERVICE_PORT_SQL=5432",
                "MY_DB_PORT=tcp://10.96.0.7:5432",
                "MY_DB_PORT_5432_TCP=tcp://10.96.0.7:5432",
                "MY_DB_PORT_5432_TCP_PROTO=tcp",
                "MY_DB_PORT_5432_TCP_PORT=5432",
                "MY_DB_PORT_5432_TCP_ADDR=10.96.0.7"
            ]
        );
    }
}
