//! What a kube-proxy that was here before has left: its tables, chains and device in this network namespace.
//!
//! Rules are read and removed by the machine's own tools, which know the formats of this machine; one that is absent has
//! written no rules either, but this is said.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use super::KernelError;
use super::netlink::Netlink;

/// The device that IPVS mode gives the virtual addresses to.
const IPVS_DEVICE: &str = "kube-ipvs0";
/// The tables of nftables mode.
const TABLES: [&str; 2] = ["ip kube-proxy", "ip6 kube-proxy"];
/// Tools that print, and tools that take, the rules of iptables mode: both kinds of a family, or where a machine does not tell
/// them apart, the one it has.
const IPTABLES: [[(&str, &str); 3]; 2] = [
    [
        ("iptables-nft-save", "iptables-nft-restore"),
        ("iptables-legacy-save", "iptables-legacy-restore"),
        ("iptables-save", "iptables-restore"),
    ],
    [
        ("ip6tables-nft-save", "ip6tables-nft-restore"),
        ("ip6tables-legacy-save", "ip6tables-legacy-restore"),
        ("ip6tables-save", "ip6tables-restore"),
    ],
];
/// Chains with kube-proxy's prefix that are a kubelet's.
const KUBELETS: [&str; 4] = ["KUBE-FIREWALL", "KUBE-KUBELET-CANARY", "KUBE-IPTABLES-HINT", "KUBE-MARK-DROP"];

/// What was found, and where nobody could look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leftovers {
    /// One line for each table, tool with chains, and device.
    pub found: Vec<String>,
    /// Tools that are not installed.
    pub absent: Vec<String>,
}

/// Looks for leftovers. Must not run inside an async runtime.
pub fn find() -> Result<Leftovers, KernelError> {
    let mut leftovers = Leftovers::default();
    match run("nft", &["list", "tables"], "")? {
        Some(text) => leftovers.found.extend(tables(&text).map(|table| format!("nftables table {table}"))),
        None => leftovers.absent.push("nft".to_owned()),
    }
    for family in IPTABLES {
        let saved = saved(family)?;
        if saved.is_empty() {
            leftovers.absent.push(family[2].0.to_owned());
        }
        leftovers.found.extend(saved.iter().flat_map(|(restore, rules)| lines(restore, rules)));
    }
    if Netlink::new()?.device(IPVS_DEVICE)?.is_some() {
        leftovers.found.push(format!("device {IPVS_DEVICE}"));
    }
    Ok(leftovers)
}

/// Removes leftovers; answers with one line for each. Must not run inside an async runtime.
pub fn remove() -> Result<Vec<String>, KernelError> {
    let mut removed = Vec::new();
    for table in tables(&run("nft", &["list", "tables"], "")?.unwrap_or_default()) {
        run("nft", &["-f", "-"], &format!("delete table {table}\n"))?;
        removed.push(format!("nftables table {table}"));
    }
    for (restore, rules) in
        IPTABLES.into_iter().map(saved).collect::<Result<Vec<_>, _>>()?.into_iter().flatten()
    {
        let Some(edits) = removal(&rules) else { continue };
        run(restore, &["--noflush"], &edits)?;
        removed.extend(lines(restore, &rules));
    }
    let netlink = Netlink::new()?;
    if let Some(device) = netlink.device(IPVS_DEVICE)? {
        netlink.delete_device(device.index)?;
        removed.push(format!("device {IPVS_DEVICE} (`ipvsadm --clear` removes what IPVS itself still has)"));
    }
    Ok(removed)
}

/// The rules each installed tool of a family prints, with the tool that takes them.
fn saved(family: [(&'static str, &'static str); 3]) -> Result<Vec<(&'static str, String)>, KernelError> {
    let mut all = Vec::new();
    for (number, (save, restore)) in family.into_iter().enumerate() {
        // The last is one of the others under another name.
        if number == 2 && !all.is_empty() {
            break;
        }
        all.extend(run(save, &[], "")?.map(|rules| (restore, rules)));
    }
    Ok(all)
}

fn lines(restore: &str, rules: &str) -> Vec<String> {
    chains(rules).map(|(table, count)| format!("{count} KUBE- chains of table {table} ({restore})")).collect()
}

/// kube-proxy's tables among those that `nft list tables` prints.
fn tables(text: &str) -> impl Iterator<Item = &'static str> {
    let known = |table: &&str| text.lines().any(|line| line.trim() == format!("table {table}"));
    TABLES.into_iter().filter(known).collect::<Vec<_>>().into_iter()
}

/// The chains of kube-proxy in each table of what an `iptables-save` printed.
fn chains(text: &str) -> impl Iterator<Item = (&str, usize)> {
    let counts =
        sections(text).map(|(table, lines)| (table, lines.iter().filter_map(|line| declared(line)).count()));
    counts.filter(|(_, count)| *count > 0)
}

/// What `iptables-restore --noflush` has to be told to take kube-proxy's chains away, and nothing else: jumps from other chains
/// go first, then the chains are emptied, then removed.
fn removal(text: &str) -> Option<String> {
    let mut edits = String::new();
    for (table, lines) in sections(text) {
        let own: Vec<&str> = lines.iter().filter_map(|line| declared(line)).collect();
        if own.is_empty() {
            continue;
        }
        edits.push_str(&format!("*{table}\n"));
        own.iter().for_each(|chain| edits.push_str(&format!(":{chain} - [0:0]\n")));
        for rule in lines.iter().filter_map(|line| line.strip_prefix("-A ")) {
            let from = rule.split(' ').next().unwrap_or_default();
            if !own.contains(&from) && target(rule).is_some_and(|target| own.contains(&target)) {
                edits.push_str(&format!("-D {rule}\n"));
            }
        }
        own.iter().for_each(|chain| edits.push_str(&format!("-X {chain}\n")));
        edits.push_str("COMMIT\n");
    }
    (!edits.is_empty()).then_some(edits)
}

/// Tables and their lines.
fn sections(text: &str) -> impl Iterator<Item = (&str, Vec<&str>)> {
    text.split("\n*").filter_map(|section| {
        let mut lines = section.lines().skip_while(|line| line.starts_with('#') || line.is_empty());
        let table = lines.next()?.trim_start_matches('*');
        Some((table, lines.collect()))
    })
}

/// The chain that a line declares, if it is kube-proxy's.
fn declared(line: &str) -> Option<&str> {
    let chain = line.strip_prefix(':')?.split(' ').next()?;
    (chain.starts_with("KUBE-") && !KUBELETS.contains(&chain)).then_some(chain)
}

/// The chain that a rule jumps to.
fn target(rule: &str) -> Option<&str> {
    let (_, after) = rule.rsplit_once(" -j ").or_else(|| rule.rsplit_once(" -g "))?;
    after.split(' ').next()
}

/// Runs a tool; nothing if it is not installed.
fn run(tool: &'static str, arguments: &[&str], input: &str) -> Result<Option<String>, KernelError> {
    let failed = || KernelError::io(format!("run {tool}"));
    let spawned = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed()(error)),
    };
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(failed())?;
    }
    let output = child.wait_with_output().map_err(failed())?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(failed()(io::Error::other(words)));
    }
    Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str = "\
# Generated by iptables-nft-save v1.8.9
*filter
:INPUT ACCEPT [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
-A INPUT -j KUBE-FIREWALL
-A FORWARD -m comment --comment \"kubernetes forwarding rules -j \" -j KUBE-FORWARD
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
COMMIT
# Completed
*nat
:PREROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-X - [0:0]
:MINE - [0:0]
-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A PREROUTING -j MINE
-A KUBE-SERVICES -d 10.96.0.1/32 -j KUBE-SVC-X
COMMIT
";

    #[test]
    fn jumps_go_first_then_chains_and_nothing_else() {
        assert_eq!(
            removal(SAVED).unwrap(),
            "\
*filter
:KUBE-FORWARD - [0:0]
-D FORWARD -m comment --comment \"kubernetes forwarding rules -j \" -j KUBE-FORWARD
-X KUBE-FORWARD
COMMIT
*nat
:KUBE-SERVICES - [0:0]
:KUBE-SVC-X - [0:0]
-D PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-X KUBE-SERVICES
-X KUBE-SVC-X
COMMIT
"
        );
        assert_eq!(chains(SAVED).collect::<Vec<_>>(), [("filter", 1), ("nat", 2)]);
        assert_eq!(removal("*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n"), None);
    }

    #[test]
    fn tables_are_known_by_their_whole_name() {
        let list = "table ip nat\ntable ip6 kube-proxy\ntable inet kube-proxy\ntable ip kube-proxy-of-mine\n";
        assert_eq!(tables(list).collect::<Vec<_>>(), ["ip6 kube-proxy"]);
    }

    #[tokio::test]
    async fn a_running_agent_may_look() {
        if nix::unistd::geteuid().is_root() {
            tokio::task::spawn_blocking(find).await.unwrap().unwrap();
        }
    }
}
