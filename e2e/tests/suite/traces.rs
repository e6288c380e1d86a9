//! What an installation could leave on a node: read before it and after it, both have to be the same.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use e2e::Place;
use serde_json::Value;

/// What is asked about a node, and the lines of each answer, sorted.
pub type Traces = BTreeMap<String, BTreeSet<String>>;

/// Links, addresses, routes, rules, neighbours that stay, queueing disciplines, filters, tables of nftables, BPF programs of the
/// namespace.
const QUESTIONS: [&str; 17] = [
    "ip -o link",
    "ip -o address",
    "ip -4 route show table all",
    "ip -6 route show table all",
    "ip -4 rule",
    "ip -6 rule",
    "ip neigh show nud permanent",
    "ip neigh show proxy",
    "ip -6 neigh show proxy",
    "ip tunnel",
    "bridge fdb",
    "tc qdisc show",
    "tc filter show dev eth0 ingress",
    "tc filter show dev eth0 egress",
    "tc filter show dev lo ingress",
    "nft list ruleset",
    "bpftool net",
];

/// Reads the traces of the node in `place`; of `folders`, every file.
pub fn read(place: &Place, folders: &[PathBuf]) -> Result<Traces> {
    let mut traces = Traces::new();
    for question in QUESTIONS {
        let text = ask(place, question)?;
        // The kernel's own link-local address comes when its duplicate detection is over.
        let lines = text.lines().filter(|line| !line.contains("fe80:")).map(str::to_owned);
        traces.insert(question.to_owned(), lines.collect());
    }
    let cgroup = place.cgroup.as_deref().context("a node has a cgroup")?;
    let question = format!("bpftool cgroup show {} effective", cgroup.display());
    let attached = ask(place, &question)?.lines().map(str::to_owned).collect();
    traces.insert(question, attached);
    traces.insert("sysctls".to_owned(), settings(place)?);
    let mut files = BTreeSet::new();
    for folder in folders {
        list(folder, &mut files)?;
    }
    traces.insert("files".to_owned(), files);
    Ok(traces)
}

/// What is different, in words.
pub fn difference(before: &Traces, after: &Traces) -> Vec<String> {
    let mut lines = Vec::new();
    for (question, before) in before {
        let after = &after[question];
        lines.extend(before.difference(after).map(|line| format!("{question}: gone: {line}")));
        lines.extend(after.difference(before).map(|line| format!("{question}: left: {line}")));
    }
    lines
}

/// Programs, maps and links, each by kind and number.
pub type Loaded = BTreeSet<(&'static str, u64)>;

/// What is pinned below `folder`, the maps its programs use, and the programs on the devices of `place`.
pub fn loaded(place: &Place, folder: &Path) -> Result<Loaded> {
    let mut found = Loaded::new();
    for kind in ["prog", "map", "link"] {
        for row in rows(&["-f", kind, "show"])? {
            let pins = row["pinned"].as_array().into_iter().flatten().filter_map(Value::as_str);
            if pins.into_iter().any(|pin| Path::new(pin).starts_with(folder)) {
                found.extend(row["id"].as_u64().map(|id| (kind, id)));
                let maps = row["map_ids"].as_array().into_iter().flatten().filter_map(Value::as_u64);
                found.extend(maps.map(|id| ("map", id)));
            }
        }
    }
    let devices: Value = serde_json::from_str(&ask(place, "bpftool -j net")?)?;
    for hook in devices.as_array().into_iter().flatten().filter_map(Value::as_object) {
        for attached in hook.values().filter_map(Value::as_array).flatten() {
            found.extend(attached["prog_id"].as_u64().or(attached["id"].as_u64()).map(|id| ("prog", id)));
        }
    }
    Ok(found)
}

/// Those that are in the kernel by now.
pub fn still_loaded(loaded: &Loaded) -> Result<Loaded> {
    let mut now = Loaded::new();
    for kind in ["prog", "map", "link"] {
        now.extend(rows(&[kind, "show"])?.iter().filter_map(|row| Some((kind, row["id"].as_u64()?))));
    }
    Ok(loaded.intersection(&now).copied().collect())
}

fn rows(arguments: &[&str]) -> Result<Vec<Value>> {
    let output = Command::new("bpftool").arg("-j").args(arguments).output().context("start bpftool")?;
    ensure!(output.status.success(), "bpftool: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn ask(place: &Place, question: &str) -> Result<String> {
    let mut words = question.split(' ');
    let mut command = Command::new(words.next().context("a question names a program")?);
    command.args(words);
    answer(place, command)
}

fn answer(place: &Place, mut command: Command) -> Result<String> {
    place.enter_before_exec(&mut command)?;
    let output = command.stdin(Stdio::null()).output()?;
    // `tc filter` fails where there is no place for filters, `grep` where a setting cannot be read: that is an answer too.
    Ok(String::from_utf8([output.stdout, output.stderr].concat())?)
}

/// Every setting of the namespace's network that can be read.
fn settings(place: &Place) -> Result<BTreeSet<String>> {
    let mut command = Command::new("grep");
    command.args(["-rs", "", "/proc/sys/net"]);
    let text = answer(place, command)?;
    // A count, no setting.
    Ok(text.lines().filter(|line| !line.contains("/nf_conntrack_count:")).map(str::to_owned).collect())
}

fn list(path: &Path, found: &mut BTreeSet<String>) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    found.insert(path.display().to_string());
    if path.is_dir() {
        for entry in std::fs::read_dir(path).with_context(|| format!("read {}", path.display()))? {
            list(&entry?.path(), found)?;
        }
    }
    Ok(())
}
