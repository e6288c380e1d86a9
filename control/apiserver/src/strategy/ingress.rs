//! Ingresses and their classes.

use serde_json::Value;

use super::Change;
use super::addresses::{lenient, validate_balancers};
use crate::resources::Sub;
use crate::tree::{at, int, list, set_default, text};
use crate::validate::{self, Errors};

const CLASS: &str = "kubernetes.io/ingress.class";
const LONGEST_CONTROLLER: usize = 250;
/// What ways to write a path may not be exact or a prefix: the same path in another form.
const FORBIDDEN: &[&str] = &["//", "/./", "/../", "%2f", "%2F"];
const FORBIDDEN_AT_END: &[&str] = &["/..", "/."];

pub fn validate_ingress(change: &Change<'_>, errors: &mut Errors) {
    let (spec, old) = (at(change.new, &["spec"]), change.old);
    let rules = list(spec, &["rules"]);
    let backend = at(spec, &["defaultBackend"]);
    if rules.is_empty() && backend.is_null() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.invalid("spec", at(spec, &["rules"]), detail);
    }
    if !backend.is_null() {
        validate_backend(backend, "spec.defaultBackend", errors);
    }
    let spare_wildcards = old.is_some_and(has_broken_wildcard);
    for (index, rule) in rules.iter().enumerate() {
        let here = format!("spec.rules[{index}]");
        let host = text(rule, &["host"]);
        validate_host(host, &format!("{here}.host"), errors);
        if !(spare_wildcards && host.contains('*')) {
            validate_rule(rule, &here, errors);
        }
    }
    let spare_secrets = old.is_some_and(has_broken_secret);
    for (index, tls) in list(spec, &["tls"]).iter().enumerate() {
        validate_tls(tls, spare_secrets, &format!("spec.tls[{index}]"), errors);
    }
    if let Some(class) = at(spec, &["ingressClassName"]).as_str() {
        errors.check("spec.ingressClassName", class, validate::subdomain);
        let annotation = at(change.new, &["metadata", "annotations", CLASS]);
        if old.is_none() && annotation.as_str().is_some_and(|annotation| annotation != class) {
            let detail = "must match `ingressClassName` when both are specified";
            errors.invalid(format!("annotations.{CLASS}"), annotation, detail);
        }
    }
}

pub fn validate_ingress_status(_: Sub, change: &Change<'_>, errors: &mut Errors) {
    let path = ["status", "loadBalancer"];
    let old = change.old.map_or(&Value::Null, |old| at(old, &path));
    validate_balancers(at(change.new, &path), old, "status.loadBalancer", errors);
}

fn has_broken_wildcard(old: &Value) -> bool {
    list(old, &["spec", "rules"]).iter().filter(|rule| text(rule, &["host"]).contains('*')).any(|rule| {
        let mut errors = Errors::default();
        validate_rule(rule, "", &mut errors);
        !errors.is_empty()
    })
}

fn has_broken_secret(old: &Value) -> bool {
    list(old, &["spec", "tls"]).iter().map(|tls| text(tls, &["secretName"])).any(is_broken_secret)
}

fn is_broken_secret(name: &str) -> bool {
    !name.is_empty() && validate::subdomain(name).is_err()
}

fn domain(host: &str) -> Result<(), String> {
    if host.contains('*') { validate::wildcard_subdomain(host) } else { validate::subdomain(host) }
}

fn validate_host(host: &str, here: &str, errors: &mut Errors) {
    if host.is_empty() {
        return;
    }
    if lenient(host).is_some() {
        errors.invalid(here, &Value::from(host), "must be a DNS name, not an IP address");
    }
    errors.check(here, host, domain);
}

fn validate_tls(tls: &Value, spare_secrets: bool, here: &str, errors: &mut Errors) {
    for (index, host) in list(tls, &["hosts"]).iter().enumerate() {
        errors.check(format!("{here}.hosts[{index}]"), host.as_str().unwrap_or_default(), domain);
    }
    let secret = text(tls, &["secretName"]);
    if !spare_secrets && !secret.is_empty() {
        errors.check(format!("{here}.secretName"), secret, validate::subdomain);
    }
}

fn validate_rule(rule: &Value, here: &str, errors: &mut Errors) {
    if at(rule, &["http"]).is_null() {
        return;
    }
    let paths = list(rule, &["http", "paths"]);
    if paths.is_empty() {
        errors.required(format!("{here}.http.paths"), "");
    }
    for (index, path) in paths.iter().enumerate() {
        validate_path(path, &format!("{here}.http.paths[{index}]"), errors);
    }
}

fn validate_path(path: &Value, here: &str, errors: &mut Errors) {
    let Some(kind) = at(path, &["pathType"]).as_str() else {
        errors.required(format!("{here}.pathType"), "pathType must be specified");
        return;
    };
    let (given, place) = (text(path, &["path"]), format!("{here}.path"));
    let is_exact = matches!(kind, "Exact" | "Prefix");
    if (is_exact || (kind == "ImplementationSpecific" && !given.is_empty())) && !given.starts_with('/') {
        errors.invalid(&place, &Value::from(given), "must be an absolute path");
    }
    if is_exact {
        let within = FORBIDDEN.iter().filter(|part| given.contains(**part));
        let at_end = FORBIDDEN_AT_END.iter().filter(|part| given.ends_with(**part));
        let whys = within.map(|part| format!("must not contain '{part}'"));
        for why in whys.chain(at_end.map(|part| format!("cannot end with '{part}'"))) {
            errors.invalid(&place, &Value::from(given), &why);
        }
    }
    errors.must_be(format!("{here}.pathType"), kind, &["Exact", "ImplementationSpecific", "Prefix"]);
    validate_backend(at(path, &["backend"]), &format!("{here}.backend"), errors);
}

fn validate_backend(backend: &Value, here: &str, errors: &mut Errors) {
    let (resource, service) = (at(backend, &["resource"]), at(backend, &["service"]));
    let nothing = Value::from("");
    match (resource.is_null(), service.is_null()) {
        (false, false) => errors.invalid(here, &nothing, "cannot set both resource and service backends"),
        (false, true) => validate_reference(resource, &format!("{here}.resource"), errors),
        (true, false) => validate_service(service, here, errors),
        (true, true) => errors.invalid(here, &nothing, "resource or service backend is required"),
    }
}

fn validate_service(service: &Value, here: &str, errors: &mut Errors) {
    errors.named(format!("{here}.service.name"), text(service, &["name"]), validate::label);
    let (name, number) =
        (text(service, &["port", "name"]), int(service, &["port", "number"]).unwrap_or_default());
    match (name, number) {
        ("", 0) => errors.required(here, "port name or number is required"),
        ("", number) => errors.port(format!("{here}.service.port.number"), number),
        (name, 0) => errors.port_name(&format!("{here}.service.port.name"), name),
        _ => errors.invalid(here, &Value::from(""), "cannot set both port name & port number"),
    }
}

/// An object by its group, kind and name.
fn validate_reference(reference: &Value, here: &str, errors: &mut Errors) {
    if let Some(group) = at(reference, &["apiGroup"]).as_str() {
        errors.check(format!("{here}.apiGroup"), group, validate::subdomain);
    }
    for field in ["kind", "name"] {
        errors.named(format!("{here}.{field}"), text(reference, &[field]), validate::path_segment);
    }
}

pub fn default_ingress_class(class: &mut Value) {
    if at(class, &["spec", "parameters"]).is_object() && at(class, &["spec", "parameters", "scope"]).is_null()
    {
        set_default(class, &["spec", "parameters", "scope"], "Cluster");
    }
}

pub fn validate_ingress_class(change: &Change<'_>, errors: &mut Errors) {
    let spec = at(change.new, &["spec"]);
    if let Some(old) = change.old {
        errors.immutable("spec.controller", at(old, &["spec", "controller"]), at(spec, &["controller"]));
    }
    validate_controller(text(spec, &["controller"]), errors);
    let parameters = at(spec, &["parameters"]);
    if !parameters.is_null() {
        validate_reference(parameters, "spec.parameters", errors);
        validate_scope(parameters, errors);
    }
}

fn validate_controller(controller: &str, errors: &mut Errors) {
    let place = "spec.controller";
    if controller.is_empty() {
        errors.required(place, "");
        return;
    }
    if controller.len() > LONGEST_CONTROLLER {
        errors.too_long(place, LONGEST_CONTROLLER);
    }
    match controller.split_once('/') {
        Some((host, path)) if !host.is_empty() && !path.is_empty() => {
            errors.check(place, host, validate::subdomain);
            errors.check(place, path, http_path);
        }
        _ => {
            let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            errors.invalid(place, &Value::from(controller), detail);
        }
    }
}

fn http_path(path: &str) -> Result<(), String> {
    if path.bytes().all(|c| c.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&c)) {
        return Ok(());
    }
    Err("Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')".to_owned())
}

fn validate_scope(parameters: &Value, errors: &mut Errors) {
    let (namespace, place) = (at(parameters, &["namespace"]), "spec.parameters.namespace");
    match at(parameters, &["scope"]).as_str() {
        None => errors.required("spec.parameters.scope", ""),
        Some("Namespace") => match namespace.as_str() {
            None => errors.required(place, "`parameters.scope` is set to 'Namespace'"),
            Some(namespace) => errors.check(place, namespace, validate::label),
        },
        Some("Cluster") if !namespace.is_null() => {
            errors.forbidden(place, "`parameters.scope` is set to 'Cluster'");
        }
        Some(scope) => errors.must_be("spec.parameters.scope", scope, &["Cluster", "Namespace"]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(errors: Errors) -> Vec<String> {
        errors.into_causes().into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    fn ingress(old: Option<&Value>, mut new: Value) -> Vec<String> {
        let mut errors = Errors::default();
        validate_ingress(&Change { old, new: &mut new }, &mut errors);
        told(errors)
    }

    fn backend() -> Value {
        json!({ "service": { "name": "a", "port": { "number": 80 } } })
    }

    /// An Ingress whose one path is `path`.
    fn with_path(path: Value) -> Value {
        let mut whole = json!({ "path": "/", "pathType": "Prefix", "backend": backend() });
        json_patch::merge(&mut whole, &path);
        json!({ "spec": { "rules": [{ "host": "a.example", "http": { "paths": [whole] } }] } })
    }

    #[test]
    fn paths_are_absolute_and_written_in_one_way() {
        let place = "spec.rules[0].http.paths[0].path";
        for (kind, path, want) in [
            ("Prefix", "/", vec![]),
            ("Exact", "/a/b.c", vec![]),
            ("ImplementationSpecific", "", vec![]),
            ("ImplementationSpecific", "/a//b", vec![]),
            (
                "ImplementationSpecific",
                "a",
                vec![format!("{place}: Invalid value: \"a\": must be an absolute path")],
            ),
            ("Exact", "", vec![format!("{place}: Invalid value: \"\": must be an absolute path")]),
            ("Prefix", "/a//b", vec![format!("{place}: Invalid value: \"/a//b\": must not contain '//'")]),
            ("Prefix", "/a/..", vec![format!("{place}: Invalid value: \"/a/..\": cannot end with '/..'")]),
            ("Prefix", "/%2f", vec![format!("{place}: Invalid value: \"/%2f\": must not contain '%2f'")]),
            (
                "Whole",
                "/",
                vec![format!(
                    "{place}Type: Unsupported value: \"Whole\": supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\""
                )],
            ),
        ] {
            assert_eq!(
                ingress(None, with_path(json!({ "pathType": kind, "path": path }))),
                want,
                "{kind} {path}"
            );
        }
        let want = [format!("{place}Type: Required value: pathType must be specified")];
        assert_eq!(ingress(None, with_path(json!({ "pathType": null }))), want);
    }

    #[test]
    fn a_backend_is_a_port_of_a_service_or_an_object() {
        let reference = |more: Value| {
            let mut object = json!({ "apiGroup": "x.io", "kind": "K", "name": "n" });
            json_patch::merge(&mut object, &more);
            json!({ "resource": object })
        };
        let service = |name: &str, port: Value| json!({ "service": { "name": name, "port": port } });
        for (backend, want) in [
            (backend(), ""),
            (service("1a", json!({ "name": "http" })), ""),
            (reference(json!({ "apiGroup": null })), ""),
            (json!({}), ": Invalid value: \"\": resource or service backend is required"),
            (
                service("a", json!({ "name": "http", "number": 80 })),
                ": Invalid value: \"\": cannot set both port name & port number",
            ),
            (service("a", json!({})), ": Required value: port name or number is required"),
            (service("", json!({ "number": 80 })), ".service.name: Required value"),
            (
                service("a.b", json!({ "number": 80 })),
                ".service.name: Invalid value: \"a.b\": must not contain dots",
            ),
            (
                service("a", json!({ "number": 70_000 })),
                ".service.port.number: Invalid value: 70000: must be between 1 and 65535, inclusive",
            ),
            (
                service("a", json!({ "name": "1" })),
                ".service.port.name: Invalid value: \"1\": must contain at least one letter (a-z)",
            ),
            (reference(json!({ "kind": "" })), ".resource.kind: Required value"),
            (
                reference(json!({ "name": "a/b" })),
                ".resource.name: Invalid value: \"a/b\": may not contain '/'",
            ),
        ] {
            let want: Vec<String> = [want]
                .iter()
                .filter(|want| !want.is_empty())
                .map(|want| format!("spec.defaultBackend{want}"))
                .collect();
            assert_eq!(ingress(None, json!({ "spec": { "defaultBackend": backend } })), want);
        }
        let both = json!({ "spec": { "defaultBackend": { "service": {}, "resource": {} } } });
        let want = "spec.defaultBackend: Invalid value: \"\": cannot set both resource and service backends";
        assert_eq!(ingress(None, both), [want]);
        let want = "spec: Invalid value: null: either `defaultBackend` or `rules` must be specified";
        assert_eq!(ingress(None, json!({ "spec": {} })), [want]);
    }

    #[test]
    fn hosts_are_names_also_of_all_below_a_domain() {
        let of = |host: &str| {
            let mut new = with_path(json!({}));
            new["spec"]["rules"][0]["host"] = json!(host);
            new["spec"]["tls"] = json!([{ "hosts": [host], "secretName": "s" }]);
            ingress(None, new)
                .into_iter()
                .map(|told| told.split(": ").next().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        let none: [&str; 0] = [];
        assert_eq!(of("a.example"), none);
        assert_eq!(of("*.example"), none);
        for host in ["*", "a.*.b", "*a.b", "A.b", "a_b"] {
            assert_eq!(of(host), ["spec.rules[0].host", "spec.tls[0].hosts[0]"], "{host}");
        }
        assert_eq!(of("10.0.0.1"), ["spec.rules[0].host"]);
    }

    #[test]
    fn what_was_taken_before_may_stay() {
        let mut old = with_path(json!({}));
        old["spec"]["tls"] = json!([{ "secretName": "A_B" }]);
        assert_eq!(ingress(None, old.clone()).len(), 1);
        assert_eq!(ingress(Some(&old), old.clone()), [""; 0]);
        let mut old = with_path(json!({ "path": "//" }));
        assert_eq!(ingress(Some(&old), old.clone()).len(), 1);
        old["spec"]["rules"][0]["host"] = json!("*.example");
        assert_eq!(ingress(Some(&old), old.clone()), [""; 0]);
    }

    #[test]
    fn the_annotation_of_a_new_ingress_names_its_class() {
        let of = |annotation: &str| {
            let mut new = with_path(json!({}));
            new["metadata"] = json!({ "annotations": { CLASS: annotation } });
            new["spec"]["ingressClassName"] = json!("a");
            new
        };
        assert_eq!(ingress(None, of("a")), [""; 0]);
        let want = "annotations.kubernetes.io/ingress.class: Invalid value: \"b\": must match `ingressClassName` when both are specified";
        assert_eq!(ingress(None, of("b")), [want]);
        assert_eq!(ingress(Some(&of("a")), of("b")), [""; 0]);
    }

    #[test]
    fn a_status_names_addresses_and_hosts() {
        let status = |ip: &str, hostname: &str| json!({ "status": { "loadBalancer": { "ingress": [{ "ip": ip, "hostname": hostname }] } } });
        let of = |old: Value, mut new: Value| {
            let mut errors = Errors::default();
            validate_ingress_status(Sub::Status, &Change { old: Some(&old), new: &mut new }, &mut errors);
            told(errors)
        };
        let none = || status("", "");
        assert_eq!(of(none(), status("10.0.0.1", "a.b")), [""; 0]);
        let place = "status.loadBalancer.ingress[0]";
        let want = format!("{place}.ip: Invalid value: \"10.0.0.01\": must not have leading 0s");
        assert_eq!(of(none(), status("10.0.0.01", "")), [want]);
        assert_eq!(of(status("10.0.0.01", ""), status("10.0.0.01", "")), [""; 0]);
        let want =
            format!("{place}.hostname: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address");
        assert_eq!(of(none(), status("", "10.0.0.1")), [want]);
    }

    #[test]
    fn a_class_names_its_controller_and_parameters() {
        let class = |controller: &str, parameters: Value| {
            let mut new = json!({ "spec": { "controller": controller, "parameters": parameters } });
            default_ingress_class(&mut new);
            let mut errors = Errors::default();
            validate_ingress_class(&Change { old: None, new: &mut new }, &mut errors);
            told(errors)
        };
        let parameters = |more: Value| {
            let mut all = json!({ "kind": "K", "name": "n" });
            json_patch::merge(&mut all, &more);
            all
        };
        let long = format!("x.io/{}", "a".repeat(250));
        for (controller, given, want) in [
            ("x.io/a", json!(null), vec![]),
            ("x.io/a", parameters(json!({})), vec![]),
            ("x.io/a", parameters(json!({ "scope": "Namespace", "namespace": "a" })), vec![]),
            ("", json!(null), vec!["spec.controller: Required value"]),
            (
                "x.io",
                json!(null),
                vec![
                    "spec.controller: Invalid value: \"x.io\": must be a domain-prefixed path (such as \"acme.io/foo\")",
                ],
            ),
            (&long, json!(null), vec!["spec.controller: Too long: may not be more than 250 bytes"]),
            (
                "x.io/a b",
                json!(null),
                vec![
                    "spec.controller: Invalid value: \"a b\": Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')",
                ],
            ),
            ("x.io/a", parameters(json!({ "kind": null })), vec!["spec.parameters.kind: Required value"]),
            (
                "x.io/a",
                parameters(json!({ "scope": "" })),
                vec![
                    "spec.parameters.scope: Unsupported value: \"\": supported values: \"Cluster\", \"Namespace\"",
                ],
            ),
            (
                "x.io/a",
                parameters(json!({ "scope": "Namespace" })),
                vec!["spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"],
            ),
            (
                "x.io/a",
                parameters(json!({ "namespace": "a" })),
                vec!["spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'"],
            ),
        ] {
            assert_eq!(class(controller, given), want, "{controller}");
        }
        let (old, mut new) =
            (json!({ "spec": { "controller": "x.io/a" } }), json!({ "spec": { "controller": "x.io/b" } }));
        let mut errors = Errors::default();
        validate_ingress_class(&Change { old: Some(&old), new: &mut new }, &mut errors);
        assert_eq!(told(errors), ["spec.controller: Invalid value: \"x.io/b\": field is immutable"]);
    }
}
