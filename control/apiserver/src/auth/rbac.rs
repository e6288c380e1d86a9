//! Role-based access: an index of roles and bindings that follows the store, asked once per request.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use parking_lot::RwLock;
use serde_json::Value;

use super::{Attempt, User};
use crate::object::Stored;
use crate::strategy::workload::selects;
use crate::tree::{at, list, text};

/// One rule of a role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    pub verbs: Vec<String>,
    pub groups: Vec<String>,
    pub resources: Vec<String>,
    pub names: Vec<String>,
    pub urls: Vec<String>,
}

impl Rule {
    /// Reads a `PolicyRule`.
    pub fn read(rule: &Value) -> Self {
        let words =
            |field: &str| list(rule, &[field]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
        Self {
            verbs: words("verbs"),
            groups: words("apiGroups"),
            resources: words("resources"),
            names: words("resourceNames"),
            urls: words("nonResourceURLs"),
        }
    }

    /// Whether the rule allows the attempt.
    pub fn allows(&self, attempt: &Attempt) -> bool {
        match attempt {
            Attempt::Path { verb, path } => {
                contains(&self.verbs, verb) && self.urls.iter().any(|url| url_matches(url, path))
            }
            Attempt::Resource { verb, group, resource, subresource, name, .. } => {
                contains(&self.verbs, verb)
                    && contains(&self.groups, group)
                    && self.resources.iter().any(|own| resource_matches(own, resource, subresource))
                    && (self.names.is_empty()
                        || (!name.is_empty() && self.names.iter().any(|own| own == name)))
            }
        }
    }
}

fn contains(set: &[String], word: &str) -> bool {
    set.iter().any(|own| own == "*" || own == word)
}

fn url_matches(rule: &str, path: &str) -> bool {
    match rule.strip_suffix('*') {
        Some(start) => path.starts_with(start),
        None => rule == path,
    }
}

fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    match rule.split_once('/') {
        _ if rule == "*" => true,
        Some(("*", sub)) => !subresource.is_empty() && sub == subresource,
        Some((own, sub)) => own == resource && sub == subresource,
        None => rule == resource && subresource.is_empty(),
    }
}

/// A user, group or service account named by a binding.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Subject {
    User(String),
    Group(String),
}

/// Key of a role: its namespace (empty for a ClusterRole) and name.
type RoleKey = (String, String);

#[derive(Debug, Default)]
struct Index {
    roles: HashMap<RoleKey, Role>,
    /// The roles that select others.
    aggregating: BTreeSet<RoleKey>,
    bindings: HashMap<String, Arc<Binding>>,
    /// The bindings that name a subject, by the namespace they hold in.
    by_subject: HashMap<Subject, HashMap<String, Vec<Arc<Binding>>>>,
}

#[derive(Debug, Default)]
struct Role {
    rules: Arc<Vec<Rule>>,
    labels: Value,
    /// The selectors of the aggregation rule.
    aggregates: Vec<Value>,
    /// Whom they select, kept with every write of a role: a request only follows it.
    selected: BTreeSet<RoleKey>,
}

#[derive(Debug)]
struct Binding {
    key: String,
    /// Empty: everywhere.
    namespace: String,
    role: RoleKey,
    subjects: Vec<Subject>,
}

/// The authoriser.
#[derive(Debug, Default)]
pub struct Rbac {
    index: RwLock<Index>,
}

const KINDS: [&str; 4] = ["clusterroles", "clusterrolebindings", "roles", "rolebindings"];

impl Rbac {
    /// Follows a write. Called in the order of commits for each key.
    pub fn follow(&self, key: &str, entry: Option<&Stored>) {
        let of = |plural: &&&str| {
            key.strip_prefix(crate::object::ROOT).is_some_and(|key| key.split('/').next() == Some(**plural))
        };
        let Some(plural) = KINDS.iter().find(of) else { return };
        let mut index = self.index.write();
        match entry {
            Some(entry) => index.put(plural, entry),
            None => index.remove(plural, key),
        }
    }

    /// Whether some rule bound to the user allows the attempt.
    pub fn allows(&self, user: &User, attempt: &Attempt) -> bool {
        if user.is_in(super::MASTERS) {
            return true;
        }
        let namespace = match attempt {
            Attempt::Resource { namespace, .. } => namespace.as_str(),
            Attempt::Path { .. } => "",
        };
        let index = self.index.read();
        let mut bindings = index.bindings_of(user, namespace);
        bindings.any(|binding| index.rules(&binding.role).any(|rule| rule.allows(attempt)))
    }

    /// Every rule that holds for the user in a namespace.
    pub fn rules_for(&self, user: &User, namespace: &str) -> Vec<Rule> {
        if user.is_in(super::MASTERS) {
            let all = || vec!["*".to_owned()];
            let resources = Rule { verbs: all(), groups: all(), resources: all(), ..Rule::default() };
            return vec![resources, Rule { verbs: all(), urls: all(), ..Rule::default() }];
        }
        let index = self.index.read();
        let bindings = index.bindings_of(user, namespace);
        bindings.flat_map(|binding| index.rules(&binding.role).cloned().collect::<Vec<_>>()).collect()
    }

    /// The rules of a role, for escalation checks.
    pub fn rules_of(&self, namespace: &str, name: &str) -> Vec<Rule> {
        self.index.read().rules(&(namespace.to_owned(), name.to_owned())).cloned().collect()
    }
}

impl Role {
    fn selects(&self, other: &Self) -> bool {
        self.aggregates.iter().any(|selector| selects(selector, &other.labels))
    }
}

impl Index {
    /// The bindings that hold for a user in a namespace: those that hold everywhere and its own.
    fn bindings_of<'a>(&'a self, user: &User, namespace: &str) -> impl Iterator<Item = &'a Arc<Binding>> {
        let subjects = std::iter::once(Subject::User(user.name.clone()))
            .chain(user.groups.iter().cloned().map(Subject::Group))
            .filter_map(|subject| self.by_subject.get(&subject))
            .collect::<Vec<_>>();
        let own = (!namespace.is_empty()).then(|| namespace.to_owned());
        [Some(String::new()), own].into_iter().flatten().flat_map(move |namespace| {
            subjects.clone().into_iter().filter_map(move |bindings| bindings.get(&namespace)).flatten()
        })
    }

    /// The rules of a role. One that aggregates has those of the roles it selects, which may aggregate as well, and none of
    /// its own: what is written there is for people to read.
    fn rules<'a>(&'a self, key: &'a RoleKey) -> impl Iterator<Item = &'a Rule> {
        let mut found: Vec<&Role> = self.roles.get(key).into_iter().collect();
        let mut known = HashSet::from([key]);
        let mut looked = 0;
        while let Some(role) = found.get(looked).copied() {
            looked += 1;
            let new = role.selected.iter().filter(|one| known.insert(*one));
            found.extend(new.filter_map(|one| self.roles.get(one)));
        }
        let plain = found.into_iter().filter(|role| role.aggregates.is_empty());
        plain.flat_map(|role| role.rules.iter())
    }

    fn put(&mut self, plural: &str, entry: &Stored) {
        let tree: Value = serde_json::from_slice(&entry.value.bytes()).unwrap_or_default();
        let namespace = entry.header.namespace.to_string();
        if plural.ends_with("roles") {
            self.put_role((namespace, entry.header.name.to_string()), read_role(&tree));
            return;
        }
        self.unbind(&entry.key);
        let binding = Arc::new(read_binding(&entry.key, namespace, &tree));
        for subject in &binding.subjects {
            let bindings = self.by_subject.entry(subject.clone()).or_default();
            bindings.entry(binding.namespace.clone()).or_default().push(Arc::clone(&binding));
        }
        self.bindings.insert(entry.key.to_string(), binding);
    }

    fn put_role(&mut self, key: RoleKey, mut role: Role) {
        self.remove_role(&key);
        if key.0.is_empty() {
            for one in &self.aggregating {
                let Some(other) = self.roles.get_mut(one) else { continue };
                if other.selects(&role) {
                    other.selected.insert(key.clone());
                }
            }
        }
        if !role.aggregates.is_empty() {
            let others = self.roles.iter().filter(|(one, _)| one.0.is_empty());
            role.selected =
                others.filter(|(_, other)| role.selects(other)).map(|(one, _)| one.clone()).collect();
            self.aggregating.insert(key.clone());
        }
        self.roles.insert(key, role);
    }

    fn remove_role(&mut self, key: &RoleKey) {
        if self.roles.remove(key).is_none() {
            return;
        }
        self.aggregating.remove(key);
        for one in &self.aggregating {
            if let Some(other) = self.roles.get_mut(one) {
                other.selected.remove(key);
            }
        }
    }

    fn remove(&mut self, plural: &str, key: &str) {
        if !plural.ends_with("roles") {
            self.unbind(key);
            return;
        }
        let mut parts = key.rsplit('/');
        let name = parts.next().unwrap_or_default().to_owned();
        let namespace = if plural == "roles" { parts.next().unwrap_or_default() } else { "" };
        self.remove_role(&(namespace.to_owned(), name));
    }

    fn unbind(&mut self, key: &str) {
        let Some(old) = self.bindings.remove(key) else { return };
        for subject in &old.subjects {
            let Some(bindings) = self.by_subject.get_mut(subject) else { continue };
            if let Some(here) = bindings.get_mut(&old.namespace) {
                here.retain(|binding| binding.key != key);
                if here.is_empty() {
                    bindings.remove(&old.namespace);
                }
            }
            if bindings.is_empty() {
                self.by_subject.remove(subject);
            }
        }
    }
}

fn read_role(tree: &Value) -> Role {
    Role {
        rules: Arc::new(list(tree, &["rules"]).iter().map(Rule::read).collect()),
        labels: at(tree, &["metadata", "labels"]).clone(),
        aggregates: list(tree, &["aggregationRule", "clusterRoleSelectors"]).to_vec(),
        selected: BTreeSet::new(),
    }
}

fn read_binding(key: &str, namespace: String, tree: &Value) -> Binding {
    let reference = at(tree, &["roleRef"]);
    let role_namespace = if text(reference, &["kind"]) == "Role" { namespace.clone() } else { String::new() };
    let subjects = list(tree, &["subjects"]).iter().filter_map(|subject| {
        let name = text(subject, &["name"]).to_owned();
        match text(subject, &["kind"]) {
            "User" => Some(Subject::User(name)),
            "Group" => Some(Subject::Group(name)),
            "ServiceAccount" => {
                let own = text(subject, &["namespace"]);
                let own = if own.is_empty() { namespace.as_str() } else { own };
                Some(Subject::User(format!("system:serviceaccount:{own}:{name}")))
            }
            _ => None,
        }
    });
    Binding {
        key: key.to_owned(),
        subjects: subjects.collect(),
        role: (role_namespace, text(reference, &["name"]).to_owned()),
        namespace,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rule(verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]) -> Rule {
        let owned = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect();
        Rule {
            verbs: owned(verbs),
            groups: owned(groups),
            resources: owned(resources),
            names: owned(names),
            urls: Vec::new(),
        }
    }

    fn attempt(verb: &str, group: &str, resource: &str, name: &str) -> Attempt {
        let (resource, sub) = resource.split_once('/').unwrap_or((resource, ""));
        Attempt::Resource {
            verb: verb.to_owned(),
            group: group.to_owned(),
            resource: resource.to_owned(),
            subresource: sub.to_owned(),
            namespace: "a".to_owned(),
            name: name.to_owned(),
            node: String::new(),
        }
    }

    #[test]
    fn rules_match_as_documented() {
        let cases = [
            (rule(&["get"], &[""], &["pods"], &[]), attempt("get", "", "pods", "x"), true),
            (rule(&["get"], &[""], &["pods"], &[]), attempt("get", "", "pods/log", "x"), false),
            (rule(&["get"], &[""], &["pods/log"], &[]), attempt("get", "", "pods/log", "x"), true),
            (rule(&["get"], &[""], &["*/log"], &[]), attempt("get", "", "pods/log", "x"), true),
            (rule(&["get"], &[""], &["*"], &[]), attempt("get", "", "pods/log", "x"), true),
            (rule(&["*"], &["*"], &["*"], &[]), attempt("delete", "apps", "deployments", ""), true),
            (rule(&["get"], &["apps"], &["pods"], &[]), attempt("get", "", "pods", "x"), false),
            (rule(&["get"], &[""], &["pods"], &["a"]), attempt("get", "", "pods", "a"), true),
            (rule(&["get"], &[""], &["pods"], &["a"]), attempt("get", "", "pods", "b"), false),
            (rule(&["create"], &[""], &["pods"], &["a"]), attempt("create", "", "pods", ""), false),
        ];
        for (rule, attempt, want) in cases {
            assert_eq!(rule.allows(&attempt), want, "{rule:?} {attempt:?}");
        }
    }

    fn put(index: &mut Index, role: &Value) {
        index.put_role((String::new(), text(role, &["metadata", "name"]).to_owned()), read_role(role));
    }

    /// The verbs a cluster role gives.
    fn verbs_of(name: &str, index: &Index) -> Vec<String> {
        let mut verbs: Vec<String> =
            index.rules(&(String::new(), name.to_owned())).flat_map(|rule| rule.verbs.clone()).collect();
        verbs.sort();
        verbs
    }

    #[test]
    fn a_role_has_the_rules_of_those_it_selects_and_of_those_they_select() {
        let role = |name: &str, label: &str, verb: &str| json!({"metadata": {"name": name, "labels": {"to": label}}, "rules": [{"verbs": [verb]}]});
        let selecting = |name: &str, label: &str, selector: Value| {
            json!({"metadata": {"name": name, "labels": {"to": label}}, "rules": [{"verbs": ["stale"]}],
                   "aggregationRule": {"clusterRoleSelectors": [selector]}})
        };
        let labels = |value: &str| json!({"matchLabels": {"to": value}});
        let expression = |operator: &str| json!({"matchExpressions": [{"key": "to", "operator": operator, "values": ["view"]}]});
        let all = |selector: Value| {
            let mut index = Index::default();
            let roles = [
                role("a", "view", "get"),
                role("b", "edit", "put"),
                role("c", "other", "*"),
                selecting("view", "edit", labels("view")),
                selecting("edit", "admin", labels("edit")),
                selecting("admin", "view", selector),
            ];
            // Whoever comes first is found by those that come later, and the other way round.
            roles.iter().chain(roles.iter().rev()).for_each(|role| put(&mut index, role));
            index
        };
        assert_eq!(verbs_of("view", &all(labels("admin"))), ["get", "put"], "in a circle, too");
        assert_eq!(verbs_of("edit", &all(labels("nobody"))), ["get", "put"]);
        assert_eq!(verbs_of("admin", &all(labels("admin"))), ["get", "put"]);
        assert_eq!(verbs_of("admin", &all(expression("In"))), ["get"], "expressions select as labels do");
        assert_eq!(verbs_of("admin", &all(expression("NotIn"))), ["*", "get", "put"]);
        assert_eq!(verbs_of("admin", &all(labels("nobody"))), Vec::<String>::new());
        let mut changing = all(labels("edit"));
        put(&mut changing, &role("b", "elsewhere", "put"));
        assert_eq!(verbs_of("edit", &changing), ["get"], "it is selected no more");
        put(&mut changing, &role("d", "edit", "list"));
        assert_eq!(verbs_of("admin", &changing), ["get", "list"]);
        changing.remove_role(&(String::new(), "a".to_owned()));
        assert_eq!(verbs_of("admin", &changing), ["list"]);
        put(&mut changing, &role("edit", "admin", "own"));
        assert_eq!(verbs_of("edit", &changing), ["own"], "it aggregates no more");
    }

    #[test]
    fn a_binding_holds_where_it_is_for_as_long_as_it_is_there() {
        let rbac = Rbac::default();
        let write = |key: &str, object: &Value| {
            let value = crate::object::encode(object);
            let header = crate::object::header(key, &value);
            let (key, value) = (key.into(), value.into());
            let entry = store::Entry { key, value, mod_revision: 1, create_revision: 1, expires: 0, header };
            rbac.follow(&entry.key.clone(), Some(&Arc::new(entry)));
        };
        let role = json!({"metadata": {"name": "r"}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]});
        write("/registry/clusterroles/r", &role);
        let bind = |namespace: &str, subject: Value| {
            let role = json!({"kind": "ClusterRole", "name": "r"});
            let metadata = json!({"name": "b", "namespace": namespace});
            json!({"metadata": metadata, "roleRef": role, "subjects": [subject]})
        };
        let one = json!({"kind": "User", "name": "one"});
        write("/registry/rolebindings/a/b", &bind("a", one.clone()));
        write("/registry/rolebindings/b/b", &bind("b", one.clone()));
        write("/registry/clusterrolebindings/b", &bind("", json!({"kind": "Group", "name": "all"})));
        let user = |name: &str, groups: &[&str]| User {
            name: name.to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            ..User::default()
        };
        let may = |user: &User, place: &str| {
            let mut attempt = attempt("get", "", "pods", "x");
            let Attempt::Resource { namespace, .. } = &mut attempt else { unreachable!() };
            place.clone_into(namespace);
            rbac.allows(user, &attempt)
        };
        let places = |user: &User| ["", "a", "b", "c"].map(|place| may(user, place));
        assert_eq!(places(&user("one", &[])), [false, true, true, false]);
        assert_eq!(places(&user("two", &["all"])), [true; 4]);
        write("/registry/rolebindings/a/b", &bind("a", json!({"kind": "User", "name": "two"})));
        assert_eq!(places(&user("one", &[])), [false, false, true, false]);
        assert_eq!(places(&user("two", &[])), [false, true, false, false]);
        for key in ["rolebindings/a/b", "rolebindings/b/b", "clusterrolebindings/b"] {
            rbac.follow(&format!("/registry/{key}"), None);
        }
        assert_eq!(places(&user("two", &["all"])), [false; 4]);
        assert!(rbac.index.read().by_subject.is_empty(), "what nobody is bound by is kept");
    }

    #[test]
    fn urls_match_exactly_or_by_prefix() {
        for (url, path, want) in [
            ("/healthz", "/healthz", true),
            ("/healthz", "/healthz/x", false),
            ("/api/*", "/api/v1", true),
            ("*", "/x", true),
        ] {
            assert_eq!(url_matches(url, path), want, "{url} {path}");
        }
    }
}
