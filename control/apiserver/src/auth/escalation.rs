//! Nobody grants what they do not have themselves.

use serde_json::Value;

use super::rbac::Rule;
use super::{Attempt, MASTERS};
use crate::api::Call;
use crate::status::{Refusal, Result};
use crate::tree::{at, list, text};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Refuses a role or binding that would give more than its author has. A role that aggregates, now or before, may come to hold
/// anything, and so is for those who may do everything.
pub fn check(call: &Call, old: Option<&Value>, object: &Value) -> Result<()> {
    if call.user.is_in(MASTERS) {
        return Ok(());
    }
    let namespace = &call.target.namespace;
    let name = text(object, &["metadata", "name"]);
    let (granted, verb, plural, role) = if call.row.kind.ends_with("Binding") {
        let role = text(object, &["roleRef", "name"]);
        let cluster = text(object, &["roleRef", "kind"]) == "ClusterRole";
        let rules = call.api.rbac.rules_of(if cluster { "" } else { namespace }, role);
        (rules, "bind", if cluster { "clusterroles" } else { "roles" }, role)
    } else {
        let rules = list(object, &["rules"]).iter().map(Rule::read).collect();
        (rules, "escalate", &*call.row.plural, name)
    };
    if call.api.allows(&call.user, &Attempt::resource(verb, GROUP, plural, namespace, role)) {
        return Ok(());
    }
    let own = call.api.rbac.rules_for(&call.user, namespace);
    let aggregates = |role: &Value| !at(role, &["aggregationRule"]).is_null();
    if (aggregates(object) || old.is_some_and(aggregates))
        && !everything().iter().all(|rule| covered(rule, &own))
    {
        let why = "must have cluster-admin privileges to use the aggregationRule";
        return Err(Refusal::forbidden(&call.row, name, why));
    }
    if granted.iter().all(|rule| covered(rule, &own)) {
        return Ok(());
    }
    let why = format!(
        "user \"{}\" (groups={:?}) is attempting to grant RBAC permissions not currently held",
        call.user.name, call.user.groups
    );
    Err(Refusal::forbidden(&call.row, name, &why))
}

fn everything() -> [Rule; 2] {
    let all = || vec!["*".to_owned()];
    let resources = Rule { verbs: all(), groups: all(), resources: all(), ..Rule::default() };
    [resources, Rule { verbs: all(), urls: all(), ..Rule::default() }]
}

/// Whether every single permission of a rule is also in `own`.
fn covered(rule: &Rule, own: &[Rule]) -> bool {
    let names: Vec<&str> =
        if rule.names.is_empty() { vec![""] } else { rule.names.iter().map(String::as_str).collect() };
    let resources = rule.verbs.iter().all(|verb| {
        rule.groups.iter().all(|group| {
            rule.resources.iter().all(|resource| {
                names.iter().all(|name| {
                    let (resource, sub) = resource.split_once('/').unwrap_or((resource, ""));
                    let attempt = Attempt::Resource {
                        verb: verb.clone(),
                        group: group.clone(),
                        resource: resource.to_owned(),
                        subresource: sub.to_owned(),
                        namespace: String::new(),
                        name: (*name).to_owned(),
                        node: String::new(),
                    };
                    own.iter().any(|own| own.allows(&attempt))
                })
            })
        })
    });
    resources
        && rule.verbs.iter().all(|verb| {
            rule.urls.iter().all(|url| {
                let attempt = Attempt::Path { verb: verb.clone(), path: url.clone() };
                own.iter().any(|own| own.allows(&attempt))
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &[&str], resources: &[&str]) -> Rule {
        let owned = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
        Rule { verbs: owned(verbs), groups: owned(&[""]), resources: owned(resources), ..Rule::default() }
    }

    #[test]
    fn a_rule_is_covered_by_wider_ones_together() {
        let own = [rule(&["get"], &["pods"]), rule(&["list"], &["*"])];
        assert!(covered(&rule(&["get", "list"], &["pods"]), &own));
        assert!(!covered(&rule(&["get"], &["secrets"]), &own));
        assert!(!covered(&rule(&["*"], &["pods"]), &own));
    }
}
