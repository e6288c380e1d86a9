//! The network between nodes: a bridge on the host, a namespace and a veth pair for each node.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::layout::{Layout, NodeLayout};

/// Makes the bridge with the host's addresses.
pub(crate) fn make_bridge(layout: &Layout) -> Result<()> {
    let bridge = layout.bridge();
    if !link_exists(&bridge)? {
        ip(&["link", "add", &bridge, "type", "bridge"])?;
    }
    ip(&["address", "replace", &format!("{}/24", layout.host_v4()), "dev", &bridge])?;
    ip(&["-6", "address", "replace", &format!("{}/64", layout.host_v6()), "dev", &bridge, "nodad"])?;
    ip(&["link", "set", &bridge, "up"])
}

/// Makes a node's namespace with the device `eth0`, its addresses and a default route to the host.
pub(crate) fn make_node(layout: &Layout, node: &NodeLayout) -> Result<()> {
    let (scope, link) = (node.scope(), node.host_link());
    if !node.netns().exists() {
        ip(&["netns", "add", &scope])?;
    }
    if !link_exists(&link)? {
        ip(&["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &scope])?;
    }
    ip(&["link", "set", &link, "master", &layout.bridge(), "up"])?;
    let inside = |arguments: &[&str]| ip(&[&["-n", scope.as_str()], arguments].concat());
    inside(&["link", "set", "lo", "up"])?;
    inside(&["address", "replace", &format!("{}/24", node.v4()), "dev", "eth0"])?;
    inside(&["-6", "address", "replace", &format!("{}/64", node.v6()), "dev", "eth0", "nodad"])?;
    inside(&["link", "set", "eth0", "up"])?;
    inside(&["route", "replace", "default", "via", &layout.host_v4().to_string()])?;
    inside(&["-6", "route", "replace", "default", "via", &layout.host_v6().to_string()])
}

/// Has the host reach the node's pods, of these ranges: the API server hands requests through to them. The routes go with the
/// bridge. Of two clusters with the same ranges the one that came last has them.
pub(crate) fn route_pods(layout: &Layout, node: &NodeLayout, ranges: &[String]) -> Result<()> {
    ranges.iter().try_for_each(|range| {
        let (family, gateway) =
            if range.contains(':') { ("-6", node.v6().to_string()) } else { ("-4", node.v4().to_string()) };
        ip(&[family, "route", "replace", range, "via", &gateway, "dev", &layout.bridge()])
    })
}

/// Turns a node's link off; [`make_node`] turns it on again.
pub(crate) fn unplug(node: &NodeLayout) -> Result<()> {
    ip(&["link", "set", &node.host_link(), "down"])
}

/// Removes a node's link and its namespace.
pub(crate) fn remove_node(node: &NodeLayout) -> Result<()> {
    ip(&["link", "delete", &node.host_link()])?;
    ip(&["netns", "delete", &node.scope()])
}

/// Removes the bridge, every namespace and every link of the cluster.
pub(crate) fn remove(layout: &Layout) -> Result<()> {
    // Deleting one end of a pair deletes the other. A namespace takes its links with it too, but only some time after it
    // is gone, so links come first.
    for link in links(layout)? {
        ip(&["link", "delete", &link])?;
    }
    for namespace in namespaces(layout)? {
        ip(&["netns", "delete", &namespace])?;
    }
    Ok(())
}

/// Namespaces and links of the cluster that are there.
pub(crate) fn leftovers(layout: &Layout) -> Result<Vec<String>> {
    Ok([namespaces(layout)?, links(layout)?].concat())
}

fn namespaces(layout: &Layout) -> Result<Vec<String>> {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return Ok(Vec::new()) };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    Ok(names.filter(|name| layout.owns(name)).collect())
}

fn links(layout: &Layout) -> Result<Vec<String>> {
    let ours = |name: &String| {
        *name == layout.bridge()
            || name
                .strip_prefix(&format!("hwr{}", layout.name))
                .is_some_and(|rest| rest.parse::<u8>().is_ok())
    };
    let entries = std::fs::read_dir("/sys/class/net").context("read /sys/class/net")?;
    Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(ours).collect())
}

fn link_exists(name: &str) -> Result<bool> {
    std::path::Path::new("/sys/class/net").join(name).try_exists().context("look into /sys/class/net")
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output =
        Command::new("ip").args(arguments).output().context("start `ip` (Debian package iproute2)")?;
    if !output.status.success() {
        bail!("`ip {}`: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
