//! Probes, and what is done when a container starts and stops.

use serde_json::Value;

use crate::tree::{at, int, list, text};
use crate::validate::Errors;

/// `grace` is how long the pod has to end.
pub fn validate(container: &Value, grace: Option<i64>, here: &str, errors: &mut Errors) {
    for hook in ["postStart", "preStop"] {
        let handler = at(container, &["lifecycle", hook]);
        if handler.is_object() {
            validate_handler(handler, HOOKS, grace, &format!("{here}.lifecycle.{hook}"), errors);
        }
    }
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = at(container, &[kind]);
        if probe.is_object() {
            validate_probe(probe, kind, &format!("{here}.{kind}"), errors);
        }
    }
}

fn validate_probe(probe: &Value, kind: &str, here: &str, errors: &mut Errors) {
    validate_handler(probe, PROBES, None, here, errors);
    for field in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        errors.not_negative(format!("{here}.{field}"), int(probe, &[field]));
    }
    let grace = at(probe, &["terminationGracePeriodSeconds"]);
    if grace.as_i64().is_some_and(|seconds| seconds <= 0) {
        errors.invalid(format!("{here}.terminationGracePeriodSeconds"), grace, "must be greater than 0");
    }
    if kind == "readinessProbe" {
        if !grace.is_null() {
            let why = "must not be set for readinessProbes";
            errors.invalid(format!("{here}.terminationGracePeriodSeconds"), grace, why);
        }
        return;
    }
    let times = int(probe, &["successThreshold"]).unwrap_or_default();
    if times != 1 {
        errors.invalid(format!("{here}.successThreshold"), &times.into(), "must be 1");
    }
}

const PROBES: &[&str] = &["exec", "httpGet", "tcpSocket", "grpc"];
const HOOKS: &[&str] = &["exec", "httpGet", "tcpSocket", "sleep"];

fn validate_handler(handler: &Value, kinds: &[&str], grace: Option<i64>, here: &str, errors: &mut Errors) {
    let mut given = kinds.iter().filter(|kind| at(handler, &[kind]).is_object());
    let Some(kind) = given.next() else {
        errors.required(here, "must specify a handler type");
        return;
    };
    let (action, place) = (at(handler, &[kind]), format!("{here}.{kind}"));
    match *kind {
        "exec" if list(action, &["command"]).is_empty() => errors.required(format!("{place}.command"), ""),
        "httpGet" => validate_request(action, &place, errors),
        "tcpSocket" | "grpc" => validate_port(at(action, &["port"]), &format!("{place}.port"), errors),
        "sleep" => validate_sleep(action, grace, &place, errors),
        _ => {}
    }
    for other in given {
        errors.forbidden(format!("{here}.{other}"), "may not specify more than 1 handler type");
    }
}

fn validate_request(request: &Value, here: &str, errors: &mut Errors) {
    if text(request, &["path"]).is_empty() {
        errors.required(format!("{here}.path"), "");
    }
    validate_port(at(request, &["port"]), &format!("{here}.port"), errors);
    errors.must_be(format!("{here}.scheme"), text(request, &["scheme"]), &["HTTP", "HTTPS"]);
    for header in list(request, &["httpHeaders"]) {
        errors.check(format!("{here}.httpHeaders"), text(header, &["name"]), header_name);
    }
}

fn header_name(name: &str) -> Result<(), String> {
    if !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
        return Ok(());
    }
    Err("a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for \
         validation is '[-A-Za-z0-9]+')"
        .to_owned())
}

fn validate_port(port: &Value, here: &str, errors: &mut Errors) {
    match port {
        Value::String(name) => errors.port_name(here, name),
        number => errors.port(here, number.as_i64().unwrap_or_default()),
    }
}

fn validate_sleep(action: &Value, grace: Option<i64>, here: &str, errors: &mut Errors) {
    let seconds = int(action, &["seconds"]).unwrap_or_default();
    if let Some(grace) = grace
        && !(0..=grace).contains(&seconds)
    {
        let why = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        errors.invalid(here, &seconds.into(), &why);
    }
}
