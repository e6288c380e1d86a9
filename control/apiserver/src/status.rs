//! Refusals: the Kubernetes `Status` object with the reasons, codes and messages clients know.

use serde_json::{Value, json};

use crate::resources::Row;

/// A request that was refused. Serialised as a `Status` of kind Failure.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
    details: Option<Box<Details>>,
    /// For an expired list: a token with which the list can go on, inconsistently.
    pub continue_token: Option<String>,
    /// Whether a newer row may make it succeed.
    pub outdated: bool,
    /// Whether it is told as a line of text: the path leads to nothing that would speak of a Status.
    pub plain: bool,
}

#[derive(Debug, Clone, Default)]
struct Details {
    name: String,
    group: String,
    kind: String,
    uid: String,
    causes: Vec<Cause>,
    retry_after_seconds: u32,
}

/// One reason of several, usually one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    pub reason: &'static str,
    pub message: String,
    pub field: String,
}

/// What is said of a path that has no such method, whatever it leads to.
pub const NO_METHOD: &str = "the server does not allow this method on the requested resource";

fn qualified(kind: &str, group: &str) -> String {
    if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") }
}

/// Shorthand of this crate's request paths.
pub type Result<T, E = Refusal> = std::result::Result<T, E>;

impl Refusal {
    /// A refusal with this code, reason and message.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        let (details, continue_token) = (None, None);
        Self { code, reason, message: message.into(), details, continue_token, outdated: false, plain: false }
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub fn not_found(resource: &Row, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} \"{name}\" not found", resource.qualified()))
            .about(resource, name)
    }

    /// No such path.
    pub fn no_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    /// A path outside of everything that is served, as Go's multiplexer refuses it.
    pub fn no_page() -> Self {
        Self { plain: true, ..Self::new(404, "NotFound", "404 page not found") }
    }

    pub fn already_exists(resource: &Row, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{} \"{name}\" already exists", resource.qualified()))
            .about(resource, name)
    }

    pub fn conflict(resource: &Row, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", resource.qualified());
        Self::new(409, "Conflict", message).about(resource, name)
    }

    /// The same where upstream names the kind and not the resource.
    pub fn conflict_of_kind(resource: &Row, name: &str, why: &str) -> Self {
        let kind = qualified(&resource.kind, &resource.group);
        let message = format!("Operation cannot be fulfilled on {kind} \"{name}\": {why}");
        let mut refusal = Self::new(409, "Conflict", message);
        refusal.details = Some(Box::new(Details {
            name: name.to_owned(),
            group: resource.group.to_string(),
            kind: resource.kind.to_string(),
            ..Details::default()
        }));
        refusal
    }

    /// The object changed since the client read it.
    pub fn modified(resource: &Row, name: &str) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }

    pub fn forbidden(resource: &Row, name: &str, why: &str) -> Self {
        let message = if name.is_empty() {
            format!("{} is forbidden: {why}", resource.qualified())
        } else {
            format!("{} \"{name}\" is forbidden: {why}", resource.qualified())
        };
        Self::new(403, "Forbidden", message).about(resource, name)
    }

    /// Field errors; the message lists them as upstream does.
    pub fn invalid(resource: &Row, name: &str, causes: Vec<Cause>) -> Self {
        Self::invalid_kind(&resource.group, &resource.kind, name, causes)
    }

    /// The same of a kind that no resource has.
    pub fn invalid_kind(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Self {
        let told: Vec<String> =
            causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        let all = if told.len() == 1 { told.concat() } else { format!("[{}]", told.join(", ")) };
        let qualified = qualified(kind, group);
        let mut refusal = Self::new(422, "Invalid", format!("{qualified} \"{name}\" is invalid: {all}"));
        refusal.details = Some(Box::new(Details {
            name: name.to_owned(),
            group: group.to_owned(),
            kind: kind.to_owned(),
            causes,
            ..Details::default()
        }));
        refusal
    }

    pub fn method_not_allowed(message: impl Into<String>) -> Self {
        Self::new(405, "MethodNotAllowed", message)
    }

    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// The kind changed while the request was worked on; the server tries again by itself.
    pub fn outdated() -> Self {
        let refusal = Self::unavailable("the definition of the kind changed meanwhile: try again");
        Self { outdated: true, ..refusal.retry_after(1) }
    }

    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    pub fn internal(message: impl std::fmt::Display) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {message}"))
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    pub fn not_acceptable(types: &str) -> Self {
        let message = format!("only the following media types are accepted: {types}");
        Self::new(406, "NotAcceptable", message)
    }

    pub fn unsupported_media_type(types: &str) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {types}"
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// The revision asked for has not happened yet.
    pub fn future_revision(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let mut refusal = Self::new(504, "Timeout", message);
        refusal.details = Some(Box::new(Details {
            retry_after_seconds: 1,
            causes: vec![Cause {
                reason: "ResourceVersionTooLarge",
                message: "Too large resource version".to_owned(),
                field: String::new(),
            }],
            ..Details::default()
        }));
        refusal
    }

    /// Says which object it is about.
    pub fn about(mut self, resource: &Row, name: &str) -> Self {
        let details = self.details.get_or_insert_default();
        details.name = name.to_owned();
        details.group = resource.group.to_string();
        details.kind = resource.plural.to_string();
        self
    }

    /// Adds causes to the details.
    pub fn because(mut self, causes: Vec<Cause>) -> Self {
        self.details.get_or_insert_default().causes = causes;
        self
    }

    /// Seconds after which to try again.
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    /// Seconds after which to try again, when the refusal says so.
    pub fn retry_seconds(&self) -> Option<u32> {
        self.details.as_ref().map(|details| details.retry_after_seconds).filter(|seconds| *seconds > 0)
    }

    /// The `Status` object.
    pub fn status(&self) -> Value {
        let mut metadata = json!({});
        if let Some(token) = &self.continue_token {
            metadata["continue"] = json!(token);
        }
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": metadata, "status": "Failure",
            "message": self.message,
        });
        if !self.reason.is_empty() {
            status["reason"] = json!(self.reason);
        }
        if let Some(details) = &self.details {
            status["details"] = details.json();
        }
        status["code"] = json!(self.code);
        status
    }
}

impl Details {
    fn json(&self) -> Value {
        let mut out = serde_json::Map::new();
        for (name, value) in
            [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)]
        {
            if !value.is_empty() {
                out.insert(name.to_owned(), json!(value));
            }
        }
        if !self.causes.is_empty() {
            let causes = self.causes.iter().map(|cause| {
                let mut one = json!({ "reason": cause.reason, "message": cause.message });
                if !cause.field.is_empty() {
                    one["field"] = json!(cause.field);
                }
                one
            });
            out.insert("causes".to_owned(), causes.collect());
        }
        if self.retry_after_seconds > 0 {
            out.insert("retryAfterSeconds".to_owned(), json!(self.retry_after_seconds));
        }
        Value::Object(out)
    }
}

/// The `Status` of a deletion or another success without an object.
pub fn success(resource: &Row, name: &str, uid: &str) -> Value {
    let mut details = json!({ "name": name, "kind": resource.plural, "uid": uid });
    if !resource.group.is_empty() {
        details["group"] = json!(resource.group);
    }
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details })
}
