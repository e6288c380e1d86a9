//! Ranges of addresses for Services.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A range of addresses for Services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub base: IpAddr,
    pub length: u8,
}

/// A service range that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a range of addresses like 10.96.0.0/16")]
pub struct RangeSyntax(String);

impl std::str::FromStr for Range {
    type Err = RangeSyntax;

    fn from_str(text: &str) -> Result<Self, RangeSyntax> {
        let wrong = || RangeSyntax(text.to_owned());
        let (base, length) = text.trim().split_once('/').ok_or_else(wrong)?;
        let base: IpAddr = base.parse().ok().ok_or_else(wrong)?;
        let length: u8 = length.parse().ok().ok_or_else(wrong)?;
        let bits = if base.is_ipv4() { 32 } else { 128 };
        // Fewer than two host bits leave no room; kube-apiserver takes nothing wider than /64 for IPv6 either.
        if length > bits - 2 || length < if base.is_ipv4() { 4 } else { 64 } {
            return Err(wrong());
        }
        Ok(Self { base, length })
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.base, self.length)
    }
}

impl Range {
    /// How many addresses it has, as far as they are given out: no more than 2^32.
    fn size(&self) -> u64 {
        let bits = if self.base.is_ipv4() { 32 } else { 128 };
        1 << (bits - self.length).min(32)
    }

    /// Offsets for those who name an address, and for those who want any. The first address of a range is the
    /// `kubernetes` Service's (or nobody's), the last a broadcast address in IPv4.
    pub fn bands(&self) -> (std::ops::Range<u64>, std::ops::Range<u64>) {
        let end = self.size() - 1;
        // KEP-3070: `min(max(16, size / 16), 256)`; a range so small that nothing would be left is not divided.
        let named = (self.size() / 16).clamp(16, 256);
        let named = if named < end { named } else { 2 };
        (2..named, named..end)
    }

    /// The address at `offset`.
    pub fn address(&self, offset: u64) -> IpAddr {
        match self.base {
            IpAddr::V4(base) => {
                let mask = u32::MAX << (32 - u32::from(self.length));
                let offset = u32::try_from(offset).unwrap_or_default();
                Ipv4Addr::from((u32::from(base) & mask) + offset).into()
            }
            IpAddr::V6(base) => {
                let mask = u128::MAX << (128 - u32::from(self.length));
                Ipv6Addr::from((u128::from(base) & mask) + u128::from(offset)).into()
            }
        }
    }

    /// Whether a Service may have the address: the first and the last of a range are nobody's.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (first, last): (IpAddr, IpAddr) = match (self.address(0), address) {
            (IpAddr::V4(first), IpAddr::V4(_)) => {
                let hosts = u32::MAX >> self.length;
                (IpAddr::from(first), Ipv4Addr::from(u32::from(first) | hosts).into())
            }
            (IpAddr::V6(first), IpAddr::V6(_)) => {
                let hosts = u128::MAX >> self.length;
                (IpAddr::from(first), Ipv6Addr::from(u128::from(first) | hosts).into())
            }
            _ => return false,
        };
        first < address && address < last
    }

    /// `IPv4` or `IPv6`.
    pub fn family(&self) -> &'static str {
        if self.base.is_ipv4() { "IPv4" } else { "IPv6" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_bounded() {
        let v4: Range = "10.96.0.0/16".parse().unwrap();
        assert_eq!(v4.address(1).to_string(), "10.96.0.1");
        assert!(v4.contains("10.96.3.4".parse().unwrap()));
        assert!(!v4.contains("10.97.0.1".parse().unwrap()));
        assert!(!v4.contains("10.96.0.0".parse().unwrap()));
        let v6: Range = "fd00:96::/112".parse().unwrap();
        assert_eq!(v6.address(10).to_string(), "fd00:96::a");
        let wide: Range = "fd00:1:2:3::/64".parse().unwrap();
        assert!(wide.contains("fd00:1:2:3:ffff:ffff:ffff:fffe".parse().unwrap()));
        assert!(!wide.contains("fd00:1:2:3:ffff:ffff:ffff:ffff".parse().unwrap()));
        assert!(
            !wide.contains("fd00:1:2:4::1".parse().unwrap()) && !wide.contains("10.0.0.1".parse().unwrap())
        );
        for wrong in ["", "10.0.0.0", "10.0.0.0/31", "x/8", "0.0.0.0/0", "fd00::/63"] {
            assert!(wrong.parse::<Range>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_lower_part_is_left_to_those_who_name_an_address() {
        for (range, lower, upper) in [
            ("10.0.0.0/16", 2..256, 256..65535),
            ("10.0.0.0/24", 2..16, 16..255),
            ("10.0.0.0/27", 2..16, 16..31),
            ("10.0.0.0/28", 2..2, 2..15),
            ("10.0.0.0/30", 2..2, 2..3),
            ("fd00::/64", 2..256, 256..0xffff_ffff),
        ] {
            assert_eq!(range.parse::<Range>().unwrap().bands(), (lower, upper), "{range}");
        }
    }
}
