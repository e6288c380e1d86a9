//! Reviews: questions that are answered and never stored.

use serde_json::{Value, json};

use super::reply::document;
use super::{body, subresource};
use crate::api::Call;
use crate::auth::rbac::Rule;
use crate::auth::{Attempt, User, authenticate};
use crate::body::Reply;
use crate::resources::Sub;
use crate::route::Target;
use crate::status::{Cause, Refusal, Result};
use crate::tree::{at, list, set, text};

/// Answers a review, or binds a pod.
pub async fn create(call: &Call) -> Result<Reply> {
    if call.row.kind == "Binding" {
        return bind(call).await;
    }
    let mut review = body::object(call)?;
    let status = match &*call.row.kind {
        "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            let spec = at(&review, &["spec"]);
            let namespace = text(spec, &["resourceAttributes", "namespace"]);
            if call.row.namespaced && namespace != call.target.namespace {
                return Err(Refusal::bad_request(
                    "spec.resourceAttributes.namespace must match the namespace of the request",
                ));
            }
            access(call, &subject(spec), spec)?
        }
        "SelfSubjectAccessReview" => access(call, &call.user, at(&review, &["spec"]))?,
        "SelfSubjectRulesReview" => rules(call, text(&review, &["spec", "namespace"])),
        "SelfSubjectReview" => json!({ "userInfo": call.user.json() }),
        "TokenReview" => token(call, at(&review, &["spec"])),
        other => return Err(Refusal::internal(format!("no answer is written for {other}"))),
    };
    set(&mut review, &["status"], status);
    document(call, 201, &review)
}

/// Binds the pod of the Binding's name, as its subresource does.
async fn bind(call: &Call) -> Result<Reply> {
    let binding = body::of_kind(call, ("", "v1", "Binding"))?;
    let target = Target {
        resource: "pods".to_owned(),
        name: text(&binding, &["metadata", "name"]).to_owned(),
        subresource: Sub::Binding.name().to_owned(),
        ..call.target.clone()
    };
    let table = call.api.table.load();
    let pods = table.find("", "v1", "pods").ok_or_else(Refusal::no_path)?;
    subresource::bind_pod(&call.redirected(pods, target), &binding).await
}

fn subject(spec: &Value) -> User {
    let strings =
        |value: &Value| list(value, &[]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
    User {
        name: text(spec, &["user"]).to_owned(),
        uid: text(spec, &["uid"]).to_owned(),
        groups: strings(at(spec, &["groups"])),
        extra: crate::tree::fields(spec, &["extra"])
            .map(|(name, value)| (name.to_owned(), strings(value)))
            .collect(),
    }
}

fn access(call: &Call, user: &User, spec: &Value) -> Result<Value> {
    let (resource, path) = (at(spec, &["resourceAttributes"]), at(spec, &["nonResourceAttributes"]));
    let attempt = match (resource.is_object(), path.is_object()) {
        (true, false) => {
            let word = |field: &str| text(resource, &[field]).to_owned();
            Attempt::Resource {
                verb: word("verb"),
                group: word("group"),
                resource: word("resource"),
                subresource: word("subresource"),
                namespace: word("namespace"),
                name: word("name"),
                node: selected_node(resource),
            }
        }
        (false, true) => {
            Attempt::Path { verb: text(path, &["verb"]).to_owned(), path: text(path, &["path"]).to_owned() }
        }
        _ => {
            let message =
                "Invalid value: exactly one of nonResourceAttributes or resourceAttributes must be specified";
            let cause = Cause {
                reason: "FieldValueInvalid",
                message: message.to_owned(),
                field: "spec.resourceAttributes".to_owned(),
            };
            return Err(Refusal::invalid(&call.row, "", vec![cause]));
        }
    };
    let allowed = call.api.allows(user, &attempt);
    Ok(json!({ "allowed": allowed }))
}

/// The node that a field selector asks for and nothing else.
fn selected_node(resource: &Value) -> String {
    let terms = list(resource, &["fieldSelector", "requirements"]);
    let of_node =
        |term: &&Value| text(term, &["key"]) == "spec.nodeName" && text(term, &["operator"]) == "In";
    match terms.iter().find(of_node).map(|term| list(term, &["values"])) {
        Some([Value::String(node)]) => node.clone(),
        _ => String::new(),
    }
}

fn rules(call: &Call, namespace: &str) -> Value {
    let rules = call.api.rbac.rules_for(&call.user, namespace);
    let (paths, resources): (Vec<Rule>, Vec<Rule>) =
        rules.into_iter().partition(|rule| !rule.urls.is_empty());
    let resources: Vec<Value> = resources
        .into_iter()
        .map(|rule| {
            let mut out =
                json!({ "verbs": rule.verbs, "apiGroups": rule.groups, "resources": rule.resources });
            if !rule.names.is_empty() {
                out["resourceNames"] = json!(rule.names);
            }
            out
        })
        .collect();
    let paths: Vec<Value> =
        paths.into_iter().map(|rule| json!({ "verbs": rule.verbs, "nonResourceURLs": rule.urls })).collect();
    json!({ "resourceRules": resources, "nonResourceRules": paths, "incomplete": false })
}

fn token(call: &Call, spec: &Value) -> Value {
    let audiences: Vec<String> =
        list(spec, &["audiences"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let (api, now) = (&call.api, jiff::Timestamp::now());
    match authenticate::bearer(text(spec, &["token"]), &audiences, &api.tokens, &api.objects, now) {
        Some((user, audiences)) => {
            json!({ "authenticated": true, "user": user.json(), "audiences": audiences })
        }
        // `authenticated` is left out when it is false, as from every Go server.
        None => json!({ "error": "the token is not valid" }),
    }
}
