//! One operation of an OpenAPI document: what it takes, what it answers, and what may be asked of it in the query.

use serde_json::{Map, Value, json};

use super::openapi::Form;

/// What may be done at a path with a method.
#[derive(Debug)]
pub struct Operation<'a> {
    pub method: &'static str,
    /// As `x-kubernetes-action` says it; empty where it is about no kind.
    pub action: &'static str,
    /// Unique in all documents.
    pub id: String,
    pub description: String,
    /// The group and version it is listed under, such as `core_v1`.
    pub tag: String,
    /// Group, version and kind it is about.
    pub kind: (&'a str, &'a str, &'a str),
    /// Whether it is on objects of a custom kind, which have fewer forms.
    pub is_custom: bool,
    pub takes: Option<Content>,
    pub gives: Content,
}

/// What is exchanged.
#[derive(Debug, Clone)]
pub enum Content {
    /// An object of the type of this name.
    Object(String),
    /// A patch, in any of its forms.
    Patch,
    Text,
}

/// A parameter of the query: its name, type, and what it is for.
type Parameter = (&'static str, &'static str, &'static str);

const DRY_RUN: Parameter = ("dryRun", "string", "`All`: everything happens but that nothing is stored.");
const MANAGER: Parameter = ("fieldManager", "string", "Who owns what is written.");
const VALIDATION: Parameter =
    ("fieldValidation", "string", "What becomes of unknown and double fields: Ignore, Warn or Strict.");
const FORCE: Parameter = ("force", "boolean", "An apply takes fields from their owners.");
const GRACE: Parameter = ("gracePeriodSeconds", "integer", "Seconds until the object is gone.");
const IGNORE_ERRORS: Parameter = (
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "boolean",
    "Deletes what cannot be read, if the server can do that.",
);
const ORPHAN: Parameter = ("orphanDependents", "boolean", "Deprecated: use propagationPolicy.");
const PROPAGATION: Parameter =
    ("propagationPolicy", "string", "What becomes of dependents: Orphan, Background or Foreground.");
const BOOKMARKS: Parameter =
    ("allowWatchBookmarks", "boolean", "A watch may tell revisions between changes.");
const CONTINUE: Parameter = ("continue", "string", "Where a list in pieces goes on.");
const FIELDS: Parameter = ("fieldSelector", "string", "Selects by fields.");
const LABELS: Parameter = ("labelSelector", "string", "Selects by labels.");
const LIMIT: Parameter = ("limit", "integer", "At most how many objects a piece of a list holds.");
const REVISION: Parameter = ("resourceVersion", "string", "The revision that is asked about.");
const MATCH: Parameter = ("resourceVersionMatch", "string", "How that revision is meant.");
const INITIAL: Parameter = ("sendInitialEvents", "boolean", "A watch begins with what is there.");
const TIMEOUT: Parameter = ("timeoutSeconds", "integer", "Seconds after which a watch or list ends.");
const WATCH: Parameter = ("watch", "boolean", "Tells changes instead of a list.");
const CONTAINER: Parameter = ("container", "string", "The container; the only one when nothing is said.");

const WRITE: &[Parameter] = &[DRY_RUN, MANAGER, VALIDATION];
const PATCH: &[Parameter] = &[DRY_RUN, MANAGER, VALIDATION, FORCE];
const DELETE: &[Parameter] = &[DRY_RUN, GRACE, IGNORE_ERRORS, ORPHAN, PROPAGATION];
const LIST: &[Parameter] =
    &[BOOKMARKS, CONTINUE, FIELDS, LABELS, LIMIT, REVISION, MATCH, INITIAL, TIMEOUT, WATCH];
const DELETE_ALL: &[Parameter] = &[
    CONTINUE,
    DRY_RUN,
    FIELDS,
    GRACE,
    IGNORE_ERRORS,
    LABELS,
    LIMIT,
    ORPHAN,
    PROPAGATION,
    REVISION,
    MATCH,
    INITIAL,
    TIMEOUT,
];
const LOG: &[Parameter] = &[
    CONTAINER,
    ("follow", "boolean", "Goes on with what is written later."),
    ("insecureSkipTLSVerifyBackend", "boolean", "The certificate of the node is not looked at."),
    ("limitBytes", "integer", "At most how many bytes."),
    ("previous", "boolean", "Of the container that ended before."),
    ("sinceSeconds", "integer", "How many seconds back."),
    ("stream", "string", "All, Stdout or Stderr."),
    ("tailLines", "integer", "How many lines from the end."),
    ("timestamps", "boolean", "Each line begins with its time."),
];
const STREAMS: &[Parameter] = &[
    CONTAINER,
    ("stderr", "boolean", "Whether its errors are told."),
    ("stdin", "boolean", "Whether it is given input."),
    ("stdout", "boolean", "Whether its output is told."),
    ("tty", "boolean", "Whether it has a terminal."),
];
const COMMAND: Parameter = ("command", "string", "What is run, word by word.");
const PORTS: &[Parameter] =
    &[("ports", "integer", "The ports to forward, for clients that speak in frames.")];
const INNER_PATH: &[Parameter] = &[("path", "string", "The path of the request that is handed through.")];

const PRETTY: Parameter = ("pretty", "string", "The answer is laid out for people.");
/// Parameters that are parts of paths.
const PLACES: &[Parameter] = &[
    ("name", "string", "The name of the object."),
    ("namespace", "string", "The namespace of the object."),
    ("path", "string", "The path of the request that is handed through."),
];

const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];
/// kubectl makes a strategic patch where it is told that it may.
const CUSTOM_PATCHES: &[&str] =
    &["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];
const CUSTOM_OBJECTS: &[&str] = &["application/json", "application/yaml"];
const OBJECTS: &[&str] = &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
/// What else a collection is told in when it is watched.
const WATCHED: &[&str] =
    &["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];

/// The item of a path.
pub fn item(path: &str, operations: &[Operation<'_>], form: Form) -> Value {
    let mut out = Map::new();
    for operation in operations {
        out.insert(operation.method.to_owned(), operation.document(form));
    }
    let is_held = |name: &str| path.contains(&format!("{{{name}}}"));
    let held = PLACES.iter().filter(|(name, ..)| is_held(name)).map(|one| parameter(one, "path", form));
    let shows_objects = operations.iter().all(|operation| !matches!(operation.action, "connect" | ""));
    let pretty = shows_objects.then(|| parameter(&PRETTY, "query", form));
    let parameters: Vec<Value> = held.chain(pretty).collect();
    if !parameters.is_empty() {
        out.insert("parameters".to_owned(), Value::Array(parameters));
    }
    Value::Object(out)
}

fn parameter((name, kind, description): &Parameter, place: &str, form: Form) -> Value {
    let mut out = json!({ "name": name, "in": place, "description": description });
    if place == "path" {
        out["required"] = json!(true);
    }
    let unique = ("uniqueItems".to_owned(), json!(true));
    if form == Form::V3 {
        out["schema"] = json!({ "type": kind });
        out["schema"].as_object_mut().expect("it was made an object").extend([unique]);
    } else {
        out["type"] = json!(kind);
        out.as_object_mut().expect("it was made an object").extend([unique]);
    }
    out
}

impl Operation<'_> {
    fn query(&self) -> Vec<Parameter> {
        let fixed = match (self.action, self.kind.2) {
            ("post" | "put", _) => WRITE,
            ("patch", _) => PATCH,
            ("delete", _) => DELETE,
            ("list" | "watch" | "watchlist", _) => LIST,
            ("deletecollection", _) => DELETE_ALL,
            ("get", _) if matches!(self.gives, Content::Text) => LOG,
            ("connect", "PodExecOptions") => return [STREAMS, &[COMMAND]].concat(),
            ("connect", "PodAttachOptions") => STREAMS,
            ("connect", "PodPortForwardOptions") => PORTS,
            ("connect", _) => INNER_PATH,
            _ => &[],
        };
        fixed.to_vec()
    }

    /// Codes of success and what they mean.
    fn codes(&self) -> &'static [(&'static str, &'static str)] {
        match self.action {
            "post" => &[("200", "OK"), ("201", "Created"), ("202", "Accepted")],
            "patch" if self.is_custom => &[("200", "OK")],
            "put" | "patch" => &[("200", "OK"), ("201", "Created")],
            "delete" => &[("200", "OK"), ("202", "Accepted")],
            _ => &[("200", "OK")],
        }
    }

    fn media(&self) -> Vec<&'static str> {
        match (&self.gives, self.action) {
            _ if self.is_custom => CUSTOM_OBJECTS.to_vec(),
            (Content::Text, "get") => [&["text/plain"], OBJECTS].concat(),
            (Content::Text, "") => vec!["application/json"],
            (Content::Text, _) => vec!["*/*"],
            (_, "list" | "watch" | "watchlist") => [OBJECTS, WATCHED].concat(),
            _ => OBJECTS.to_vec(),
        }
    }

    fn document(&self, form: Form) -> Value {
        let (group, version, kind) = self.kind;
        let mut out = json!({ "description": self.description, "tags": [self.tag], "operationId": self.id });
        let mut query: Vec<Value> = self.query().iter().map(|one| parameter(one, "query", form)).collect();
        if let Some(takes) = &self.takes {
            let media = match (takes, self.is_custom) {
                (Content::Patch, true) => CUSTOM_PATCHES,
                (Content::Patch, false) => PATCHES,
                (_, true) => CUSTOM_OBJECTS,
                (_, false) => &["*/*"],
            };
            if form == Form::V3 {
                out["requestBody"] =
                    json!({ "required": self.action != "delete", "content": contents(takes, media) });
            } else {
                out["consumes"] = json!(media);
                query.push(json!({ "name": "body", "in": "body", "required": self.action != "delete",
                    "schema": takes.schema(form) }));
            }
        } else if form == Form::V2 {
            out["consumes"] = json!(if self.is_custom { CUSTOM_OBJECTS } else { &["*/*"] });
        }
        if form == Form::V2 {
            out["produces"] = json!(self.media());
            out["schemes"] = json!(["https"]);
        }
        if !query.is_empty() {
            out["parameters"] = Value::Array(query);
        }
        out["responses"] = self.responses(form);
        if !self.action.is_empty() {
            out["x-kubernetes-action"] = json!(self.action);
            out["x-kubernetes-group-version-kind"] =
                json!({ "group": group, "version": version, "kind": kind });
        }
        out
    }

    fn responses(&self, form: Form) -> Value {
        let mut out = Map::new();
        for (code, meaning) in self.codes() {
            let response = if form == Form::V3 {
                json!({ "description": meaning, "content": contents(&self.gives, &self.media()) })
            } else {
                json!({ "description": meaning, "schema": self.gives.schema(form) })
            };
            out.insert((*code).to_owned(), response);
        }
        out.insert("401".to_owned(), json!({ "description": "Unauthorized" }));
        Value::Object(out)
    }
}

/// The same content in several media types.
fn contents(content: &Content, media: &[&str]) -> Value {
    let schema = content.schema(Form::V3);
    media.iter().map(|media| ((*media).to_owned(), json!({ "schema": schema }))).collect::<Map<_, _>>().into()
}

impl Content {
    fn schema(&self, form: Form) -> Value {
        match self {
            Self::Object(name) => form.bare_reference(name),
            Self::Patch => json!({ "type": "object" }),
            Self::Text => json!({ "type": "string" }),
        }
    }
}
