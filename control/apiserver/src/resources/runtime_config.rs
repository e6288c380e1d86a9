//! Which groups and versions are served: what `--runtime-config` of kube-apiserver says, in the same words.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use super::{Row, Table, builtin};

/// The default is every stable version and nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// By `api/…`, `group/version` or `group/version/resource`.
    switches: BTreeMap<String, bool>,
}

/// Why a text is no [`RuntimeConfig`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RuntimeConfigError {
    #[error("invalid key {0}: group/version, group/version/resource, api/all, api/ga, api/beta or api/alpha")]
    Key(String),
    #[error("invalid value {key}={value}: true or false")]
    Value { key: String, value: String },
    #[error("{0} is not known to this API server")]
    Unknown(String),
}

/// How far a version has come, as its name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Stable,
    Beta,
    Alpha,
}

impl Level {
    fn of(version: &str) -> Self {
        match version {
            _ if version.contains("alpha") => Self::Alpha,
            _ if version.contains("beta") => Self::Beta,
            _ => Self::Stable,
        }
    }
}

/// Keys for many versions, the weakest first, with the level they are about.
const LEVELS: &[(&str, Option<Level>)] = &[
    ("api/all", None),
    ("api/ga", Some(Level::Stable)),
    ("api/beta", Some(Level::Beta)),
    ("api/alpha", Some(Level::Alpha)),
];

impl FromStr for RuntimeConfig {
    type Err = RuntimeConfigError;

    /// Reads `key=value,key=value`; a key without a value is switched on.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut switches = BTreeMap::new();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, "true"));
            let value = match value {
                "true" | "1" | "" => true,
                "false" | "0" => false,
                _ => return Err(RuntimeConfigError::Value { key: key.to_owned(), value: value.to_owned() }),
            };
            known(key)?;
            switches.insert(key.to_owned(), value);
        }
        Ok(Self { switches })
    }
}

/// Whether a key is about anything.
fn known(key: &str) -> Result<(), RuntimeConfigError> {
    if LEVELS.iter().any(|(level, _)| *level == key) {
        return Ok(());
    }
    if !matches!(key.split('/').count(), 2 | 3) {
        return Err(RuntimeConfigError::Key(key.to_owned()));
    }
    let table = builtin();
    if !table.rows().iter().any(|row| version_key(row) == key || resource_key(row) == key) {
        return Err(RuntimeConfigError::Unknown(key.to_owned()));
    }
    Ok(())
}

/// `apps/v1`, and `api/v1` for the core group, which has the name it has in paths.
fn version_key(row: &Row) -> String {
    let group = if row.group.is_empty() { "api" } else { &*row.group };
    format!("{group}/{}", row.version)
}

fn resource_key(row: &Row) -> String {
    format!("{}/{}", version_key(row), row.plural)
}

impl RuntimeConfig {
    /// The rows of this build that are served.
    pub fn table(&self) -> Arc<Table> {
        let all = builtin();
        if self.switches.is_empty() && all.rows().iter().all(|row| self.serves(row)) {
            return all;
        }
        Arc::new(Table::new(all.rows().iter().filter(|row| self.serves(row)).map(Arc::clone).collect()))
    }

    /// What is said most narrowly of a row counts.
    fn serves(&self, row: &Row) -> bool {
        let level = Level::of(&row.version);
        let narrow = [resource_key(row), version_key(row)];
        let wide = LEVELS.iter().rev().filter(|(_, of)| of.is_none_or(|of| of == level)).map(|(key, _)| *key);
        let mut keys = narrow.iter().map(String::as_str).chain(wide);
        let said = keys.find_map(|key| self.switches.get(key).copied());
        said.unwrap_or(level == Level::Stable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(text: &str) -> Vec<String> {
        let table = text.parse::<RuntimeConfig>().unwrap().table();
        let rows = table.rows().iter().filter(|row| *row.group == *"resource.k8s.io");
        let mut keys: Vec<String> = rows.map(|row| format!("{}/{}", row.version, row.plural)).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    fn versions(text: &str) -> Vec<String> {
        let mut all: Vec<String> =
            served(text).iter().map(|key| key.split_once('/').unwrap().0.to_owned()).collect();
        all.dedup();
        all
    }

    #[test]
    fn only_stable_versions_are_served_unless_asked() {
        assert_eq!(versions(""), ["v1"]);
        assert!(
            RuntimeConfig::default()
                .table()
                .rows()
                .iter()
                .all(|row| Level::of(&row.version) == Level::Stable)
        );
        assert_eq!(versions("resource.k8s.io/v1beta1=true"), ["v1", "v1beta1"]);
        assert_eq!(versions("resource.k8s.io/v1beta1"), ["v1", "v1beta1"]);
        assert_eq!(versions("api/beta=true"), ["v1", "v1beta1", "v1beta2"]);
        assert_eq!(versions("api/alpha=1"), ["v1", "v1alpha3"]);
        assert_eq!(versions("api/all=true"), ["v1", "v1alpha3", "v1beta1", "v1beta2"]);
    }

    #[test]
    fn what_is_said_most_narrowly_counts() {
        assert_eq!(versions("api/all=true,api/beta=false"), ["v1", "v1alpha3"]);
        assert_eq!(versions("api/beta=true,resource.k8s.io/v1beta1=false"), ["v1", "v1beta2"]);
        assert_eq!(versions("resource.k8s.io/v1=false"), Vec::<String>::new());
        let one = served("resource.k8s.io/v1=false,resource.k8s.io/v1/deviceclasses=true");
        assert_eq!(one, ["v1/deviceclasses"]);
        assert!(versions("api/ga=false").is_empty());
    }

    #[test]
    fn what_is_about_nothing_is_refused() {
        let error = |text: &str| text.parse::<RuntimeConfig>().unwrap_err();
        assert_eq!(error("apps"), RuntimeConfigError::Key("apps".to_owned()));
        assert_eq!(error("apps/v1beta7=true"), RuntimeConfigError::Unknown("apps/v1beta7".to_owned()));
        assert_eq!(error("apps/v1/x=true"), RuntimeConfigError::Unknown("apps/v1/x".to_owned()));
        let value = RuntimeConfigError::Value { key: "api/beta".to_owned(), value: "yes".to_owned() };
        assert_eq!(error("api/all=true,api/beta=yes"), value);
    }
}
