//! The node check runs on: kernel, privileges, the agent, devices, routes, and what the container runtime finds.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::rows::{Outcome, Row};
use crate::admin::client;
use crate::admin::report::Report;
use crate::config::Check;
use crate::desired::endpoints::LINK_PREFIX;
use crate::desired::overlay::DEVICE;
use crate::kernel::bpf::is_bpffs;
use crate::kernel::features::{Features, cgroup2_mount, version};
use crate::kernel::netlink::{Device, Netlink};
use crate::kernel::{Feature, KernelError};
use crate::pods::cri::Cri;

/// What IPv6 asks of every link.
const SMALLEST_MTU: u32 = 1280;
/// Capabilities by their number (`linux/capability.h`).
const CAPABILITIES: [(u32, &str); 2] = [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN")];

/// Everything about this node. Must not run inside an async runtime.
pub fn rows(check: &Check) -> Vec<Row> {
    let mut rows = vec![kernel(), types(), jit()];
    rows.extend(privileges(&check.bpffs));
    let report = client::report(&check.run_dir);
    let found = report.as_ref().map_or_else(|_| Features::probe().list(), |report| report.features.clone());
    rows.extend(found.iter().map(feature));
    match &report {
        Ok(report) => {
            rows.extend(agent(report));
            rows.extend(
                network(report).unwrap_or_else(|error| vec![Row::judged("devices and routes", Err(error))]),
            );
        }
        Err(error) => rows.push(Row::new("agent", Outcome::Failed, format!("{error:#}"))),
    }
    rows.push(runtime(&check.cri_endpoint));
    let folder = |named: &Option<PathBuf>, mounted: &str, usual: &str| {
        let found = [mounted, usual].into_iter().find(|folder| Path::new(folder).is_dir()).unwrap_or(usual);
        named.clone().unwrap_or_else(|| PathBuf::from(found))
    };
    let configurations = folder(&check.cni_conf_dir, "/host/cni/net.d", "/etc/cni/net.d");
    rows.push(Row::judged("CNI configuration", configuration(&configurations)));
    let programs = folder(&check.cni_bin_dir, "/host/cni/bin", "/opt/cni/bin");
    rows.push(Row::judged("CNI plugin", plugin(&programs.join("hawser-cni"))));
    rows
}

fn kernel() -> Row {
    let (version, is_supported) = version();
    let outcome = if is_supported { Outcome::Ok } else { Outcome::Failed };
    Row::new("kernel", outcome, format!("Linux {version}; 5.10 is the oldest that will do"))
}

fn types() -> Row {
    let path = "/sys/kernel/btf/vmlinux";
    if Path::new(path).exists() {
        return Row::new("kernel's types (BTF)", Outcome::Ok, path);
    }
    let why = format!("no {path} (CONFIG_DEBUG_INFO_BTF): programs are loaded without it, and none needs it");
    Row::new("kernel's types (BTF)", Outcome::Note, why)
}

fn jit() -> Row {
    match setting("core/bpf_jit_enable") {
        Some(value) if value == "0" => Row::new(
            "BPF compiler",
            Outcome::Note,
            "net.core.bpf_jit_enable is 0: programs are interpreted, slowly",
        ),
        Some(_) => Row::new("BPF compiler", Outcome::Ok, "programs are compiled"),
        // Only the machine's own network namespace shows it.
        None => Row::new("BPF compiler", Outcome::NotRun, "net.core.bpf_jit_enable is not to be seen here"),
    }
}

fn setting(name: &str) -> Option<String> {
    let text = std::fs::read_to_string(Path::new("/proc/sys/net").join(name)).ok()?;
    Some(text.trim().to_owned())
}

fn privileges(bpffs: &Path) -> Vec<Row> {
    let cgroup = cgroup2_mount().map(|path| path.display().to_string());
    let status = std::fs::read_to_string("/proc/self/status").context("read /proc/self/status");
    vec![
        Row::judged("privileges", status.and_then(|status| missing(&status))),
        Row::judged("BPF file system", on_bpffs(bpffs)),
        Row::judged("cgroup2", cgroup.context("it is not mounted: sockets cannot be served")),
    ]
}

fn on_bpffs(folder: &Path) -> Result<String> {
    let found = folder.ancestors().find(|folder| folder.exists());
    if !found.map(is_bpffs).transpose()?.unwrap_or(false) {
        bail!("{} is not on a bpffs", folder.display());
    }
    Ok(folder.display().to_string())
}

/// What a process with this `/proc/PID/status` lacks.
fn missing(status: &str) -> Result<String> {
    let held = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let held = held.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let held = held.context("the kernel does not say which capabilities this process has")?;
    let lacking: Vec<&str> =
        CAPABILITIES.iter().filter(|(bit, _)| held >> bit & 1 == 0).map(|(_, name)| *name).collect();
    if !lacking.is_empty() {
        bail!("check has not {}: run it as the agent is run", lacking.join(", "));
    }
    Ok(CAPABILITIES.map(|(_, name)| name).join(", "))
}

fn feature(feature: &Feature) -> Row {
    let what = format!("feature {}", feature.name);
    let outcome = if feature.present { Outcome::Ok } else { Outcome::Note };
    let detail = if feature.note.is_empty() { "present" } else { &feature.note };
    Row::new(what, outcome, detail)
}

fn agent(report: &Report) -> Vec<Row> {
    let mut rows = vec![Row::judged("agent", synced(report))];
    let failed = |what: &str, why: String| Row::new(what, Outcome::Failed, why);
    rows.extend(report.failures.iter().map(|(subject, error, attempts)| {
        failed("agent", format!("{subject}: {error} ({attempts} attempts)"))
    }));
    rows.extend(report.unreachable.iter().map(|peer| failed("peer", peer.clone())));
    rows.extend(report.kube_proxy.iter().map(|left| Row::new("kube-proxy", Outcome::Note, left.clone())));
    rows
}

fn synced(report: &Report) -> Result<String> {
    if report.synced.len() != 3 {
        bail!("only {:?} of services, nodes and endpoints have been read", report.synced);
    }
    Ok(format!("{}, layout {}, {} pods attached", report.node, report.layout, report.endpoints.len()))
}

fn network(report: &Report) -> Result<Vec<Row>> {
    let netlink = Netlink::new()?;
    let devices = netlink.devices()?;
    let uplinks: Vec<&Device> = devices
        .iter()
        .filter(|device| report.uplinks.contains(&device.name) && device.name != DEVICE)
        .collect();
    let mut rows: Vec<Row> =
        uplinks.iter().flat_map(|device| [uplink(device), forwarding(&device.name)]).collect();
    if uplinks.is_empty() {
        rows.push(Row::new("uplink", Outcome::Failed, "no device has programs: nobody outside is served"));
    }
    rows.push(Row::judged("MTU of pods", mtu(&devices, &uplinks)));
    let routes = routes(&report.routes, |peer| netlink.route_to(peer));
    rows.push(Row::judged("routes to peers", routes));
    Ok(rows)
}

fn uplink(device: &Device) -> Row {
    let (outcome, detail) = match (device.up, device.mtu) {
        (false, _) => (Outcome::Failed, "is down".to_owned()),
        (true, mtu) if mtu < SMALLEST_MTU => {
            (Outcome::Failed, format!("its MTU of {mtu} is less than {SMALLEST_MTU}"))
        }
        (true, mtu) => (Outcome::Ok, format!("up, MTU {mtu}")),
    };
    Row::new(format!("uplink {}", device.name), outcome, detail)
}

/// Our programs forward where the machine does not; what differs is said, not judged.
fn forwarding(device: &str) -> Row {
    let shown: Vec<String> = ["ipv4/conf/{}/forwarding", "ipv6/conf/{}/forwarding", "ipv4/conf/{}/rp_filter"]
        .iter()
        .filter_map(|name| {
            let value = setting(&name.replace("{}", device))?;
            Some(format!("{} {value}", name.replace("/conf/{}/", " ")))
        })
        .collect();
    Row::new(format!("forwarding {device}"), Outcome::Ok, format!("{}: any will do", shown.join(", ")))
}

/// Pods must not send more than the uplinks take.
fn mtu(devices: &[Device], uplinks: &[&Device]) -> Result<String> {
    let pods = devices.iter().filter(|device| is_of_pod(&device.name)).map(|device| device.mtu).max();
    let least = uplinks.iter().map(|device| device.mtu).min().unwrap_or_default();
    match pods {
        None => Ok(format!("there are no pods; uplinks carry {least}")),
        Some(pods) if pods > least => {
            bail!("pods send up to {pods} and uplinks carry {least}: restart the agent, then the pods")
        }
        Some(pods) => Ok(format!("{pods}, uplinks carry {least}")),
    }
}

fn is_of_pod(name: &str) -> bool {
    let digits = name.strip_prefix(LINK_PREFIX);
    digits.is_some_and(|digits| digits.len() == 12 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Whether every next hop of pods' prefixes can be reached.
fn routes(
    routes: &BTreeMap<String, String>,
    route_to: impl Fn(IpAddr) -> Result<Option<String>, KernelError>,
) -> Result<String> {
    let mut peers = 0;
    for (to, hop) in routes {
        let end = hop.strip_prefix("via ").or_else(|| hop.strip_prefix("tunnel to "));
        let Some(end) = end.and_then(|end| end.parse().ok()) else { continue };
        peers += 1;
        if route_to(end)?.is_none() {
            bail!("{to} is {hop}, to which no route leads");
        }
    }
    Ok(if peers == 0 { "there are no peers".to_owned() } else { format!("{peers}, each with a way") })
}

fn runtime(endpoint: &str) -> Row {
    let what = "container runtime";
    if endpoint.strip_prefix("unix://").is_some_and(|path| !Path::new(path).exists()) {
        return Row::new(what, Outcome::NotRun, format!("there is no {endpoint}; see --cri-endpoint"));
    }
    Row::judged(what, ask_runtime(endpoint))
}

fn ask_runtime(endpoint: &str) -> Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let cri = Cri::connect(endpoint)?;
        let version = cri.version().await?;
        let conditions = cri.status().await?.status.unwrap_or_default().conditions;
        if let Some(unmet) = conditions.iter().find(|condition| !condition.status) {
            bail!("{} is not so: {} {}", unmet.r#type, unmet.reason, unmet.message);
        }
        Ok(format!("{} {}, runtime and network are ready", version.runtime_name, version.runtime_version))
    })
}

/// The first configuration is the one runtimes take: it has to be ours, and its socket has to answer.
fn configuration(folder: &Path) -> Result<String> {
    let shown = folder.display();
    let entries = std::fs::read_dir(folder).with_context(|| format!("read {shown}"))?;
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    let first = paths.filter(|path| is_configuration(path)).min();
    let path = first.with_context(|| format!("{shown} holds none: the agent has not installed its own"))?;
    let shown = path.display();
    let text = std::fs::read(&path).with_context(|| format!("read {shown}"))?;
    let list: Value = serde_json::from_slice(&text).with_context(|| format!("{shown} is no JSON"))?;
    let ours = list["plugins"].as_array().into_iter().flatten().find(|plugin| plugin["type"] == "hawser-cni");
    let socket = ours.and_then(|plugin| plugin["agentSocket"].as_str());
    let socket = socket.with_context(|| format!("runtimes take {shown}, which does not name hawser-cni"))?;
    UnixStream::connect(socket).with_context(|| format!("{shown} names {socket}, which does not answer"))?;
    Ok(format!("{shown}; {socket} answers"))
}

/// As containerd and CRI-O choose files.
fn is_configuration(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| ["conf", "conflist", "json"].contains(&extension))
}

fn plugin(path: &Path) -> Result<String> {
    let shown = path.display();
    let output = Command::new(path).env_clear().env("CNI_COMMAND", "VERSION").output();
    let output = output.with_context(|| format!("start {shown}"))?;
    let answer: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{shown} does not say its version"))?;
    Ok(format!("{shown}, CNI {}", answer["cniVersion"].as_str().unwrap_or("of no version")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_that_are_missing_are_named() {
        let status = |mask: &str| format!("Name:\tx\nCapEff:\t{mask}\n");
        assert!(missing(&status("000001ffffffffff")).is_ok());
        let lacking = missing(&status("0000000000001000")).unwrap_err().to_string();
        assert!(lacking.contains("CAP_SYS_ADMIN") && !lacking.contains("NET_ADMIN"), "{lacking}");
        assert!(missing("Name:\tx\n").is_err());
    }

    #[test]
    fn pods_must_not_send_more_than_uplinks_carry() {
        let device =
            |name: &str, mtu| Device { index: 1, name: name.to_owned(), mtu, up: true, alias: String::new() };
        let uplink = device("eth0", 1450);
        let others = [device("hw0123456789ab", 1450), device("hwtest", 9000), device("lo", 65_536)];
        assert!(mtu(&others, &[&uplink]).is_ok());
        let larger = [device("hw0123456789ab", 1500)];
        assert!(mtu(&larger, &[&uplink]).unwrap_err().to_string().contains("1500"));
        assert!(mtu(&[], &[&uplink]).unwrap().contains("no pods"));
    }

    #[test]
    fn a_peer_without_a_way_is_named() {
        let all = BTreeMap::from([
            ("10.244.1.0/24".to_owned(), "via 192.0.2.1".to_owned()),
            ("10.244.2.0/24".to_owned(), "tunnel to 192.0.2.2".to_owned()),
            ("10.244.3.0/24".to_owned(), "unreachable".to_owned()),
        ]);
        let everywhere = |_| Ok(Some("device eth0".to_owned()));
        assert_eq!(routes(&all, everywhere).unwrap(), "2, each with a way");
        let some = |peer: IpAddr| Ok((peer.to_string() == "192.0.2.1").then(String::new));
        let why = routes(&all, some).unwrap_err().to_string();
        assert!(why.contains("10.244.2.0/24"), "{why}");
    }

    #[test]
    fn the_first_configuration_has_to_be_ours_and_its_socket_has_to_answer() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("cni.sock");
        let why = |part: &str| {
            let said = configuration(folder.path()).unwrap_err().to_string();
            assert!(said.contains(part), "{said}");
        };
        why("holds none");
        let ours = serde_json::json!({"plugins": [{"type": "hawser-cni", "agentSocket": socket}]});
        std::fs::write(folder.path().join("05-hawser.conflist"), ours.to_string()).unwrap();
        why("does not answer");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(configuration(folder.path()).is_ok());
        std::fs::write(folder.path().join("01-other.conf"), "{}").unwrap();
        why("01-other.conf");
    }
}
