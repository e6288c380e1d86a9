//! The report as text for people.

use std::fmt::Write;

use comfy_table::{Table, presets};

use super::report::Report;

/// What `hawser-agent status` prints.
pub fn status(report: &Report) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        writeln!(text, "{name:<12}{value}").expect("writing to a string succeeds");
    };
    line("node", report.node.clone());
    line("layout", report.layout.clone());
    line("synced", or_none(report.synced.join(", ")));
    line("uplinks", or_none(report.uplinks.join(", ")));
    line("applied", format!("{} operations, {} errors", report.operations, report.errors));
    for kind in &report.unread {
        line("not read", kind.clone());
    }
    for leftover in &report.kube_proxy {
        line("kube-proxy", leftover.clone());
    }
    for peer in &report.unreachable {
        line("unreachable", peer.clone());
    }
    for (subject, error, attempts) in &report.failures {
        line("failing", format!("{subject}: {error} ({attempts} attempts)"));
    }
    text.push('\n');
    text.push_str(&features(report));
    text.push_str(&endpoints(report));
    text.push_str(&counters(report));
    text
}

/// What `hawser-agent services` prints.
pub fn services(report: &Report) -> String {
    let mut table =
        table(&["SERVICE", "PROTO", "FRONTENDS", "BACKENDS", "AFFINITY", "CONNECTIONS", "REFUSED"]);
    for line in &report.services {
        table.add_row([
            line.service.clone(),
            line.protocol.clone(),
            line.frontends.join("\n"),
            or_none(line.backends.join("\n")),
            if line.affinity == 0 { "-".to_owned() } else { format!("{} s", line.affinity) },
            line.connections.to_string(),
            line.refused.to_string(),
        ]);
    }
    format!("{table}\n(* on this node)\n")
}

fn features(report: &Report) -> String {
    let mut table = table(&["FEATURE", "PRESENT", "INSTEAD"]);
    for feature in &report.features {
        let present = if feature.present { "yes" } else { "no" };
        table.add_row([feature.name.clone(), present.to_owned(), feature.note.clone()]);
    }
    format!("{table}\n\n")
}

fn endpoints(report: &Report) -> String {
    let mut table = table(&["POD", "LINK", "ADDRESSES", "STATE"]);
    for line in &report.endpoints {
        table.add_row([line.pod.clone(), line.link.clone(), line.addresses.join(", "), line.state.clone()]);
    }
    for (to, hop) in &report.routes {
        let whose = if hop.starts_with("via") { "(other node)" } else { "(no pod)" };
        table.add_row([whose.to_owned(), String::new(), to.clone(), hop.clone()]);
    }
    format!("{table}\n\n")
}

fn counters(report: &Report) -> String {
    let mut table = table(&["COUNTER", "PACKETS", "BYTES", "MEANING"]);
    for (_, name, meaning) in abi::count::PATHS {
        let tally = report.counters.paths.get(*name).copied().unwrap_or_default();
        table.add_row([
            (*name).to_owned(),
            tally.packets.to_string(),
            tally.bytes.to_string(),
            (*meaning).to_owned(),
        ]);
    }
    for (_, name, meaning) in abi::drops::DROPS {
        let tally = report.counters.drops.get(*name).copied().unwrap_or_default();
        if tally.packets > 0 {
            let name = format!("drop {name}");
            table.add_row([name, tally.packets.to_string(), tally.bytes.to_string(), (*meaning).to_owned()]);
        }
    }
    format!("{table}\n")
}

fn table(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(columns.to_vec());
    table
}

fn or_none(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::kernel::Counters;

    #[test]
    fn status_says_which_objects_are_not_read() {
        let mut report = Report {
            node: "n1".into(),
            layout: String::new(),
            features: Vec::new(),
            uplinks: Vec::new(),
            endpoints: Vec::new(),
            services: Vec::new(),
            routes: BTreeMap::new(),
            unreachable: Vec::new(),
            counters: Counters::default(),
            failures: Vec::new(),
            operations: 0,
            errors: 0,
            synced: Vec::new(),
            unread: Vec::new(),
            kube_proxy: Vec::new(),
        };
        assert!(!status(&report).contains("not read"));
        report.unread.push("ClusterNetworkPolicies are not allowed".into());
        assert!(
            status(&report).lines().any(|line| line == "not read    ClusterNetworkPolicies are not allowed")
        );
    }
}
