//! What each kind of volume needs, in pods and in PersistentVolumes.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use super::local_path::{descending, key_to_path, mode, no_backsteps};
use crate::tree::{at, fields, flag, int, list, text};
use crate::validate::{self, Errors};

/// A kind of volume.
pub struct Source {
    pub field: &'static str,
    /// How upstream calls it where there is another one already.
    pub refused: &'static str,
    /// How upstream calls it where something in it is wrong.
    pub place: &'static str,
    pub check: fn(&Value, &str, &mut Errors),
}

/// A kind that upstream calls by its name.
pub const fn source(field: &'static str, check: fn(&Value, &str, &mut Errors)) -> Source {
    Source { field, refused: field, place: field, check }
}

/// Reports more than one source, and what is wrong with the first. Returns whether there is one.
pub fn validate_one(all: &[Source], owner: &Value, here: &str, errors: &mut Errors) -> bool {
    let mut found = false;
    for source in all {
        let value = at(owner, &[source.field]);
        if !value.is_object() {
            continue;
        }
        if found {
            errors.forbidden(format!("{here}.{}", source.refused), "may not specify more than 1 volume type");
        } else {
            (source.check)(value, &format!("{here}.{}", source.place), errors);
        }
        found = true;
    }
    found
}

/// Reports those of `names` that are missing.
pub fn needs(source: &Value, names: &[&str], here: &str, errors: &mut Errors) {
    for name in names {
        if text(source, &[name]).is_empty() {
            errors.required(format!("{here}.{name}"), "");
        }
    }
}

/// Reports lists that are missing.
fn needs_some(source: &Value, name: &str, here: &str, errors: &mut Errors) {
    if list(source, &[name]).is_empty() {
        errors.required(format!("{here}.{name}"), "");
    }
}

/// A secret that is named, if there is one.
pub fn secret(source: &Value, names: &[&str], here: &str, errors: &mut Errors) {
    let secret = at(source, &["secretRef"]);
    if secret.is_object() {
        needs(secret, names, &format!("{here}.secretRef"), errors);
    }
}

fn within(source: &Value, field: &str, most: i64, why: &str, here: &str, errors: &mut Errors) {
    if int(source, &[field]).is_some_and(|value| !(0..=most).contains(&value)) {
        errors.invalid(format!("{here}.{field}"), at(source, &[field]), why);
    }
}

const HOST_PATHS: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

pub fn host_path(source: &Value, here: &str, errors: &mut Errors) {
    let path = text(source, &["path"]);
    if path.is_empty() {
        errors.required(format!("{here}.path"), "");
        return;
    }
    no_backsteps(path, &format!("{here}.path"), errors);
    errors.must_be(format!("{here}.type"), text(source, &["type"]), HOST_PATHS);
}

pub fn local(source: &Value, here: &str, errors: &mut Errors) {
    needs(source, &["path"], here, errors);
    no_backsteps(text(source, &["path"]), &format!("{here}.path"), errors);
}

pub fn git_repo(source: &Value, here: &str, errors: &mut Errors) {
    needs(source, &["repository"], here, errors);
    descending(text(source, &["directory"]), &format!("{here}.directory"), errors);
}

pub fn gce_disk(source: &Value, here: &str, errors: &mut Errors) {
    needs(source, &["pdName"], here, errors);
    within(source, "partition", 255, "must be between 1 and 255, inclusive", here, errors);
}

pub fn aws_disk(source: &Value, here: &str, errors: &mut Errors) {
    needs(source, &["volumeID"], here, errors);
    within(source, "partition", 255, "must be between 1 and 255, inclusive", here, errors);
}

pub fn secret_files(source: &Value, here: &str, errors: &mut Errors) {
    needs(source, &["secretName"], here, errors);
    keys(source, here, errors);
}

pub fn config_map_files(source: &Value, here: &str, errors: &mut Errors) {
    needs(source, &["name"], here, errors);
    keys(source, here, errors);
}

fn keys(source: &Value, here: &str, errors: &mut Errors) {
    mode(source, "defaultMode", here, errors);
    for (index, item) in list(source, &["items"]).iter().enumerate() {
        key_to_path(item, &format!("{here}.items[{index}]"), errors);
    }
}

pub fn nfs(source: &Value, here: &str, errors: &mut Errors) {
    needs(source, &["server", "path"], here, errors);
    let path = text(source, &["path"]);
    if !path.starts_with('/') {
        errors.invalid(format!("{here}.path"), &Value::from(path), "must be an absolute path");
    }
}

/// Forms of iSCSI names, by what they begin with.
static ISCSI_NAMES: LazyLock<[(&str, Regex); 3]> = LazyLock::new(|| {
    let form = |text| Regex::new(text).expect("the patterns are constants that are compiled in a test");
    [
        ("iqn", form(r"iqn\.\d{4}-\d{2}\.([[:alnum:]\-.]+)(:[^,;*&$|\s]+)$")),
        ("eui", form(r"^eui.[[:alnum:]]{16}$")),
        ("naa", form(r"^naa.[[:alnum:]]{32}$")),
    ]
});

const ISCSI_FORM: &str = "must be valid format";
const ISCSI_START: &str = "must be valid format starting with iqn, eui, or naa";

fn iscsi_name(name: &str, start: &str, here: &str, errors: &mut Errors) {
    match ISCSI_NAMES.iter().find(|(kind, _)| name.starts_with(kind)) {
        None => errors.invalid(here, &Value::from(name), start),
        Some((_, form)) if !form.is_match(name) => errors.invalid(here, &Value::from(name), ISCSI_FORM),
        Some(_) => {}
    }
}

pub fn iscsi(source: &Value, here: &str, errors: &mut Errors) {
    iscsi_target(source, ISCSI_START, here, errors);
    if let Some(initiator) = at(source, &["initiatorName"]).as_str() {
        iscsi_name(initiator, ISCSI_START, &format!("{here}.initiatorname"), errors);
    }
}

pub fn iscsi_persistent(source: &Value, here: &str, errors: &mut Errors) {
    iscsi_target(source, ISCSI_FORM, here, errors);
    secret(source, &["name"], here, errors);
    if let Some(initiator) = at(source, &["initiatorName"]).as_str() {
        iscsi_name(initiator, ISCSI_FORM, &format!("{here}.initiatorname"), errors);
    }
}

/// What is too long for a session's name, in upstream's words.
pub const ISCSI_TOO_LONG: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";

/// Whether the session of a volume gets a name that is too long.
pub fn iscsi_session_is_long(source: &Value, volume: &str) -> bool {
    let portal = text(source, &["targetPortal"]);
    at(source, &["initiatorName"]).is_string() && volume.len() + 1 + portal.len() > 64
}

fn iscsi_target(source: &Value, start: &str, here: &str, errors: &mut Errors) {
    needs(source, &["targetPortal", "iqn"], here, errors);
    if !text(source, &["iqn"]).is_empty() {
        iscsi_name(text(source, &["iqn"]), start, &format!("{here}.iqn"), errors);
    }
    within(source, "lun", 255, "must be between 0 and 255, inclusive", here, errors);
    let authenticates = flag(source, &["chapAuthDiscovery"]) || flag(source, &["chapAuthSession"]);
    if authenticates && at(source, &["secretRef"]).is_null() {
        errors.required(format!("{here}.secretRef"), "");
    }
}

pub fn glusterfs(source: &Value, here: &str, errors: &mut Errors) {
    needs(source, &["endpoints", "path"], here, errors);
}

pub fn glusterfs_persistent(source: &Value, here: &str, errors: &mut Errors) {
    glusterfs(source, here, errors);
    let (namespace, place) = (at(source, &["endpointsNamespace"]), format!("{here}.endpointsNamespace"));
    match namespace.as_str() {
        Some("") => {
            let why = "if the endpointnamespace is set, it must be a valid namespace name";
            errors.invalid(place, namespace, why);
        }
        Some(name) => errors.check(place, name, validate::label),
        None => {}
    }
}

pub fn flocker(source: &Value, here: &str, errors: &mut Errors) {
    let (name, id) = (text(source, &["datasetName"]), text(source, &["datasetUUID"]));
    match (name.is_empty(), id.is_empty()) {
        (true, true) => errors.required(here, "one of datasetName and datasetUUID is required"),
        (false, false) => {
            let why = "datasetName and datasetUUID can not be specified simultaneously";
            errors.invalid(here, &Value::from("resource"), why);
        }
        _ => {}
    }
    if name.contains('/') {
        errors.invalid(format!("{here}.datasetName"), &Value::from(name), "must not contain '/'");
    }
}

pub fn claim(source: &Value, here: &str, errors: &mut Errors) {
    needs(source, &["claimName"], here, errors);
}

pub fn rbd(source: &Value, here: &str, errors: &mut Errors) {
    needs_some(source, "monitors", here, errors);
    needs(source, &["image"], here, errors);
}

pub fn cinder(source: &Value, here: &str, errors: &mut Errors) {
    needs(source, &["volumeID"], here, errors);
    secret(source, &["name"], here, errors);
}

pub fn cinder_persistent(source: &Value, here: &str, errors: &mut Errors) {
    needs(source, &["volumeID"], here, errors);
    secret(source, &["name", "namespace"], here, errors);
}

pub fn ceph(source: &Value, here: &str, errors: &mut Errors) {
    needs_some(source, "monitors", here, errors);
}

pub fn quobyte(source: &Value, here: &str, errors: &mut Errors) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let registry = text(source, &["registry"]);
    if registry.is_empty() {
        errors.required(format!("{here}.registry"), PAIRS);
    } else if text(source, &["tenant"]).len() > 64 {
        let why = "must be a UUID and may not exceed a length of 64 characters";
        errors.required(format!("{here}.tenant"), why);
    } else {
        for _ in registry.split(',').filter(|pair| !is_host_and_port(pair)) {
            errors.invalid(format!("{here}.registry"), &Value::from(registry), PAIRS);
        }
    }
    needs(source, &["volume"], here, errors);
}

/// `host:port` or `[host]:port`; a colon of the host needs the brackets.
fn is_host_and_port(pair: &str) -> bool {
    match pair.rsplit_once(':') {
        Some((host, _)) if host.starts_with('[') => host.ends_with(']') && !host[1..].contains('['),
        Some((host, port)) => !host.contains([':', '[', ']']) && !port.contains([']', '[']),
        None => false,
    }
}

pub fn fibre_channel(source: &Value, here: &str, errors: &mut Errors) {
    let (names, ids) = (at(source, &["targetWWNs"]), list(source, &["wwids"]));
    let named = !list(source, &["targetWWNs"]).is_empty();
    match (named, ids.is_empty()) {
        (false, true) => {
            let why = "must specify either targetWWNs or wwids, but not both";
            errors.required(format!("{here}.targetWWNs"), why);
        }
        (true, false) => {
            let why = "targetWWNs and wwids can not be specified simultaneously";
            errors.invalid(format!("{here}.targetWWNs"), names, why);
        }
        _ => {}
    }
    if !named {
        return;
    }
    if at(source, &["lun"]).is_null() {
        errors.required(format!("{here}.lun"), "lun is required if targetWWNs is specified");
    }
    within(source, "lun", 255, "must be between 0 and 255, inclusive", here, errors);
}

pub fn flex(source: &Value, here: &str, errors: &mut Errors) {
    needs(source, &["driver"], here, errors);
    for (key, _) in fields(source, &["options"]) {
        let domain = format!(".{}", key.split('/').next().unwrap_or(key).to_lowercase());
        if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
            let why = "kubernetes.io and k8s.io namespaces are reserved";
            errors.invalid(format!("{here}.options[{key}]"), &Value::from(key), why);
        }
    }
}

pub fn azure_file(source: &Value, here: &str, errors: &mut Errors) {
    needs(source, &["secretName", "shareName"], here, errors);
}

pub fn azure_file_persistent(source: &Value, here: &str, errors: &mut Errors) {
    azure_file(source, here, errors);
    if at(source, &["secretNamespace"]) == "" {
        errors.required(format!("{here}.secretNamespace"), "");
    }
}

const MANAGED_DISK: &str =
    "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
const BLOB_DISK: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";

pub fn azure_disk(source: &Value, here: &str, errors: &mut Errors) {
    needs(source, &["diskName", "diskURI"], here, errors);
    let chosen: [(&str, &[&str]); 2] =
        [("cachingMode", &["None", "ReadOnly", "ReadWrite"]), ("kind", &["Dedicated", "Managed", "Shared"])];
    for (field, known) in chosen {
        if let Some(value) = at(source, &[field]).as_str() {
            errors.must_be(format!("{here}.{field}"), value, known);
        }
    }
    let (place, uri) = (format!("{here}.diskURI"), text(source, &["diskURI"]));
    match at(source, &["kind"]).as_str() {
        Some("Managed") if !uri.starts_with("/subscriptions/") => {
            errors.must_be(place, uri, &[MANAGED_DISK]);
        }
        Some(kind) if kind != "Managed" && !uri.starts_with("https://") => {
            errors.must_be(place, uri, &[BLOB_DISK]);
        }
        _ => {}
    }
}

pub fn vsphere(source: &Value, here: &str, errors: &mut Errors) {
    needs(source, &["volumePath"], here, errors);
}

pub fn photon(source: &Value, here: &str, errors: &mut Errors) {
    needs(source, &["pdID"], here, errors);
}

pub fn portworx(source: &Value, here: &str, errors: &mut Errors) {
    needs(source, &["volumeID"], here, errors);
}

pub fn scale_io(source: &Value, here: &str, errors: &mut Errors) {
    needs(source, &["gateway", "system", "volumeName"], here, errors);
}

pub fn storage_os(source: &Value, here: &str, errors: &mut Errors) {
    storage_os_names(source, here, errors);
    secret(source, &["name"], here, errors);
}

pub fn storage_os_persistent(source: &Value, here: &str, errors: &mut Errors) {
    storage_os_names(source, here, errors);
    secret(source, &["name", "namespace"], here, errors);
}

fn storage_os_names(source: &Value, here: &str, errors: &mut Errors) {
    errors.named(format!("{here}.volumeName"), text(source, &["volumeName"]), validate::label);
    match text(source, &["volumeNamespace"]) {
        "" => {}
        name => errors.check(format!("{here}.volumeNamespace"), name, validate::label),
    }
}

/// The name of a driver, whose case is nobody's business but shown.
pub fn csi_driver(name: &str, here: &str, errors: &mut Errors) {
    if name.is_empty() {
        errors.required(here, "");
    }
    if name.len() > 63 {
        errors.too_long(here, 63);
    }
    if let Err(why) = validate::subdomain(&name.to_lowercase()) {
        errors.invalid(here, &Value::from(name), &why);
    }
}

pub fn csi(source: &Value, here: &str, errors: &mut Errors) {
    csi_driver(text(source, &["driver"]), &format!("{here}.driver"), errors);
    let secret = at(source, &["nodePublishSecretRef"]);
    match text(secret, &["name"]) {
        _ if secret.is_null() => {}
        "" => errors.required(format!("{here}.nodePublishSecretRef.name"), ""),
        name => errors.check(format!("{here}.name"), name, validate::subdomain),
    }
}

pub fn csi_persistent(source: &Value, here: &str, errors: &mut Errors) {
    csi_driver(text(source, &["driver"]), &format!("{here}.driver"), errors);
    needs(source, &["volumeHandle"], here, errors);
    for field in [
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ] {
        let secret = at(source, &[field]);
        if secret.is_object() {
            errors.named(format!("{here}.{field}.name"), text(secret, &["name"]), validate::subdomain);
            errors.named(format!("{here}.{field}.namespace"), text(secret, &["namespace"]), validate::label);
        }
    }
}

/// A claim's template.
pub fn ephemeral(source: &Value, here: &str, errors: &mut Errors) {
    let (template, place) = (at(source, &["volumeClaimTemplate"]), format!("{here}.volumeClaimTemplate"));
    match template {
        Value::Null => errors.required(place, ""),
        _ => super::claim_spec::validate_template(template, &place, errors),
    }
}

/// What an image's volume says of pulling it.
pub fn image(source: &Value, here: &str, errors: &mut Errors) {
    match text(source, &["pullPolicy"]) {
        "" => errors.required(format!("{here}.pullPolicy"), ""),
        policy => {
            errors.must_be(format!("{here}.pullPolicy"), policy, &["Always", "IfNotPresent", "Never"]);
        }
    }
}
