//! The table that is served: a snapshot with an index by name.

use std::collections::HashMap;
use std::sync::Arc;

use super::Row;
use crate::name::Name;

/// Every row that is served at one moment.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Arc<Row>>,
    /// Plural names are nearly unique, so the few rows that share one are told apart by comparing.
    by_plural: HashMap<Name, Vec<Arc<Row>>>,
}

impl Table {
    /// The table of these rows, in this order.
    pub fn new(rows: Vec<Arc<Row>>) -> Self {
        let mut by_plural: HashMap<Name, Vec<Arc<Row>>> = HashMap::new();
        for row in &rows {
            by_plural.entry(row.plural.clone()).or_default().push(Arc::clone(row));
        }
        Self { rows, by_plural }
    }

    /// All rows, in the order of discovery.
    pub fn rows(&self) -> &[Arc<Row>] {
        &self.rows
    }

    /// The row of a group, version and plural.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Row>> {
        self.named(plural).iter().find(|row| row.group == *group && row.version == *version)
    }

    /// The rows with this plural, in any group and version.
    pub fn named(&self, plural: &str) -> &[Arc<Row>] {
        self.by_plural.get(plural).map_or(&[], Vec::as_slice)
    }

    /// Rows of a group and version, by plural.
    pub fn of(&self, group: &str, version: &str) -> Vec<&Arc<Row>> {
        let mut rows: Vec<&Arc<Row>> =
            self.rows.iter().filter(|row| row.group == *group && row.version == *version).collect();
        rows.sort_by(|a, b| a.plural.cmp(&b.plural));
        rows
    }

    /// Group and version of everything served, in the order of the rows.
    pub fn group_versions(&self) -> Vec<(&Name, &Name)> {
        let mut out: Vec<(&Name, &Name)> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for row in &self.rows {
            if seen.insert((&row.group, &row.version)) {
                out.push((&row.group, &row.version));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use crate::resources::{builtin, stored};

    #[test]
    fn every_row_is_found_by_its_name() {
        let table = builtin();
        for row in table.rows() {
            let found = table.find(&row.group, &row.version, &row.plural).unwrap();
            assert!(std::sync::Arc::ptr_eq(found, row), "{}", row.qualified());
        }
        assert!(table.find("apps", "v2", "deployments").is_none());
        assert!(table.find("apps", "v1", "pods").is_none());
    }

    #[test]
    fn both_kinds_of_events_are_stored_as_one() {
        let table = builtin();
        let row = table.find("events.k8s.io", "v1", "events").unwrap();
        assert_eq!(row.stored_as().group, "");
        assert_eq!(stored("events").unwrap().kind, "Event");
    }
}
