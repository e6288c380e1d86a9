//! Kernel parameters of a pod. Which of them a node sets is the node's matter; that they can be names is checked here.

use std::collections::HashSet;

use serde_json::Value;

use crate::tree::{flag, list, text};
use crate::validate::Errors;

/// Checks the sysctls of a pod spec at `here`. A spec that had some of the host's may keep them.
pub fn validate(spec: &Value, old: Option<&Value>, here: &str, errors: &mut Errors) {
    let had_shared = old.is_some_and(|old| all(old).any(|name| taken_from_host(old, name).is_some()));
    let mut names = HashSet::new();
    for (index, name) in all(spec).enumerate() {
        let place = format!("{here}.securityContext.sysctls[{index}].name");
        if name.is_empty() {
            errors.required(&place, "");
        } else if !is_name(name) {
            errors.invalid(&place, &Value::from(name), FORM);
        } else if names.contains(name) {
            errors.duplicate(&place, &Value::from(name));
        }
        if let Some(shared) = taken_from_host(spec, name).filter(|_| !had_shared) {
            let why = format!("may not be specified when '{shared}' is true");
            errors.invalid(place, &Value::from(name), &why);
        }
        names.insert(name);
    }
}

fn all(spec: &Value) -> impl Iterator<Item = &str> {
    list(spec, &["securityContext", "sysctls"]).iter().map(|one| text(one, &["name"]))
}

/// The field that makes the parameter one of the host.
fn taken_from_host(spec: &Value, name: &str) -> Option<&'static str> {
    shared_with_host(name).filter(|field| flag(spec, &[field]))
}

const LONGEST: usize = 253;
const FORM: &str = "must have at most 253 characters and match regex \
    ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";

/// Words of small letters and digits, with dashes and underscores within, between dots or slashes.
fn is_name(name: &str) -> bool {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let word = |word: &str| {
        let bytes = word.as_bytes();
        bytes.first().copied().is_some_and(plain)
            && bytes.last().copied().is_some_and(plain)
            && bytes.iter().all(|c| plain(*c) || b"-_".contains(c))
    };
    name.len() <= LONGEST && name.split(['.', '/']).all(word)
}

/// The field that makes the namespace of the parameter that of the host.
fn shared_with_host(name: &str) -> Option<&'static str> {
    let name = name.replace('/', ".");
    let of_ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|start| name.starts_with(start));
    match name.as_str() {
        name if name.starts_with("net.") => Some("hostNetwork"),
        name if of_ipc || name == "kernel.sem" => Some("hostIPC"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_checked_and_namespaces_of_the_host_left_alone() {
        for (names, host, want) in [
            (&["kernel.shmmax", "safe-and-unsafe", "net/ipv4/ip_local_port_range"][..], "none", ""),
            (&["foo-"], "none", "Invalid value: \"foo-\": must have"),
            (&["bar.."], "none", "Invalid value: \"bar..\": must have"),
            (&["Net.x"], "none", "Invalid value"),
            (&[""], "none", "Required value"),
            (&["a.b", "a.b"], "none", "Duplicate value: \"a.b\""),
            (&["net.core.somaxconn"], "hostNetwork", "may not be specified when 'hostNetwork' is true"),
            (&["kernel.shmmax"], "hostNetwork", ""),
            (&["kernel.sem"], "hostIPC", "may not be specified when 'hostIPC' is true"),
        ] {
            let sysctls: Vec<Value> =
                names.iter().map(|name| json!({ "name": name, "value": "1" })).collect();
            let mut spec = json!({ "securityContext": { "sysctls": sysctls } });
            spec[host] = json!(true);
            let mut errors = Errors::default();
            validate(&spec, None, "spec", &mut errors);
            let causes = errors.into_causes();
            assert_eq!(causes.is_empty(), want.is_empty(), "{names:?} {causes:?}");
            assert!(causes.iter().all(|cause| cause.message.contains(want)), "{names:?} {causes:?}");
        }
    }
}
