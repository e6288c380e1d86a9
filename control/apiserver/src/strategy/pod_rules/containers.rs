//! Containers: what all of them have to say, and what those that start first or later may not.

use std::collections::HashSet;

use serde_json::Value;

use super::{Around, Whole, env, probes, resources, security};
use crate::strategy::volume_mounts::validate_mounts;
use crate::tree::{at, int, list, text};
use crate::validate::{self, Errors};

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const POLICIES: &[&str] = &["Always", "Never", "OnFailure"];
const OPERATORS: &[&str] = &["In", "NotIn"];
const ACTIONS: &[&str] = &["Restart", "RestartAllContainers"];
const MOST_RULES: u64 = 20;
const MOST_EXIT_CODES: u64 = 255;

pub fn validate_all(spec: &Value, old: Option<&Value>, around: &Around<'_>, here: &str, errors: &mut Errors) {
    let names = validate_regular(spec, around, here, errors);
    validate_first(spec, names, around, here, errors);
    if old.is_none_or(|old| restarts_to_resize(old, here).next().is_none()) {
        for place in restarts_to_resize(spec, here) {
            let why = "must not be set to 'RestartContainer' for non-sidecar initContainers";
            errors.invalid(place, &Value::from("RestartContainer"), why);
        }
    }
    validate_ephemeral(spec, around, here, errors);
}

fn validate_regular<'a>(
    spec: &'a Value,
    around: &Around<'_>,
    here: &str,
    errors: &mut Errors,
) -> HashSet<&'a str> {
    let mut names = HashSet::new();
    let containers = list(spec, &["containers"]);
    if containers.is_empty() {
        errors.required(format!("{here}.containers"), "");
    }
    for (index, container) in containers.iter().enumerate() {
        let place = format!("{here}.containers[{index}]");
        validate_common(container, around, &place, errors);
        unique_name(container, &mut names, &place, errors);
        probes::validate(container, around.grace, &place, errors);
        validate_restart(container, &place, errors);
        validate_spaces(container, around, &place, errors);
    }
    unique_host_ports(containers, |index| format!("{here}.containers[{index}]"), errors);
    names
}

/// Containers that run before the others; those that go on running then are much like them.
fn validate_first<'a>(
    spec: &'a Value,
    mut names: HashSet<&'a str>,
    around: &Around<'_>,
    here: &str,
    errors: &mut Errors,
) {
    for (index, container) in list(spec, &["initContainers"]).iter().enumerate() {
        let place = format!("{here}.initContainers[{index}]");
        let goes_on = text(container, &["restartPolicy"]) == "Always";
        validate_common(container, around, &place, errors);
        validate_restart(container, &place, errors);
        unique_name(container, &mut names, &place, errors);
        // Upstream counts from nought in each of them.
        unique_host_ports(std::slice::from_ref(container), |_| format!("{here}.initContainers[0]"), errors);
        if goes_on {
            probes::validate(container, around.grace, &place, errors);
        } else {
            for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                if !at(container, &[field]).is_null() {
                    let why = "may not be set for init containers without restartPolicy=Always";
                    errors.forbidden(format!("{place}.{field}"), why);
                }
            }
        }
        validate_spaces(container, around, &place, errors);
    }
}

/// Places where containers that only run first would be restarted to be resized.
fn restarts_to_resize<'a>(spec: &'a Value, here: &'a str) -> impl Iterator<Item = String> {
    let first = list(spec, &["initContainers"]).iter().enumerate();
    let first = first.filter(|(_, container)| text(container, &["restartPolicy"]) != "Always");
    first.flat_map(move |(index, container)| {
        let policies = list(container, &["resizePolicy"]).iter().enumerate();
        let restarts = policies.filter(|(_, policy)| text(policy, &["restartPolicy"]) == "RestartContainer");
        restarts.map(move |(position, _)| {
            format!("{here}.initContainers[{index}].resizePolicy[{position}].restartPolicy")
        })
    })
}

/// What a container may say that is started in a pod to look at the others.
const OF_DEBUGGERS: &[&str] = &[
    "args",
    "command",
    "env",
    "envFrom",
    "image",
    "imagePullPolicy",
    "name",
    "securityContext",
    "stdin",
    "stdinOnce",
    "targetContainerName",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "tty",
    "volumeDevices",
    "volumeMounts",
    "workingDir",
];
const NOT_FOR_DEBUGGERS: &str = "cannot be set for an Ephemeral Container";

fn validate_ephemeral(spec: &Value, around: &Around<'_>, here: &str, errors: &mut Errors) {
    let containers = list(spec, &["ephemeralContainers"]);
    if containers.is_empty() {
        return;
    }
    let others: HashSet<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|group| list(spec, &[group]))
        .map(|container| text(container, &["name"]))
        .collect();
    let mut names = others.clone();
    for (index, container) in containers.iter().enumerate() {
        let place = format!("{here}.ephemeralContainers[{index}]");
        validate_common(container, around, &place, errors);
        validate_spaces(container, around, &place, errors);
        unique_name(container, &mut names, &place, errors);
        let target = text(container, &["targetContainerName"]);
        if !target.is_empty() && !others.contains(target) {
            errors.not_found(format!("{place}.targetContainerName"), &Value::from(target));
        }
        let said = container.as_object().into_iter().flatten();
        for (field, _) in said.filter(|(field, value)| !allowed(field, value)) {
            errors.forbidden(format!("{place}.{field}"), NOT_FOR_DEBUGGERS);
        }
        for (position, mount) in list(container, &["volumeMounts"]).iter().enumerate() {
            for field in ["subPath", "subPathExpr"] {
                if !text(mount, &[field]).is_empty() {
                    errors.forbidden(format!("{place}.volumeMounts[{position}].{field}"), NOT_FOR_DEBUGGERS);
                }
            }
        }
    }
}

fn allowed(field: &str, value: &Value) -> bool {
    let nothing = value.is_null()
        || value.as_object().is_some_and(serde_json::Map::is_empty)
        || value.as_array().is_some_and(Vec::is_empty);
    nothing || OF_DEBUGGERS.contains(&field)
}

fn unique_name<'a>(container: &'a Value, names: &mut HashSet<&'a str>, here: &str, errors: &mut Errors) {
    let name = text(container, &["name"]);
    if !name.is_empty() && !names.insert(name) {
        errors.duplicate(format!("{here}.name"), &Value::from(name));
    }
}

/// Templates have had images with spaces around them for too long.
fn validate_spaces(container: &Value, around: &Around<'_>, here: &str, errors: &mut Errors) {
    let image = text(container, &["image"]);
    if around.whole == Whole::Pod && image != image.trim() {
        let why = "must not have leading or trailing whitespace";
        errors.invalid(format!("{here}.image"), &Value::from(image), why);
    }
}

/// What every container has.
fn validate_common(container: &Value, around: &Around<'_>, here: &str, errors: &mut Errors) {
    errors.named(format!("{here}.name"), text(container, &["name"]), validate::label);
    if text(container, &["image"]).is_empty() {
        errors.required(format!("{here}.image"), "");
    }
    errors.chosen(
        format!("{here}.terminationMessagePolicy"),
        text(container, &["terminationMessagePolicy"]),
        &["File", "FallbackToLogsOnError"],
    );
    validate_ports(container, here, errors);
    env::validate(container, here, errors);
    validate_mounts(container, here, &around.volumes, errors);
    let pull = ["Always", "IfNotPresent", "Never"];
    errors.chosen(format!("{here}.imagePullPolicy"), text(container, &["imagePullPolicy"]), &pull);
    resources::validate_of_container(container, around, here, errors);
    resources::validate_resize_policy(container, around.restarts, here, errors);
    security::validate_of_container(container, around.host_users, here, errors);
}

fn validate_ports(container: &Value, here: &str, errors: &mut Errors) {
    let mut names = HashSet::new();
    for (index, port) in list(container, &["ports"]).iter().enumerate() {
        let place = format!("{here}.ports[{index}]");
        let name = text(port, &["name"]);
        if !name.is_empty() {
            let found = errors.len();
            errors.port_name(&format!("{place}.name"), name);
            if errors.len() == found && !names.insert(name) {
                errors.duplicate(format!("{place}.name"), &Value::from(name));
            }
        }
        match int(port, &["containerPort"]).unwrap_or_default() {
            0 => errors.required(format!("{place}.containerPort"), ""),
            number => errors.port(format!("{place}.containerPort"), number),
        }
        if let Some(number) = int(port, &["hostPort"]).filter(|number| *number != 0) {
            errors.port(format!("{place}.hostPort"), number);
        }
        errors.chosen(format!("{place}.protocol"), text(port, &["protocol"]), PROTOCOLS);
    }
}

fn unique_host_ports(containers: &[Value], place: impl Fn(usize) -> String, errors: &mut Errors) {
    let mut taken = HashSet::new();
    for (index, container) in containers.iter().enumerate() {
        for (position, port) in list(container, &["ports"]).iter().enumerate() {
            let number = int(port, &["hostPort"]).unwrap_or_default();
            let (protocol, address) = (text(port, &["protocol"]), text(port, &["hostIP"]));
            if number != 0 && !taken.insert((protocol, address, number)) {
                let field = format!("{}.ports[{position}].hostPort", place(index));
                errors.duplicate(field, &Value::from(format!("{protocol}/{address}/{number}")));
            }
        }
    }
}

/// Whether and when a container is started again, where it says so itself.
fn validate_restart(container: &Value, here: &str, errors: &mut Errors) {
    let rules = list(container, &["restartPolicyRules"]);
    match at(container, &["restartPolicy"]).as_str() {
        Some(policy) => errors.must_be(format!("{here}.restartPolicy"), policy, POLICIES),
        None if rules.is_empty() => return,
        None => {
            let why = "must specify restartPolicy when restart rules are used";
            errors.required(format!("{here}.restartPolicy"), why);
        }
    }
    if rules.len() as u64 > MOST_RULES {
        errors.too_many(format!("{here}.restartPolicyRules"), rules.len() as u64, MOST_RULES);
    }
    for (index, rule) in rules.iter().enumerate() {
        let place = format!("{here}.restartPolicyRules[{index}]");
        errors.must_be(format!("{place}.action"), text(rule, &["action"]), ACTIONS);
        let codes = at(rule, &["exitCodes"]);
        if codes.is_null() {
            errors.required(format!("{place}.exitCodes"), "must be specified");
            continue;
        }
        errors.must_be(format!("{place}.exitCodes.operator"), text(codes, &["operator"]), OPERATORS);
        let count = list(codes, &["values"]).len() as u64;
        if count > MOST_EXIT_CODES {
            errors.too_many(format!("{place}.exitCodes.values"), count, MOST_EXIT_CODES);
        }
    }
}
