//! What a pod may say of itself for nodes with Windows.

use serde_json::Value;

use crate::tree::{at, flag, text};
use crate::validate::{self, Errors};

const LARGEST_SPEC_KIB: usize = 64;
const LONGEST_DOMAIN: usize = 256;
const LONGEST_NETBIOS: usize = 15;
const LONGEST_USER: usize = 104;

pub fn validate(options: &Value, here: &str, errors: &mut Errors) {
    if let Some(name) = at(options, &["gmsaCredentialSpecName"]).as_str() {
        errors.check(format!("{here}.gmsaCredentialSpecName"), name, validate::subdomain);
    }
    let spec = at(options, &["gmsaCredentialSpec"]);
    match spec.as_str().map(str::len) {
        Some(0) => {
            let why = "gmsaCredentialSpec cannot be an empty string";
            errors.invalid(format!("{here}.gmsaCredentialSpec"), spec, why);
        }
        Some(length) if length > LARGEST_SPEC_KIB << 10 => {
            let why = format!("gmsaCredentialSpec size must be under {LARGEST_SPEC_KIB} KiB");
            errors.invalid(format!("{here}.gmsaCredentialSpec"), spec, &why);
        }
        _ => {}
    }
    if let Some(name) = at(options, &["runAsUserName"]).as_str() {
        for why in faults_of_user(name) {
            errors.invalid(format!("{here}.runAsUserName"), &Value::from(name), &why);
        }
    }
}

/// What is wrong with `DOMAIN\user` or `user`.
fn faults_of_user(name: &str) -> Vec<String> {
    if name.is_empty() {
        return vec!["runAsUserName cannot be an empty string".to_owned()];
    }
    if name.contains(|c: char| c.is_ascii_control()) {
        return vec!["runAsUserName cannot contain control characters".to_owned()];
    }
    let (domain, user) = match name.split_once('\\') {
        Some((_, user)) if user.contains('\\') => {
            return vec!["runAsUserName cannot contain more than one backslash".to_owned()];
        }
        Some((domain, user)) => (Some(domain), user),
        None => (None, name),
    };
    let faults = [
        (
            domain.is_some_and(|domain| domain.len() >= LONGEST_DOMAIN),
            format!("runAsUserName's Domain length must be under {LONGEST_DOMAIN} characters"),
        ),
        (
            domain.is_some_and(|domain| !is_netbios(domain) && !is_dns(domain)),
            "runAsUserName's Domain doesn't match the NetBios nor the DNS format".to_owned(),
        ),
        (user.is_empty(), "runAsUserName's User cannot be empty".to_owned()),
        (
            user.len() > LONGEST_USER,
            format!("runAsUserName's User length must not be longer than {LONGEST_USER} characters"),
        ),
        (
            !user.is_empty() && user.chars().all(|c| matches!(c, '.' | ' ')),
            "runAsUserName's User cannot contain only periods or spaces".to_owned(),
        ),
        (
            user.contains(|c| "\"/\\:;|=,+*?<>@[]".contains(c)),
            r#"runAsUserName's User cannot contain the following characters: "/\:;|=,+*?<>@[]"#.to_owned(),
        ),
    ];
    faults.into_iter().filter(|(is_wrong, _)| *is_wrong).map(|(_, why)| why).collect()
}

fn is_netbios(domain: &str) -> bool {
    (1..=LONGEST_NETBIOS).contains(&domain.chars().count())
        && !domain.starts_with('.')
        && !domain.contains(|c| "\\/:*?\"<>|".contains(c))
}

fn is_dns(domain: &str) -> bool {
    domain.split('.').all(|label| validate::label(&label.to_ascii_lowercase()).is_ok())
}

/// Processes of the host are all of a pod or none, and on the host's network.
pub fn validate_host_processes(spec: &Value, here: &str, errors: &mut Errors) {
    let path = ["securityContext", "windowsOptions", "hostProcess"];
    let of_pod = at(spec, &path).as_bool();
    let (mut count, mut of_host) = (0, 0);
    for (place, container) in super::every_container(spec, here) {
        count += 1;
        let own = at(container, &path).as_bool();
        if let (Some(of_pod), Some(own)) = (of_pod, own)
            && of_pod != own
        {
            let why = format!("pod hostProcess value must be identical if both are specified, was {of_pod}");
            errors.invalid(format!("{place}.{}", path.join(".")), &own.into(), &why);
        }
        of_host += usize::from(own.or(of_pod) == Some(true));
    }
    if of_host == 0 {
        return;
    }
    if of_host != count {
        let why =
            "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.invalid(here, &Value::from(""), why);
    }
    if !flag(spec, &["hostNetwork"]) {
        let why = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.invalid(format!("{here}.hostNetwork"), &Value::from(false), why);
    }
}

/// Whether the pod is for nodes with Windows.
pub fn is_meant(spec: &Value) -> bool {
    text(spec, &["os", "name"]) == "windows"
}
