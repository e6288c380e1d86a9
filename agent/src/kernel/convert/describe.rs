//! What the bytes of pinned maps mean, as text that is pinned beside them: the next agent may know other layouts.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use abi::name::{self, MAPS};

/// Which structs the rows of a map are made of, and what becomes of them when they are not what they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Rows are copied by key.
    Hash,
    /// Rows are copied by key, which begins with the length of a prefix.
    Prefixes,
    /// Rows are copied by index.
    Array,
    /// Rows are not worth it, or cannot be read: the map begins anew.
    Fresh,
}

/// Map, kind, key and value.
pub const ROWS: &[(&str, Kind, &str, &str)] = &[
    (name::FRONTENDS, Kind::Hash, "FrontendKey", "Frontend"),
    (name::SERVICES, Kind::Array, "u32", "Service"),
    (name::BACKENDS, Kind::Array, "u32", "Backend"),
    (name::SLOTS, Kind::Array, "u32", "u32"),
    (name::BACKEND_STATES, Kind::Array, "u32", "BackendState"),
    (name::VIP_FILTER, Kind::Array, "u32", "u64"),
    (name::SOURCE_RANGES, Kind::Prefixes, "SourceRange", "u32"),
    (name::TOMBSTONES, Kind::Hash, "BackendKey", "Tombstone"),
    (name::ENDPOINTS, Kind::Hash, "Addr16", "Endpoint"),
    (name::LINKS, Kind::Hash, "u32", "Link"),
    (name::UNMASKED, Kind::Prefixes, "Addr16", "u32"),
    (name::IDENTITIES, Kind::Hash, "Addr16", "u32"),
    (name::CIDRS, Kind::Prefixes, "Addr16", "u32"),
    (name::RULES, Kind::Prefixes, "RuleKey", "Ruling"),
    (name::NAMESPACES, Kind::Hash, "u64", "Link"),
    (name::AFFINITY, Kind::Hash, "AffinityKey", "Affinity"),
    (name::FLOWS, Kind::Hash, "FlowKey", "Flow"),
    (name::EMBRYOS, Kind::Hash, "FlowKey", "Flow"),
    (name::FRAGMENTS, Kind::Hash, "FragmentKey", "Fragment"),
    (name::SOCK_PEERS, Kind::Fresh, "u32", "SockPeer"),
    (name::SOCK_VIPS, Kind::Fresh, "u32", "SockVips"),
    (name::PACES, Kind::Hash, "PaceKey", "Pace"),
    (name::CONTROL, Kind::Array, "u32", "Control"),
    (name::EVENTS, Kind::Fresh, "u32", "Event"),
    (name::XDP_DEVICES, Kind::Fresh, "u32", "u32"),
    (name::DROPS, Kind::Fresh, "u32", "Count"),
    (name::PATHS, Kind::Fresh, "u32", "Count"),
    (name::GAUGES, Kind::Fresh, "u32", "u64"),
    (name::TABLE_COUNTS, Kind::Fresh, "u32", "TableCount"),
    (name::SERVICE_COUNTS, Kind::Fresh, "u32", "ServiceCount"),
];

/// One field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Offset in bytes.
    pub offset: usize,
    /// Name.
    pub name: String,
    /// The Rust type.
    pub kind: String,
}

/// One struct.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Struct {
    /// Size in bytes.
    pub size: usize,
    /// The fields in order.
    pub fields: Vec<Field>,
}

/// One map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    /// How many fit.
    pub capacity: usize,
    /// Struct of the key.
    pub key: String,
    /// Struct of the value.
    pub value: String,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    /// How often maps were given other flags, by name; none stands for never.
    pub revisions: BTreeMap<String, u32>,
    /// The structs by name.
    pub structs: BTreeMap<String, Struct>,
    /// The maps by name.
    pub maps: BTreeMap<String, Rows>,
}

impl Description {
    /// Of this agent, with maps of this scale.
    pub fn own(scale: u32) -> Self {
        let field = |field: &abi::Field| Field {
            offset: field.offset,
            name: field.name.to_owned(),
            kind: field.kind.to_owned(),
        };
        let structs = abi::LAYOUTS.iter().map(|layout| {
            let fields = layout.fields.iter().map(field).collect();
            (layout.name.to_owned(), Struct { size: layout.size, fields })
        });
        let maps = MAPS.iter().filter_map(|map| {
            let (_, _, key, value) = ROWS.iter().find(|row| row.0 == map.name)?;
            let (key, value) = ((*key).to_owned(), (*value).to_owned());
            Some((map.name.to_owned(), Rows { capacity: map.capacity(scale), key, value }))
        });
        let revisions = abi::REVISIONS.iter().map(|(map, revision)| ((*map).to_owned(), *revision));
        Self { revisions: revisions.collect(), structs: structs.collect(), maps: maps.collect() }
    }

    /// What [`Display`](fmt::Display) wrote; `None` if it is anything else.
    pub fn read(text: &str) -> Option<Self> {
        let mut read = Self::default();
        let mut open: Option<String> = None;
        for line in text.lines() {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            match words[..] {
                // As agents wrote that had one revision for all maps.
                ["revision", _] => {}
                ["revision", map, revision] => {
                    read.revisions.insert(map.to_owned(), revision.parse().ok()?);
                }
                ["struct", name, size] => {
                    let size = size.parse().ok()?;
                    read.structs.insert(name.to_owned(), Struct { size, fields: Vec::new() });
                    open = Some(name.to_owned());
                }
                ["field", offset, name, kind] => {
                    let field =
                        Field { offset: offset.parse().ok()?, name: name.to_owned(), kind: kind.to_owned() };
                    read.structs.get_mut(open.as_ref()?)?.fields.push(field);
                }
                ["map", name, capacity, rows] => {
                    let (key, value) = rows.split_once(' ')?;
                    let (key, value) = (key.to_owned(), value.to_owned());
                    let capacity = capacity.parse().ok()?;
                    read.maps.insert(name.to_owned(), Rows { capacity, key, value });
                }
                _ => return None,
            }
        }
        Some(read)
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        for (map, revision) in &self.revisions {
            writeln!(text, "revision {map} {revision}")?;
        }
        for (name, layout) in &self.structs {
            writeln!(text, "struct {name} {}", layout.size)?;
            for Field { offset, name, kind } in &layout.fields {
                writeln!(text, "field {offset} {name} {kind}")?;
            }
        }
        for (name, Rows { capacity, key, value }) in &self.maps {
            writeln!(text, "map {name} {capacity} {key} {value}")?;
        }
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_read_as_it_was_written_and_knows_every_map() {
        let own = Description::own(4);
        assert_eq!(Description::read(&own.to_string()), Some(own.clone()));
        assert_eq!(own.maps.len(), MAPS.len());
        assert_eq!(own.maps[name::FLOWS].capacity, 4 * name::FLOWS_SIZE);
        assert_eq!(Description::read("rubbish"), None);
        assert_eq!(
            Description::read("revision 2"),
            Some(Description::default()),
            "of all maps, as it once was"
        );
    }
}
