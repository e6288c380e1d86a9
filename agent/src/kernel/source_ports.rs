//! Which source ports the node's masquerade may use.

use std::ops::RangeInclusive;
use std::path::Path;

use super::KernelError;

/// What Linux gives to sockets that ask for no port: `net.ipv4.ip_local_port_range`, of both families.
const LOCAL: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Every port that needs no privilege.
const UNPRIVILEGED: RangeInclusive<u16> = 1024..=65_535;

/// Kubernetes' default `--service-node-port-range`.
const NODE_PORTS: RangeInclusive<u16> = 30_000..=32_767;

/// What is taken when Linux leaves no run of a thousand ports: its sockets and ours share it, and the programs ask for sockets.
const SHARED: RangeInclusive<u16> = 61_000..=65_535;
const ENOUGH: usize = 1000;

/// The ports masquerade uses on this node, as the namespace of the calling thread is set up.
pub fn of_this_node() -> Result<RangeInclusive<u16>, KernelError> {
    let failed = |source| KernelError::Io { action: format!("read {LOCAL}"), source };
    let text = std::fs::read_to_string(Path::new(LOCAL)).map_err(failed)?;
    let local = parse(&text).ok_or_else(|| {
        failed(std::io::Error::new(std::io::ErrorKind::InvalidData, format!("{text:?} is no range of ports")))
    })?;
    Ok(choose(&local))
}

fn parse(text: &str) -> Option<RangeInclusive<u16>> {
    let mut ports = text.split_whitespace().map(str::parse);
    match (ports.next()?, ports.next()?, ports.next()) {
        (Ok(first), Ok(last), None) => Some(first..=last),
        _ => None,
    }
}

/// The longest run of ports that neither Linux gives to the host's sockets nor NodePorts use. Long runs matter: a port is best left
/// alone for the minute in which the other end remembers its last connection.
fn choose(local: &RangeInclusive<u16>) -> RangeInclusive<u16> {
    let is_free = |port: &u16| !local.contains(port) && !NODE_PORTS.contains(port);
    let mut longest = SHARED;
    let mut length = ENOUGH;
    let mut first = None;
    for port in UNPRIVILEGED {
        if !is_free(&port) {
            first = None;
            continue;
        }
        let run = *first.get_or_insert(port)..=port;
        if run.len() > length {
            length = run.len();
            longest = run;
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_run_that_is_nobody_elses() {
        for (local, wanted) in [
            ("32768\t60999\n", 1024..=29_999),
            ("1024 29999", 32_768..=65_535),
            ("10000 65535", 1024..=9999),
            ("9000 50000", 50_001..=65_535),
            ("1024 65535", SHARED),
            ("2000 65000", SHARED),
        ] {
            assert_eq!(choose(&parse(local).unwrap()), wanted, "{local}");
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in ["", "1", "1 2 3", "a b", "1 70000"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn this_node_has_one() {
        assert!(of_this_node().unwrap().len() >= ENOUGH);
    }
}
