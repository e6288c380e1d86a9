//! Validation of a pod's spec, in pods and in templates.

use std::collections::HashSet;

use serde_json::Value;

use super::volume_mounts::validate_mounts;
use super::volume_rules::{Volumes, validate_volumes};
use crate::schema::quantity_millis;
use crate::tree::{at, flag, int, list, strings, text};
use crate::validate::{self, Errors};

/// Checks a pod spec at `here`.
pub fn validate_spec(spec: &Value, here: &str, errors: &mut Errors) {
    if !spec.is_object() {
        errors.required(here, "");
        return;
    }
    let volumes = validate_volumes(spec, here, errors);
    let containers = list(spec, &["containers"]);
    if containers.is_empty() {
        errors.required(format!("{here}.containers"), "");
    }
    let mut names = HashSet::new();
    for group in ["initContainers", "containers"] {
        for (at, container) in list(spec, &[group]).iter().enumerate() {
            let place = format!("{here}.{group}[{at}]");
            validate_container(container, &place, &volumes, errors);
            let name = text(container, &["name"]);
            if !name.is_empty() && !names.insert(name) {
                errors.duplicate(format!("{place}.name"), &Value::from(name));
            }
        }
    }
    validate_ports(spec, here, errors);
    errors.one_of(
        format!("{here}.restartPolicy"),
        text(spec, &["restartPolicy"]),
        &["Always", "OnFailure", "Never"],
    );
    let dns = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
    errors.one_of(format!("{here}.dnsPolicy"), text(spec, &["dnsPolicy"]), &dns);
    if text(spec, &["dnsPolicy"]) == "None" && list(spec, &["dnsConfig", "nameservers"]).is_empty() {
        errors.required(
            format!("{here}.dnsConfig.nameservers"),
            "must provide at least one DNS nameserver when `dnsPolicy` is None",
        );
    }
    let account = text(spec, &["serviceAccountName"]);
    if !account.is_empty() {
        errors.check(format!("{here}.serviceAccountName"), account, validate::subdomain);
    }
    for (field, check) in [
        ("nodeName", validate::subdomain as fn(&str) -> _),
        ("hostname", validate::label),
        ("subdomain", validate::label),
    ] {
        if !text(spec, &[field]).is_empty() {
            errors.check(format!("{here}.{field}"), text(spec, &[field]), check);
        }
    }
    super::sysctls::validate(spec, here, errors);
    for (key, value) in strings(spec, &["nodeSelector"]) {
        errors.check(format!("{here}.nodeSelector"), key, validate::label_key);
        errors.check(format!("{here}.nodeSelector"), value, validate::label_value);
    }
    errors.not_negative(
        format!("{here}.terminationGracePeriodSeconds"),
        int(spec, &["terminationGracePeriodSeconds"]),
    );
    if int(spec, &["activeDeadlineSeconds"]).is_some_and(|seconds| seconds < 1) {
        errors.invalid(
            format!("{here}.activeDeadlineSeconds"),
            at(spec, &["activeDeadlineSeconds"]),
            "must be between 1 and 2147483647, inclusive",
        );
    }
    validate_tolerations(spec, here, errors);
}

pub fn validate_container(container: &Value, here: &str, volumes: &Volumes<'_>, errors: &mut Errors) {
    let name = text(container, &["name"]);
    if name.is_empty() {
        errors.required(format!("{here}.name"), "");
    } else {
        errors.check(format!("{here}.name"), name, validate::label);
    }
    let image = text(container, &["image"]);
    if image.is_empty() {
        errors.required(format!("{here}.image"), "");
    } else if image != image.trim() {
        errors.invalid(
            format!("{here}.image"),
            &Value::from(image),
            "must not have leading or trailing whitespace",
        );
    }
    errors.one_of(
        format!("{here}.imagePullPolicy"),
        text(container, &["imagePullPolicy"]),
        &["Always", "IfNotPresent", "Never"],
    );
    let messages = ["File", "FallbackToLogsOnError"];
    errors.one_of(
        format!("{here}.terminationMessagePolicy"),
        text(container, &["terminationMessagePolicy"]),
        &messages,
    );
    validate_mounts(container, here, volumes, errors);
    for (at, variable) in list(container, &["env"]).iter().enumerate() {
        let place = format!("{here}.env[{at}]");
        let name = text(variable, &["name"]);
        if name.is_empty() {
            errors.required(format!("{place}.name"), "");
        } else {
            errors.check(format!("{place}.name"), name, validate::env_name);
        }
        if !text(variable, &["value"]).is_empty() && variable.get("valueFrom").is_some() {
            errors.invalid(
                format!("{place}.valueFrom"),
                &Value::from(""),
                "may not be specified when `value` is not empty",
            );
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(value) = container.get(probe) {
            validate_probe(value, &format!("{here}.{probe}"), errors);
        }
    }
    validate_resources(container, here, errors);
}

fn validate_probe(probe: &Value, here: &str, errors: &mut Errors) {
    let handlers =
        ["exec", "httpGet", "tcpSocket", "grpc"].iter().filter(|name| probe.get(**name).is_some()).count();
    match handlers {
        0 => errors.required(here, "must specify a handler type"),
        1 => {}
        _ => errors.forbidden(here, "may not specify more than 1 handler type"),
    }
    for field in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        errors.not_negative(format!("{here}.{field}"), int(probe, &[field]));
    }
    for (handler, required) in [("httpGet", "port"), ("tcpSocket", "port"), ("grpc", "port")] {
        if let Some(number) = at(probe, &[handler, required]).as_i64() {
            errors.port(format!("{here}.{handler}.{required}"), number);
        }
    }
}

fn validate_resources(container: &Value, here: &str, errors: &mut Errors) {
    let limits = at(container, &["resources", "limits"]);
    for kind in ["limits", "requests"] {
        for (name, amount) in strings(container, &["resources", kind]) {
            let place = format!("{here}.resources.{kind}[{name}]");
            let millis = quantity_millis(amount).unwrap_or_default();
            if millis < 0 {
                errors.invalid(&place, &Value::from(amount), "must be greater than or equal to 0");
            }
            let known =
                ["cpu", "memory", "ephemeral-storage"].contains(&name) || name.starts_with("hugepages-");
            if !known && !name.contains('/') {
                errors.invalid(&place, &Value::from(name), "must be a standard resource for containers");
            }
            let limit = (kind == "requests").then(|| text(limits, &[name])).filter(|limit| !limit.is_empty());
            if let Some(limit) = limit
                && quantity_millis(limit).is_some_and(|limit| millis > limit)
            {
                errors.invalid(
                    format!("{here}.resources.requests"),
                    &Value::from(amount),
                    &format!("must be less than or equal to {name} limit of {limit}"),
                );
            }
        }
    }
}

fn validate_ports(spec: &Value, here: &str, errors: &mut Errors) {
    let mut host_ports = HashSet::new();
    for (index, container) in list(spec, &["containers"]).iter().enumerate() {
        let mut names = HashSet::new();
        for (position, port) in list(container, &["ports"]).iter().enumerate() {
            let place = format!("{here}.containers[{index}].ports[{position}]");
            match int(port, &["containerPort"]) {
                None => errors.required(format!("{place}.containerPort"), ""),
                Some(number) => errors.port(format!("{place}.containerPort"), number),
            }
            let protocol = text(port, &["protocol"]);
            errors.one_of(format!("{place}.protocol"), protocol, &["TCP", "UDP", "SCTP"]);
            let name = text(port, &["name"]);
            if !name.is_empty() {
                errors.port_name(&format!("{place}.name"), name);
                if !names.insert(name) {
                    errors.duplicate(format!("{place}.name"), &Value::from(name));
                }
            }
            if let Some(number) = int(port, &["hostPort"]).filter(|number| *number != 0) {
                errors.port(format!("{place}.hostPort"), number);
                if flag(spec, &["hostNetwork"]) && Some(number) != int(port, &["containerPort"]) {
                    errors.invalid(
                        format!("{place}.containerPort"),
                        at(port, &["containerPort"]),
                        "must match `hostPort` when `hostNetwork` is true",
                    );
                }
                if !host_ports.insert((protocol.to_owned(), text(port, &["hostIP"]).to_owned(), number)) {
                    errors.duplicate(format!("{place}.hostPort"), &Value::from(number));
                }
            }
        }
    }
}

pub fn validate_tolerations(spec: &Value, here: &str, errors: &mut Errors) {
    for (at, toleration) in list(spec, &["tolerations"]).iter().enumerate() {
        let place = format!("{here}.tolerations[{at}]");
        let (key, operator) = (text(toleration, &["key"]), text(toleration, &["operator"]));
        errors.one_of(format!("{place}.operator"), operator, &["Equal", "Exists", "Lt", "Gt"]);
        errors.one_of(
            format!("{place}.effect"),
            text(toleration, &["effect"]),
            &["NoSchedule", "PreferNoSchedule", "NoExecute"],
        );
        if key.is_empty() && operator != "Exists" {
            errors.invalid(
                format!("{place}.operator"),
                &Value::from(operator),
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            );
        }
        if operator == "Exists" && !text(toleration, &["value"]).is_empty() {
            errors.invalid(
                format!("{place}.operator"),
                &Value::from(text(toleration, &["value"])),
                "value must be empty when `operator` is 'Exists'",
            );
        }
    }
}
