//! Defaults of a pod's spec, in pods and in templates.

use serde_json::{Value, json};

use crate::tree::{at, flag, int, list_mut, set, set_default, text};

/// Defaults of a pod spec; `path` leads to it.
pub fn default_spec(object: &mut Value, path: &[&str]) {
    let pointer: String = path.iter().map(|name| format!("/{name}")).collect();
    let Some(spec) = object.pointer_mut(&pointer).filter(|spec| spec.is_object()) else { return };
    set_default(spec, &["restartPolicy"], "Always");
    set_default(spec, &["terminationGracePeriodSeconds"], 30);
    set_default(spec, &["dnsPolicy"], "ClusterFirst");
    set_default(spec, &["securityContext"], json!({}));
    set_default(spec, &["schedulerName"], "default-scheduler");
    // The old name of the field and the new one always agree.
    let account = text(spec, &["serviceAccountName"]).to_owned();
    let account = if account.is_empty() { text(spec, &["serviceAccount"]).to_owned() } else { account };
    if !account.is_empty() {
        set(spec, &["serviceAccountName"], account.as_str());
        set(spec, &["serviceAccount"], account);
    }
    for group in ["initContainers", "containers", "ephemeralContainers"] {
        list_mut(spec, &[group]).iter_mut().for_each(default_container);
    }
    list_mut(spec, &["volumes"]).iter_mut().for_each(super::volumes::default_volume);
}

/// Defaults that a pod has and a template leaves open.
pub fn default_pod_only(spec: &mut Value) {
    let host_network = flag(spec, &["hostNetwork"]);
    for group in ["containers", "initContainers"] {
        for container in list_mut(spec, &[group]) {
            default_requests(container);
            for port in list_mut(container, &["ports"]).iter_mut().filter(|_| host_network) {
                let own = int(port, &["containerPort"]).unwrap_or_default();
                if int(port, &["hostPort"]).unwrap_or_default() == 0 && own != 0 {
                    set(port, &["hostPort"], own);
                }
            }
        }
    }
    super::pod_sizes::default_sizes(spec);
    set_default(spec, &["enableServiceLinks"], true);
}

fn default_container(container: &mut Value) {
    set_default(container, &["resources"], json!({}));
    set_default(container, &["terminationMessagePath"], "/dev/termination-log");
    set_default(container, &["terminationMessagePolicy"], "File");
    let policy = pull_policy(text(container, &["image"]));
    set_default(container, &["imagePullPolicy"], policy);
    for port in list_mut(container, &["ports"]) {
        set_default(port, &["protocol"], "TCP");
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(probe) {
            default_probe(probe);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(request) = container.pointer_mut(&format!("/lifecycle/{hook}/httpGet")) {
            default_http_get(request);
        }
    }
    for variable in list_mut(container, &["env"]) {
        if let Some(field) = variable.pointer_mut("/valueFrom/fieldRef") {
            set_default(field, &["apiVersion"], "v1");
        }
        if variable.get("value").is_some_and(|value| value == "") {
            crate::tree::remove(variable, &["value"]);
        }
    }
}

/// A limit without a request is also the request.
fn default_requests(container: &mut Value) {
    let Some(limits) = at(container, &["resources", "limits"]).as_object().cloned() else { return };
    for (name, limit) in limits {
        set_default(container, &["resources", "requests", &name], limit);
    }
}

/// When an image is pulled unless somebody says something else.
pub fn pull_policy(image: &str) -> &'static str {
    if is_latest(image) { "Always" } else { "IfNotPresent" }
}

/// Whether an image reference means "the newest": no tag, or `:latest`, and no digest.
fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

fn default_probe(probe: &mut Value) {
    for (name, value) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        if int(probe, &[name]).unwrap_or_default() == 0 {
            set(probe, &[name], value);
        }
    }
    if let Some(request) = probe.get_mut("httpGet") {
        default_http_get(request);
    }
    if let Some(grpc) = probe.get_mut("grpc") {
        set_default(grpc, &["service"], "");
    }
}

fn default_http_get(request: &mut Value) {
    set_default(request, &["path"], "/");
    set_default(request, &["scheme"], "HTTP");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pull_policy_follows_the_tag() {
        for (image, want) in [
            ("nginx", true),
            ("nginx:latest", true),
            ("nginx:1.2", false),
            ("host:5000/nginx", true),
            ("host:5000/nginx:1", false),
            ("nginx@sha256:abc", false),
        ] {
            assert_eq!(is_latest(image), want, "{image}");
        }
    }

    #[test]
    fn limits_become_requests_of_pods_where_none_are_given() {
        let mut pod = json!({"spec": {"containers": [{"name": "a", "image": "i:1",
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}}]}});
        default_spec(&mut pod, &["spec"]);
        assert_eq!(pod["spec"]["containers"][0]["resources"]["requests"], json!({"cpu": "500m"}));
        default_pod_only(&mut pod["spec"]);
        let resources = &pod["spec"]["containers"][0]["resources"];
        assert_eq!(resources["requests"], json!({"cpu": "500m", "memory": "1Gi"}));
        assert_eq!(pod["spec"]["restartPolicy"], "Always");
    }
}
