//! The bytes shared by the eBPF programs and user space: keys, values, names, sizes, numbers.
//!
//! Nothing else decides a layout. Every struct is declared through [`layout!`], which asserts its size and offsets on both
//! targets; the hash of all layouts names the folder the maps are pinned in, so that two agents that disagree about a
//! byte never share a map.

#![no_std]

mod layout;

pub mod address;
pub mod count;
pub mod drops;
pub mod endpoint;
pub mod event;
pub mod flow;
pub mod name;
pub mod node;
pub mod older;
pub mod pace;
pub mod policy;
pub mod service;

pub use address::{Addr16, Be16, Prefix, Tuple};
pub use layout::{Field, Layout};

/// Every layout that reaches a map, in the order of the golden file.
pub const LAYOUTS: &[&Layout] = &[
    &Addr16::LAYOUT,
    &Be16::LAYOUT,
    &Prefix::LAYOUT,
    &Tuple::LAYOUT,
    &service::FrontendKey::LAYOUT,
    &service::Frontend::LAYOUT,
    &service::Segment::LAYOUT,
    &service::Service::LAYOUT,
    &service::Backend::LAYOUT,
    &service::BackendState::LAYOUT,
    &service::BackendKey::LAYOUT,
    &service::Tombstone::LAYOUT,
    &service::SourceRange::LAYOUT,
    &service::AffinityKey::LAYOUT,
    &service::Affinity::LAYOUT,
    &service::SockVip::LAYOUT,
    &service::SockPeer::LAYOUT,
    &service::SockVips::LAYOUT,
    &endpoint::Endpoint::LAYOUT,
    &endpoint::Link::LAYOUT,
    &flow::FlowKey::LAYOUT,
    &flow::Hop::LAYOUT,
    &flow::Flow::LAYOUT,
    &flow::Way::LAYOUT,
    &flow::FragmentKey::LAYOUT,
    &flow::Fragment::LAYOUT,
    &policy::RuleKey::LAYOUT,
    &policy::Ruling::LAYOUT,
    &pace::PaceKey::LAYOUT,
    &pace::Pace::LAYOUT,
    &event::Event::LAYOUT,
    &event::Control::LAYOUT,
    &count::Count::LAYOUT,
    &count::TableCount::LAYOUT,
    &count::ServiceCount::LAYOUT,
    &node::Node::LAYOUT,
];

/// Maps that were given other flags though no layout changed, and how often: their rows are copied then. A field whose bytes
/// come to mean something else gets another name instead: it is another field.
pub const REVISIONS: &[(&str, u32)] = &[(name::SERVICES, 2)];

/// What the rows of maps mean, as far as their fields do not say it: one more whenever agents before would misread them, as they
/// would a new bit of [`flow::bits`]. Those refuse to take such maps over; agents of this generation take over from all before.
pub const GENERATION: u32 = 2;

/// Identifies all layouts, map sizes and revisions together.
pub const LAYOUT_HASH: u32 = layout::hash(LAYOUTS, name::MAPS, REVISIONS);

#[cfg(test)]
mod tests {
    extern crate std;

    use std::fmt::Write;
    use std::string::String;

    use super::*;

    #[test]
    fn the_layouts_are_those_of_the_golden_file() {
        let mut text = String::new();
        for layout in LAYOUTS {
            writeln!(text, "{} {}", layout.name, layout.size).unwrap();
            for field in layout.fields {
                writeln!(text, "  {:>3} {}: {}", field.offset, field.name, field.kind).unwrap();
            }
        }
        for map in name::MAPS {
            writeln!(text, "map {} {}", map.name, map.entries).unwrap();
        }
        writeln!(text, "generation {GENERATION}").unwrap();
        for (map, revision) in REVISIONS {
            writeln!(text, "revision {map} {revision}").unwrap();
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/layout.golden");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let golden = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(text, golden, "layout changed: `BLESS=1 cargo test -p abi` writes the golden file anew");
    }

    #[test]
    fn names_fit_the_kernels_fifteen_bytes() {
        for name in name::MAPS.iter().map(|map| map.name).chain(name::PROGRAMS.iter().copied()) {
            assert!(name.len() <= 15, "{name}");
        }
    }
}
