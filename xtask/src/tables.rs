//! Turns the published facts of the Kubernetes API into the compact tables the API server embeds.
//!
//! Input is a folder with `schemas.json`, `protobuf.json`, `bootstrap.json`, `discovery.json` and `paths.json`; output goes to
//! `control/apiserver/data` and is committed. `control/apiserver/src/schema/load.rs` reads what is written here.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

use crate::process::root;

/// Group and version of every kind that is served, also of those that are served only when somebody asks for them.
const SERVED: &[(&str, &str)] = &[
    ("", "v1"),
    ("admissionregistration.k8s.io", "v1"),
    ("admissionregistration.k8s.io", "v1alpha1"),
    ("admissionregistration.k8s.io", "v1beta1"),
    ("apiextensions.k8s.io", "v1"),
    ("apiregistration.k8s.io", "v1"),
    ("apps", "v1"),
    ("authentication.k8s.io", "v1"),
    ("authorization.k8s.io", "v1"),
    ("autoscaling", "v1"),
    ("autoscaling", "v2"),
    ("batch", "v1"),
    ("certificates.k8s.io", "v1"),
    ("certificates.k8s.io", "v1alpha1"),
    ("certificates.k8s.io", "v1beta1"),
    ("coordination.k8s.io", "v1"),
    ("coordination.k8s.io", "v1alpha2"),
    ("coordination.k8s.io", "v1beta1"),
    ("discovery.k8s.io", "v1"),
    ("events.k8s.io", "v1"),
    ("flowcontrol.apiserver.k8s.io", "v1"),
    ("internal.apiserver.k8s.io", "v1alpha1"),
    ("networking.k8s.io", "v1"),
    ("networking.k8s.io", "v1beta1"),
    ("node.k8s.io", "v1"),
    ("policy", "v1"),
    ("rbac.authorization.k8s.io", "v1"),
    ("resource.k8s.io", "v1"),
    ("resource.k8s.io", "v1alpha3"),
    ("resource.k8s.io", "v1beta1"),
    ("resource.k8s.io", "v1beta2"),
    ("scheduling.k8s.io", "v1"),
    ("scheduling.k8s.io", "v1alpha2"),
    ("storage.k8s.io", "v1"),
    ("storage.k8s.io", "v1beta1"),
    ("storagemigration.k8s.io", "v1beta1"),
];

/// What statuses are made of, so that clients read it before anybody has written it.
const STATUS_PARTS: &[&str] = &["Status", ".NodeDaemonEndpoints", ".DaemonEndpoint", ".NodeSystemInfo"];

/// Optional fields that Go writes also when they are zero, and to which nothing gives another value.
const WRITTEN: &[&str] = &[
    "io.k8s.api.apps.v1.StatefulSetOrdinals.start",
    "io.k8s.api.apps.v1.StatefulSetSpec.serviceName",
    "io.k8s.api.apps.v1.StatefulSetStatus.availableReplicas",
    "io.k8s.api.authentication.v1.TokenRequestStatus.token",
    "io.k8s.api.certificates.v1beta1.PodCertificateRequestSpec.pkixPublicKey",
    "io.k8s.api.certificates.v1beta1.PodCertificateRequestSpec.proofOfPossession",
    "io.k8s.api.core.v1.Event.reportingComponent",
    "io.k8s.api.core.v1.Event.reportingInstance",
    "io.k8s.api.core.v1.NodeRuntimeHandler.name",
    "io.k8s.api.policy.v1.PodDisruptionBudgetStatus.currentHealthy",
    "io.k8s.api.policy.v1.PodDisruptionBudgetStatus.desiredHealthy",
    "io.k8s.api.policy.v1.PodDisruptionBudgetStatus.disruptionsAllowed",
    "io.k8s.api.policy.v1.PodDisruptionBudgetStatus.expectedPods",
    "io.k8s.api.resource.v1beta1.DeviceRequest.deviceClassName",
    "io.k8s.api.scheduling.v1.PriorityClass.value",
];

/// Reads the facts in `facts` and writes the tables.
pub fn generate(facts: &Path) -> Result<()> {
    let data = root().join("control/apiserver/data");
    std::fs::create_dir_all(&data).with_context(|| format!("create {}", data.display()))?;
    let schemas = read(&facts.join("schemas.json"))?;
    let compactor = Compactor::new(&schemas)?;
    write(&data.join("schema.json"), &compactor.run()?)?;
    let messages = read(&facts.join("protobuf.json"))?;
    let kinds: Vec<&str> = compactor.index.keys().copied().collect();
    write(&data.join("protobuf.json"), &crate::wire::table(&schemas, &messages, &kinds)?)?;
    write_text(&data.join("descriptions.txt"), &crate::descriptions::table(&kinds)?)?;
    write(&data.join("bootstrap.json"), &read(&facts.join("bootstrap.json"))?)?;
    write(&data.join("discovery.json"), &discovery(&read(&facts.join("discovery.json"))?)?)?;
    write(&data.join("paths.json"), &paths(&read(&facts.join("paths.json"))?)?)
}

fn read(path: &Path) -> Result<Value> {
    let text = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is not JSON", path.display()))
}

fn write(path: &Path, value: &Value) -> Result<()> {
    let mut text = serde_json::to_string(value).context("encode a table")?;
    text.push('\n');
    write_text(path, &text)
}

fn write_text(path: &Path, text: &str) -> Result<()> {
    println!("tables: {} ({} bytes)", path.display(), text.len());
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

/// `group/version` to resources, as the API server's own table must show them; a test compares the two.
fn discovery(facts: &Value) -> Result<Value> {
    let mut kept = Map::new();
    for group in facts["items"].as_array().context("discovery.json has no items")? {
        let name = group["metadata"]["name"].as_str().unwrap_or_default();
        for version in group["versions"].as_array().into_iter().flatten() {
            let number = version["version"].as_str().unwrap_or_default();
            if SERVED.contains(&(name, number)) {
                kept.insert(format!("{name}/{number}"), version["resources"].clone());
            }
        }
    }
    Ok(Value::Object(kept))
}

/// What may be done at a path, `[action, group, version, kind]` by method; a test compares it with the documents.
fn paths(facts: &Value) -> Result<Value> {
    let mut kept = Map::new();
    for (path, methods) in facts.as_object().context("paths.json is not an object")? {
        let mut operations = Map::new();
        for (method, operation) in methods.as_object().into_iter().flatten() {
            let (action, kind) = (&operation["action"], &operation["gvk"]);
            if action.is_string() {
                let known = json!([action, kind["group"], kind["version"], kind["kind"]]);
                operations.insert(method.clone(), known);
            }
        }
        if !operations.is_empty() {
            kept.insert(path.clone(), Value::Object(operations));
        }
    }
    Ok(Value::Object(kept))
}

/// What `/version` answers, which is no kind.
const BUILD: &str = "io.k8s.apimachinery.pkg.version.Info";

/// Renames types to their index and properties to the short form documented in `schema/load.rs`.
struct Compactor<'a> {
    schemas: &'a Map<String, Value>,
    index: BTreeMap<&'a str, usize>,
}

impl<'a> Compactor<'a> {
    fn new(schemas: &'a Value) -> Result<Self> {
        let schemas = schemas.as_object().context("schemas.json is not an object")?;
        let mut compactor = Self { schemas, index: BTreeMap::new() };
        let roots: Vec<&str> = schemas
            .iter()
            .filter(|(name, schema)| served(schema) || *name == BUILD)
            .map(|(name, _)| name.as_str())
            .collect();
        for root in roots {
            compactor.reach(root)?;
        }
        for (position, index) in compactor.index.values_mut().enumerate() {
            *index = position;
        }
        Ok(compactor)
    }

    /// Marks `name` and everything it refers to.
    fn reach(&mut self, name: &'a str) -> Result<()> {
        if scalar(name).is_some() || self.index.contains_key(name) {
            return Ok(());
        }
        self.index.insert(name, 0);
        let schema =
            self.schemas.get(name).with_context(|| format!("{name} is referred to but not defined"))?;
        let mut found = Vec::new();
        references(schema, &mut found);
        found.into_iter().try_for_each(|name| self.reach(name))
    }

    fn run(&self) -> Result<Value> {
        let types = self.index.keys().map(|name| self.object(name)).collect::<Result<Vec<_>>>()?;
        Ok(json!({ "types": types }))
    }

    fn object(&self, name: &str) -> Result<Value> {
        let schema = &self.schemas[name];
        let mut fields = Map::new();
        for (field, node) in schema["properties"].as_object().into_iter().flatten() {
            let of_kind = schema.get("x-kubernetes-group-version-kind").is_some();
            let part = STATUS_PARTS.iter().any(|part| name.ends_with(part));
            let shown = if of_kind { field == "status" } else { part };
            let path = format!("{name}.{field}");
            let written = WRITTEN.contains(&&*path);
            let required =
                schema["required"].as_array().is_some_and(|all| all.iter().any(|one| one == field));
            let pointer = !required && crate::wire::is_pointer(name, field);
            let mut node = self.node(node, shown || written || pointer).context(path)?;
            if !required && !written && !pointer {
                leave_out_zero(&mut node);
            }
            fields.insert(field.clone(), node);
        }
        let mut out = json!({ "n": name, "f": fields });
        if let Some(required) = schema.get("required") {
            out["r"] = required.clone();
        }
        if schema["x-kubernetes-map-type"] == "atomic" {
            out["a"] = json!(true);
        }
        if let Some(kinds) = schema["x-kubernetes-group-version-kind"].as_array() {
            let own: Vec<Value> =
                kinds.iter().map(|k| json!([k["group"], k["version"], k["kind"]])).collect();
            if own.len() == 1 {
                out["g"] = own[0].clone();
            }
        }
        Ok(out)
    }

    /// `shown` says that clients see the field also when nobody has written it.
    fn node(&self, node: &Value, shown: bool) -> Result<Value> {
        let kind = self.kind(node)?;
        let mut extra = Map::new();
        let copied = [
            ("x-kubernetes-list-type", "lt"),
            ("x-kubernetes-list-map-keys", "lk"),
            ("x-kubernetes-patch-strategy", "ps"),
            ("x-kubernetes-patch-merge-key", "pk"),
            ("x-kubernetes-map-type", "mt"),
        ];
        for (long, short) in copied {
            if let Some(value) = node.get(long) {
                extra.insert(short.to_owned(), value.clone());
            }
        }
        // A default that is Go's zero value says that the field is no pointer and always written. People write specs, and
        // see what they wrote; of a status that nobody wrote yet, clients read and patch the zeros.
        if let Some(default) = node.get("default")
            && (shown || ![json!({}), json!(""), json!(0)].contains(default))
        {
            extra.insert("d".to_owned(), default.clone());
        }
        if node.get("default") == Some(&json!({})) {
            extra.insert("z".to_owned(), json!(true));
        }
        if extra.is_empty() {
            return Ok(kind);
        }
        extra.insert("k".to_owned(), kind);
        Ok(Value::Object(extra))
    }

    fn kind(&self, node: &Value) -> Result<Value> {
        if let Some(name) = node["$ref"].as_str() {
            return Ok(match scalar(name) {
                Some(letter) => json!(letter),
                None => json!(self.index[name]),
            });
        }
        let letter = match (node["type"].as_str(), node["format"].as_str()) {
            (Some("string"), Some("byte")) => "y",
            (Some("string"), _) => "s",
            (Some("boolean"), _) => "b",
            (Some("integer"), Some("int64")) => "l",
            (Some("integer"), _) => "i",
            (Some("number"), _) => "n",
            (Some("array"), _) => return Ok(json!(["list", self.node(&node["items"], false)?])),
            (Some("object"), _) if node.get("additionalProperties").is_some() => {
                return Ok(json!(["map", self.node(&node["additionalProperties"], false)?]));
            }
            (Some("object") | None, _) => "a",
            other => bail!("no short form for {other:?}"),
        };
        Ok(json!(letter))
    }
}

/// Marks a scalar as one whose zero is as good as nothing: its letter is a capital.
fn leave_out_zero(node: &mut Value) {
    let kind = if node.is_object() { &mut node["k"] } else { node };
    if let Some(letter @ ("s" | "i" | "l" | "n" | "b" | "y")) = kind.as_str() {
        *kind = json!(letter.to_uppercase());
    }
}

fn served(schema: &Value) -> bool {
    schema["x-kubernetes-group-version-kind"].as_array().is_some_and(|kinds| {
        kinds.iter().any(|k| {
            let pair = (k["group"].as_str().unwrap_or_default(), k["version"].as_str().unwrap_or_default());
            SERVED.contains(&pair)
        })
    })
}

fn references<'a>(schema: &'a Value, found: &mut Vec<&'a str>) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::String(name)) = fields.get("$ref") {
                found.push(name);
            }
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

/// Types that are scalars on the wire or hold anything.
fn scalar(name: &str) -> Option<&'static str> {
    Some(match name {
        "io.k8s.apimachinery.pkg.api.resource.Quantity" => "q",
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString" => "x",
        "io.k8s.apimachinery.pkg.apis.meta.v1.Time" => "t",
        "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime" => "u",
        "io.k8s.apimachinery.pkg.runtime.RawExtension" | "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1" => {
            "a"
        }
        name => {
            let kind = name.strip_prefix("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.")?;
            // Unions, which the published schema leaves empty.
            let union = kind.strip_prefix("JSONSchemaPropsOr").is_some();
            return (union || kind == "JSON").then_some("a");
        }
    })
}
