//! Addresses and ranges of addresses, as fields of the API may hold them.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use crate::tree::{list, text};
use crate::validate::{self, Errors};

const NO_ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const NO_RANGE: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// An address, also one in whose parts there are zeros in front, as upstream always read them.
pub fn lenient(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let start = text.rfind(':').map_or(0, |at| at + 1);
    let octets: Vec<&str> = text[start..].split('.').collect();
    let is_number = |octet: &&str| !octet.is_empty() && octet.bytes().all(|c| c.is_ascii_digit());
    if octets.len() != 4 || !octets.iter().all(is_number) {
        return None;
    }
    let plain = |octet: &&str| match octet.trim_start_matches('0') {
        "" => "0".to_owned(),
        digits => digits.to_owned(),
    };
    format!("{}{}", &text[..start], octets.iter().map(plain).collect::<Vec<_>>().join(".")).parse().ok()
}

fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

/// What a field that was there before addresses were read strictly may hold: any form of writing, as long as everybody reads
/// it in one way.
pub fn address(text: &str) -> Result<(), String> {
    let why = match (lenient(text), text.parse::<IpAddr>()) {
        (None, _) => NO_ADDRESS,
        (Some(_), Err(_)) => "must not have leading 0s",
        (Some(_), Ok(address)) if is_mapped(address) => "must not be an IPv4-mapped IPv6 address",
        _ => return Ok(()),
    };
    Err(why.to_owned())
}

/// An address in the one way it is written.
pub fn canonical_address(text: &str) -> Result<(), String> {
    address(text)?;
    match lenient(text).map(|address| address.to_string()) {
        Some(canonical) if canonical != text => Err(format!("must be in canonical form ({canonical:?})")),
        _ => Ok(()),
    }
}

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    pub address: IpAddr,
    pub length: u8,
}

impl Network {
    /// A range, also one with zeros in front or with bits beyond its length.
    pub fn lenient(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        if length.is_empty() || !length.bytes().all(|c| c.is_ascii_digit()) {
            return None;
        }
        let (address, length): (IpAddr, u8) = (lenient(address)?, length.parse().ok()?);
        (length <= bits(address)).then_some(Self { address, length })
    }

    /// The range without what its address says beyond the length.
    pub fn masked(self) -> Self {
        Self { address: masked(self.address, self.length), ..self }
    }

    /// Whether all of `other` is in it, and it has more than that.
    pub fn strictly_contains(self, other: Self) -> bool {
        self.address.is_ipv4() == other.address.is_ipv4()
            && self.length < other.length
            && masked(other.address, self.length) == self.masked().address
    }
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.length)
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn masked(address: IpAddr, length: u8) -> IpAddr {
    let host = u32::from(bits(address).saturating_sub(length));
    match address {
        IpAddr::V4(v4) => Ipv4Addr::from(u32::from(v4) & u32::MAX.checked_shl(host).unwrap_or(0)).into(),
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) & u128::MAX.checked_shl(host).unwrap_or(0)).into(),
    }
}

/// What a field that was there before ranges were read strictly may hold.
pub fn range(text: &str) -> Result<(), String> {
    let Some(network) = Network::lenient(text) else { return Err(NO_RANGE.to_owned()) };
    let (address, length) = text.split_once('/').unwrap_or((text, ""));
    let zeros = address.parse::<IpAddr>().is_err() || (length.len() > 1 && length.starts_with('0'));
    let why = match network {
        _ if zeros => "must not have leading 0s in IP or prefix length",
        Network { address, .. } if is_mapped(address) => "must not have an IPv4-mapped IPv6 address",
        network if network != network.masked() => "must not have bits set beyond the prefix length",
        _ => return Ok(()),
    };
    Err(why.to_owned())
}

/// A range in the one way it is written.
pub fn canonical_range(text: &str) -> Result<(), String> {
    range(text)?;
    match Network::lenient(text).map(|network| network.to_string()) {
        Some(canonical) if canonical != text => Err(format!("must be in canonical form ({canonical:?})")),
        _ => Ok(()),
    }
}

/// Checks where load balancers say they can be reached; what was said before may stay.
pub fn validate_balancers(status: &Value, old: &Value, here: &str, errors: &mut Errors) {
    let kept: HashSet<&str> = list(old, &["ingress"]).iter().map(|point| text(point, &["ip"])).collect();
    for (index, point) in list(status, &["ingress"]).iter().enumerate() {
        let (ip, hostname) = (text(point, &["ip"]), text(point, &["hostname"]));
        if !ip.is_empty() && !kept.contains(ip) {
            errors.check(format!("{here}.ingress[{index}].ip"), ip, address);
        }
        let place = format!("{here}.ingress[{index}].hostname");
        if !hostname.is_empty() {
            errors.check(place.clone(), hostname, validate::subdomain);
        }
        if lenient(hostname).is_some() {
            errors.invalid(place, &Value::from(hostname), "must be a DNS name, not an IP address");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_by_everybody_in_one_way() {
        for (text, legacy, canonical) in [
            ("10.0.0.1", "", ""),
            ("fd00::a", "", ""),
            ("FD00::A", "", "must be in canonical form (\"fd00::a\")"),
            ("10.0.0.01", "must not have leading 0s", "must not have leading 0s"),
            (
                "::ffff:1.2.3.4",
                "must not be an IPv4-mapped IPv6 address",
                "must not be an IPv4-mapped IPv6 address",
            ),
            ("::ffff:1.2.3.04", "must not have leading 0s", "must not have leading 0s"),
            ("10.0.0.256", NO_ADDRESS, NO_ADDRESS),
            ("10.0.0", NO_ADDRESS, NO_ADDRESS),
            ("fe80::1%eth0", NO_ADDRESS, NO_ADDRESS),
            ("", NO_ADDRESS, NO_ADDRESS),
        ] {
            assert_eq!(address(text).err().unwrap_or_default(), legacy, "{text}");
            assert_eq!(canonical_address(text).err().unwrap_or_default(), canonical, "{text}");
        }
    }

    #[test]
    fn ranges_are_read_by_everybody_in_one_way() {
        for (text, legacy, canonical) in [
            ("10.0.0.0/24", "", ""),
            ("0.0.0.0/0", "", ""),
            ("::/0", "", ""),
            ("10.0.0.1/32", "", ""),
            ("FD00::/64", "", "must be in canonical form (\"fd00::/64\")"),
            (
                "10.0.0.0/024",
                "must not have leading 0s in IP or prefix length",
                "must not have leading 0s in IP or prefix length",
            ),
            (
                "10.0.00.0/24",
                "must not have leading 0s in IP or prefix length",
                "must not have leading 0s in IP or prefix length",
            ),
            (
                "10.0.0.1/24",
                "must not have bits set beyond the prefix length",
                "must not have bits set beyond the prefix length",
            ),
            (
                "::ffff:1.2.3.0/120",
                "must not have an IPv4-mapped IPv6 address",
                "must not have an IPv4-mapped IPv6 address",
            ),
            ("10.0.0.0", NO_RANGE, NO_RANGE),
            ("10.0.0.0/33", NO_RANGE, NO_RANGE),
            ("10.0.0.0/+8", NO_RANGE, NO_RANGE),
            ("10.0.0.0/", NO_RANGE, NO_RANGE),
        ] {
            assert_eq!(range(text).err().unwrap_or_default(), legacy, "{text}");
            assert_eq!(canonical_range(text).err().unwrap_or_default(), canonical, "{text}");
        }
    }

    #[test]
    fn a_range_is_in_another() {
        let within = |outer: &str, inner: &str| {
            Network::lenient(outer).unwrap().strictly_contains(Network::lenient(inner).unwrap())
        };
        assert!(within("10.0.0.0/8", "10.1.0.0/16"));
        assert!(within("0.0.0.0/0", "10.1.0.0/16"));
        assert!(within("fd00::/8", "fd00:1::/64"));
        assert!(!within("10.0.0.0/8", "10.0.0.0/8"));
        assert!(!within("10.0.0.0/8", "11.0.0.0/16"));
        assert!(!within("::/0", "10.0.0.0/8"));
    }
}
