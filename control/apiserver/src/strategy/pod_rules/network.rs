//! How a pod is named and finds names, and the ports of its host.

use serde_json::Value;

use super::Whole;
use crate::strategy::addresses::address;
use crate::tree::{at, flag, int, list, text};
use crate::validate::{self, Errors};

const POLICIES: &[&str] = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
const MOST_SERVERS: usize = 3;
const MOST_SEARCHES: usize = 32;
const LONGEST_SEARCHES: usize = 2048;
const LONGEST_HOSTNAME: usize = 64;

pub fn validate_dns_policy(spec: &Value, here: &str, errors: &mut Errors) {
    errors.chosen(format!("{here}.dnsPolicy"), text(spec, &["dnsPolicy"]), POLICIES);
}

pub fn validate_dns(spec: &Value, here: &str, errors: &mut Errors) {
    let (config, here) = (at(spec, &["dnsConfig"]), format!("{here}.dnsConfig"));
    let (servers, searches) = (list(config, &["nameservers"]), list(config, &["searches"]));
    if text(spec, &["dnsPolicy"]) == "None" {
        if !config.is_object() {
            errors.required(here, "must provide `dnsConfig` when `dnsPolicy` is None");
            return;
        }
        if servers.is_empty() {
            let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            errors.required(format!("{here}.nameservers"), why);
            return;
        }
    }
    if servers.len() > MOST_SERVERS {
        let why = format!("must not have more than {MOST_SERVERS} nameservers");
        errors.invalid(format!("{here}.nameservers"), at(config, &["nameservers"]), &why);
    }
    for (index, server) in servers.iter().enumerate() {
        let place = format!("{here}.nameservers[{index}]");
        errors.check(place, server.as_str().unwrap_or_default(), address);
    }
    validate_searches(config, searches, &format!("{here}.searches"), errors);
    for (index, option) in list(config, &["options"]).iter().enumerate() {
        if text(option, &["name"]).is_empty() {
            errors.required(format!("{here}.options[{index}]"), "must not be empty");
        }
    }
}

fn validate_searches(config: &Value, searches: &[Value], here: &str, errors: &mut Errors) {
    let shown = at(config, &["searches"]);
    if searches.len() > MOST_SEARCHES {
        errors.invalid(here, shown, &format!("must not have more than {MOST_SEARCHES} search paths"));
    }
    let length: usize = searches.iter().map(|one| one.as_str().map_or(0, str::len) + 1).sum();
    if length > LONGEST_SEARCHES + 1 {
        let why = format!(
            "must not have more than {LONGEST_SEARCHES} characters (including spaces) in the search list"
        );
        errors.invalid(here, shown, &why);
    }
    for (index, search) in searches.iter().enumerate() {
        let search = search.as_str().unwrap_or_default();
        if search != "." {
            let search = search.strip_suffix('.').unwrap_or(search);
            errors.check(format!("{here}[{index}]"), search, search_domain);
        }
    }
}

/// A subdomain whose labels may begin with an underscore and have some within.
fn search_domain(domain: &str) -> Result<(), String> {
    let plain = domain.split('.').map(|label| label.strip_prefix('_').unwrap_or(label).replace('_', "-"));
    validate::subdomain(&plain.collect::<Vec<_>>().join("."))
}

pub fn validate_host_aliases(spec: &Value, here: &str, errors: &mut Errors) {
    for (index, alias) in list(spec, &["hostAliases"]).iter().enumerate() {
        let place = format!("{here}.hostAliases[{index}]");
        errors.check(format!("{place}.ip"), text(alias, &["ip"]), address);
        for (position, name) in list(alias, &["hostnames"]).iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            errors.check(format!("{place}.hostnames[{position}]"), name, validate::subdomain);
        }
    }
}

/// On the network of its host a container's ports are the host's; a template may leave that open.
pub fn validate_host_ports(spec: &Value, whole: Whole, here: &str, errors: &mut Errors) {
    if !flag(spec, &["hostNetwork"]) {
        return;
    }
    for (index, container) in list(spec, &["containers"]).iter().enumerate() {
        for (position, port) in list(container, &["ports"]).iter().enumerate() {
            let [of_host, own] =
                ["hostPort", "containerPort"].map(|field| int(port, &[field]).unwrap_or_default());
            if (whole == Whole::Pod || of_host != 0) && of_host != own {
                let place = format!("{here}.containers[{index}].ports[{position}].hostPort");
                let why = "must match `containerPort` when `hostNetwork` is true";
                errors.invalid(place, &of_host.into(), why);
            }
        }
    }
}

pub fn validate_hostname(spec: &Value, here: &str, errors: &mut Errors) {
    let Some(name) = at(spec, &["hostnameOverride"]).as_str() else { return };
    let place = format!("{here}.hostnameOverride");
    for other in ["setHostnameAsFQDN", "hostNetwork"] {
        if flag(spec, &[other]) {
            errors.forbidden(&place, &format!("may not be specified when {other} is true"));
        }
    }
    if name.len() > LONGEST_HOSTNAME {
        errors.too_long(&place, LONGEST_HOSTNAME);
    }
    errors.check(place, name, validate::subdomain);
}
