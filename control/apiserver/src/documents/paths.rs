//! The paths of OpenAPI documents: which operations a row has, under the names upstream gives them.

use serde_json::{Map, Value};

use super::openapi::Form;
use super::operation::{Content, Operation, item};
use crate::resources::{Row, Sub};
use crate::schema::schema;

/// Paths of a row.
pub fn paths(row: &Row, form: Form) -> Map<String, Value> {
    operations(row).iter().map(|(path, all)| (path.clone(), item(path, all, form))).collect()
}

/// What may be done with a row, by path.
fn operations(row: &Row) -> Vec<(String, Vec<Operation<'_>>)> {
    let root = if row.group.is_empty() {
        format!("/api/{}", row.version)
    } else {
        format!("/apis/{}/{}", row.group, row.version)
    };
    let place = if row.namespaced { "/namespaces/{namespace}" } else { "" };
    let (all, one) = (format!("{place}/{}", row.plural), format!("{place}/{}/{{name}}", row.plural));
    let of = |verbs: &[(&str, &'static str, &'static str)]| -> Vec<Operation<'_>> {
        let served = verbs.iter().filter(|(verb, ..)| row.verbs().contains(verb));
        served.map(|(_, method, action)| main(row, method, action)).collect()
    };
    let mut out = vec![(
        format!("{root}{all}"),
        of(&[
            ("list", "get", "list"),
            ("create", "post", "post"),
            ("deletecollection", "delete", "deletecollection"),
        ]),
    )];
    if !row.review {
        let verbs = [
            ("get", "get", "get"),
            ("update", "put", "put"),
            ("patch", "patch", "patch"),
            ("delete", "delete", "delete"),
        ];
        out.push((format!("{root}{one}"), of(&verbs)));
    }
    for sub in &row.subresources {
        out.extend(below(row, *sub).into_iter().map(|(path, all)| (format!("{root}{one}/{path}"), all)));
    }
    // A custom kind can be watched there too, but upstream does not publish that.
    let watched = row.custom.is_none() && row.verbs().contains(&"watch");
    if watched {
        out.push((format!("{root}/watch{all}"), vec![main(row, "get", "watchlist")]));
        out.push((format!("{root}/watch{one}"), vec![main(row, "get", "watch")]));
    }
    if row.namespaced && row.verbs().contains(&"list") {
        out.push((format!("{root}/{}", row.plural), vec![everywhere(row, "list")]));
        if watched {
            out.push((format!("{root}/watch/{}", row.plural), vec![everywhere(row, "watchlist")]));
        }
    }
    out
}

/// An operation on objects or a collection of the row.
fn main<'a>(row: &'a Row, method: &'static str, action: &'static str) -> Operation<'a> {
    let place = if row.namespaced { "Namespaced" } else { "" };
    let (verb, name) = match action {
        "list" => ("list", format!("{place}{}", row.kind)),
        "post" => ("create", format!("{place}{}", row.kind)),
        "deletecollection" => ("delete", format!("Collection{place}{}", row.kind)),
        "get" => ("read", format!("{place}{}", row.kind)),
        "put" => ("replace", format!("{place}{}", row.kind)),
        "watchlist" => ("watch", format!("{place}{}List", row.kind)),
        other => (other, format!("{place}{}", row.kind)),
    };
    let own = type_name(row, &row.kind);
    let gives = match action {
        "list" => Content::Object(type_name(row, &row.list_kind)),
        "watch" | "watchlist" => Content::Object(meta("WatchEvent")),
        "deletecollection" => Content::Object(meta("Status")),
        "delete" if !row.returns_deleted => Content::Object(meta("Status")),
        _ => Content::Object(own.clone()),
    };
    let takes = match action {
        "post" | "put" => Some(Content::Object(own)),
        "patch" => Some(Content::Patch),
        // Upstream does not publish that the options may be in the body there too.
        "deletecollection" if row.custom.is_some() => None,
        "delete" | "deletecollection" => Some(Content::Object(meta("DeleteOptions"))),
        _ => None,
    };
    let description = match action {
        "list" => format!("list or watch objects of kind {}", row.kind),
        "deletecollection" => format!("delete collection of {}", row.kind),
        "watch" | "watchlist" => {
            format!("watch objects of kind {}; use the parameter `watch` of a list", row.kind)
        }
        _ => format!("{verb} the specified {}", row.kind),
    };
    operation(row, (method, action), (verb, &name), description, own_kind(row), (takes, gives))
}

/// The same on the objects of all namespaces.
fn everywhere<'a>(row: &'a Row, action: &'static str) -> Operation<'a> {
    let one = main(row, "get", action);
    let (verb, list) = if action == "list" { ("list", "") } else { ("watch", "List") };
    Operation { id: id(row, verb, &format!("{}{list}ForAllNamespaces", row.kind)), ..one }
}

/// What is below an object, by the rest of its path.
fn below(row: &Row, sub: Sub) -> Vec<(String, Vec<Operation<'_>>)> {
    let name = sub.name();
    if sub == Sub::Proxy {
        const METHODS: [&str; 7] = ["delete", "get", "head", "options", "patch", "post", "put"];
        let through = |suffix: &str| METHODS.map(|method| connect(row, method, sub, suffix)).into();
        return vec![(name.to_owned(), through("")), (format!("{name}/{{path}}"), through("WithPath"))];
    }
    let all = match sub {
        Sub::Exec | Sub::Attach | Sub::PortForward => {
            ["get", "post"].map(|method| connect(row, method, sub, "")).into()
        }
        _ => sub.verbs().iter().map(|verb| part(row, sub, verb)).collect(),
    };
    vec![(name.to_owned(), all)]
}

/// An operation on a part of an object.
fn part<'a>(row: &'a Row, sub: Sub, verb: &str) -> Operation<'a> {
    let (method, word) = match verb {
        "create" => ("post", "create"),
        "update" => ("put", "replace"),
        "patch" => ("patch", "patch"),
        _ => ("get", "read"),
    };
    let kind = sub.kind().unwrap_or_else(|| own_kind(row));
    let exchanged = match sub.kind() {
        Some((group, version, kind)) => published(group, version, kind).unwrap_or_default(),
        None => type_name(row, &row.kind),
    };
    let takes = match method {
        "get" => None,
        "patch" => Some(Content::Patch),
        _ => Some(Content::Object(exchanged.clone())),
    };
    let gives = if sub == Sub::Log { Content::Text } else { Content::Object(exchanged) };
    let description = format!("{word} {} of the specified {}", sub.name(), row.kind);
    operation(row, (method, method), (word, &named(row, sub, "")), description, kind, (takes, gives))
}

/// An operation that connects a client with what is behind an object.
fn connect<'a>(row: &'a Row, method: &'static str, sub: Sub, suffix: &str) -> Operation<'a> {
    let kind = sub.kind().unwrap_or_else(|| match row.own() {
        "nodes" => ("", "v1", "NodeProxyOptions"),
        "services" => ("", "v1", "ServiceProxyOptions"),
        _ => ("", "v1", "PodProxyOptions"),
    });
    let name = format!("{}{}", capitalized(method), named(row, sub, suffix));
    let description = format!("connect {} requests to {} of {}", method.to_uppercase(), sub.name(), row.kind);
    operation(row, (method, "connect"), ("connect", &name), description, kind, (None, Content::Text))
}

fn operation<'a>(
    row: &'a Row,
    (method, action): (&'static str, &'static str),
    (verb, name): (&str, &str),
    description: String,
    kind: (&'a str, &'a str, &'a str),
    (takes, gives): (Option<Content>, Content),
) -> Operation<'a> {
    let group = group_words(&row.group);
    let tag = format!("{}_{}", uncapitalized(&group), row.version);
    let (id, is_custom) = (id(row, verb, name), row.custom.is_some());
    Operation { method, action, id, description, tag, kind, is_custom, takes, gives }
}

/// `readCoreV1NamespacedPod`.
fn id(row: &Row, verb: &str, name: &str) -> String {
    format!("{verb}{}{}{name}", group_words(&row.group), capitalized(&row.version))
}

/// `NamespacedPodStatus`.
fn named(row: &Row, sub: Sub, suffix: &str) -> String {
    let place = if row.namespaced { "Namespaced" } else { "" };
    format!("{place}{}{}{suffix}", row.kind, capitalized(sub.name()))
}

/// `RbacAuthorization`, and `StableExampleCom` of others' groups.
pub(super) fn group_words(group: &str) -> String {
    match group.trim_end_matches(".k8s.io") {
        "" => "Core".to_owned(),
        group => group.split(['.', '-']).map(capitalized).collect(),
    }
}

pub(super) fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}

pub(super) fn uncapitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(letters).collect()
}

fn own_kind(row: &Row) -> (&str, &str, &str) {
    (&row.group, &row.version, &row.kind)
}

pub(super) fn meta(kind: &str) -> String {
    format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}")
}

/// The published name of a kind of this build.
fn published(group: &str, version: &str, kind: &str) -> Option<String> {
    schema().kind(group, version, kind).map(|id| schema().types[id].name.to_string())
}

/// The published name of a row's kind, or of its list.
fn type_name(row: &Row, kind: &str) -> String {
    let own = row.custom.is_none().then(|| published(&row.group, &row.version, kind)).flatten();
    own.unwrap_or_else(|| super::custom::type_name(row, kind))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::resources::builtin;

    /// `[action, group, version, kind]` by method, by path.
    type Published = BTreeMap<String, BTreeMap<String, [String; 4]>>;

    #[test]
    fn paths_are_those_that_kubernetes_publishes() {
        let want: Published = serde_json::from_str(include_str!("../../data/paths.json")).unwrap();
        let table = builtin();
        let mut found = Published::new();
        for (path, operations) in table.rows().iter().flat_map(|row| operations(row)) {
            let methods = found.entry(path).or_default();
            for one in operations {
                let (group, version, kind) = one.kind;
                methods.insert(one.method.to_owned(), [one.action, group, version, kind].map(str::to_owned));
            }
        }
        let (found_paths, want_paths): (BTreeSet<_>, BTreeSet<_>) =
            (found.keys().collect(), want.keys().collect());
        assert_eq!(found_paths.symmetric_difference(&want_paths).collect::<Vec<_>>(), Vec::<&&String>::new());
        let others: Vec<_> = want.iter().filter(|(path, methods)| &found[*path] != *methods).collect();
        assert_eq!(others, []);
    }

    #[test]
    fn operations_have_names_of_their_own() {
        let table = builtin();
        let all: Vec<String> = table
            .rows()
            .iter()
            .flat_map(|row| operations(row))
            .flat_map(|(_, all)| all)
            .map(|one| one.id)
            .collect();
        let distinct: BTreeSet<&String> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        for known in [
            "listCoreV1PodForAllNamespaces",
            "watchCoreV1NamespacedPodList",
            "deleteCoreV1CollectionNamespacedPod",
            "replaceRbacAuthorizationV1ClusterRole",
            "connectCoreV1GetNamespacedPodExec",
            "connectCoreV1PutNodeProxyWithPath",
            "readAppsV1NamespacedDeploymentScale",
            "createCoreV1NamespacedServiceAccountToken",
        ] {
            assert!(all.iter().any(|id| id == known), "{known}");
        }
    }
}
