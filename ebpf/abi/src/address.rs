//! Addresses, ports and prefixes as they lie in maps: network order is a type.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::layout::layout;

/// An address of either family, IPv4 mapped into IPv6 (`::ffff:a.b.c.d`), in network order.
#[repr(C, align(4))]
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::Immutable,
    zerocopy::KnownLayout,
)]
pub struct Addr16 {
    /// The sixteen bytes, most significant first.
    pub bytes: [u8; 16],
}

impl Addr16 {
    /// How the struct lies in memory. Four-byte alignment lets the programs load words.
    pub const LAYOUT: crate::Layout = crate::Layout {
        name: "Addr16",
        size: 16,
        fields: &[crate::Field { name: "bytes", offset: 0, kind: "[u8; 16]" }],
    };

    /// `::`, which stands for "none".
    pub const NONE: Self = Self { bytes: [0; 16] };

    /// The mapped form of four IPv4 bytes.
    #[inline(always)]
    pub const fn mapped(v4: [u8; 4]) -> Self {
        Self::from_v4_word(u32::from_ne_bytes(v4))
    }

    /// The mapped form of an IPv4 address given as the kernel holds it, in network order.
    #[inline(always)]
    pub const fn from_v4_word(word: u32) -> Self {
        Self::from_words([0, 0, u32::from_ne_bytes([0, 0, 0xff, 0xff]), word])
    }

    /// Four words, each in network order as the kernel's `user_ip6` holds them.
    #[inline(always)]
    pub const fn words(&self) -> [u32; 4] {
        // Not byte by byte: the programs would load them so.
        // SAFETY: sixteen bytes, aligned to words, of which every value is one.
        unsafe { *core::ptr::from_ref(self).cast::<[u32; 4]>() }
    }

    /// The inverse of [`Addr16::words`].
    #[inline(always)]
    pub const fn from_words(words: [u32; 4]) -> Self {
        // Not byte by byte: the programs would store them so.
        // SAFETY: both are sixteen bytes, of which every value is an address.
        Self { bytes: unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(words) } }
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        let words = self.words();
        words[0] == 0 && words[1] == 0 && words[2] == u32::from_ne_bytes([0, 0, 0xff, 0xff])
    }

    /// Whether this is `::`.
    #[inline(always)]
    pub const fn is_none(&self) -> bool {
        let words = self.words();
        words[0] | words[1] | words[2] | words[3] == 0
    }

    /// The standard library's form.
    pub const fn ip(&self) -> IpAddr {
        if self.is_v4() {
            let b = &self.bytes;
            IpAddr::V4(Ipv4Addr::new(b[12], b[13], b[14], b[15]))
        } else {
            IpAddr::V6(Ipv6Addr::from_octets(self.bytes))
        }
    }
}

impl From<IpAddr> for Addr16 {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Self::mapped(v4.octets()),
            IpAddr::V6(v6) => Self { bytes: v6.octets() },
        }
    }
}

impl fmt::Debug for Addr16 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.ip(), f)
    }
}

#[cfg(feature = "user")]
// SAFETY: `IntoBytes` proves that there is no padding; every bit pattern is an address.
unsafe impl aya::Pod for Addr16 {}

layout! {
    /// Sixteen bits in network order.
    pub struct Be16(2) {
        /// As it lies in the packet.
        0 => be: u16,
    }

    /// An address prefix, matched by mask.
    pub struct Prefix(32) {
        /// The network, already masked.
        0 => network: Addr16,
        /// Ones where the address must equal the network. All zero matches nothing.
        16 => mask: Addr16,
    }

    /// Source and destination of a packet. ICMP echo carries its identifier as the port of the side that asked.
    pub struct Tuple(36) {
        /// Source address.
        0 => src: Addr16,
        /// Destination address.
        16 => dst: Addr16,
        /// Source port.
        32 => sport: Be16,
        /// Destination port.
        34 => dport: Be16,
    }
}

impl Be16 {
    /// From the number people write.
    #[inline(always)]
    pub const fn new(host: u16) -> Self {
        Self { be: host.to_be() }
    }

    /// The number people write.
    #[inline(always)]
    pub const fn host(self) -> u16 {
        u16::from_be(self.be)
    }
}

impl Prefix {
    /// Matches nothing.
    pub const NONE: Self = Self { network: Addr16::NONE, mask: Addr16::NONE };

    /// Whether `addr` lies inside.
    #[inline(always)]
    pub const fn contains(&self, addr: &Addr16) -> bool {
        let (network, mask, addr) = (self.network.words(), self.mask.words(), addr.words());
        let differs = ((addr[0] & mask[0]) ^ network[0])
            | ((addr[1] & mask[1]) ^ network[1])
            | ((addr[2] & mask[2]) ^ network[2])
            | ((addr[3] & mask[3]) ^ network[3]);
        differs == 0 && !self.mask.is_none()
    }

    /// Whether an IPv4 address lies inside, as it lies in a header.
    #[inline(always)]
    pub const fn contains_v4(&self, word: u32) -> bool {
        let ([.., mask], [.., network]) = (self.mask.words(), self.network.words());
        (word & mask) ^ network == 0 && self.network.is_v4()
    }

    /// From an address and a prefix length of its own family.
    pub fn new(ip: IpAddr, length: u8) -> Self {
        let bits = match ip {
            IpAddr::V4(_) => 96 + u32::from(length),
            IpAddr::V6(_) => u32::from(length),
        };
        let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
        let network = u128::from_be_bytes(Addr16::from(ip).bytes) & mask;
        Self { network: Addr16 { bytes: network.to_be_bytes() }, mask: Addr16 { bytes: mask.to_be_bytes() } }
    }
}

impl Tuple {
    /// The tuple of an answer.
    #[inline(always)]
    pub const fn reversed(&self) -> Self {
        Self { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_contains_its_family_only() {
        let v4 = Prefix::new("10.96.0.0".parse().unwrap(), 16);
        assert!(v4.contains(&Addr16::mapped([10, 96, 3, 4])));
        assert!(!v4.contains(&Addr16::mapped([10, 97, 3, 4])));
        let v6 = Prefix::new("fd00:96::".parse().unwrap(), 112);
        assert!(v6.contains(&Addr16::from("fd00:96::7".parse::<IpAddr>().unwrap())));
        assert!(!v6.contains(&Addr16::mapped([10, 96, 3, 4])));
        assert!(!Prefix::NONE.contains(&Addr16::NONE));
        let inside = |prefix: Prefix| {
            [[10, 96, 3, 4], [10, 97, 3, 4], [0; 4]].map(|ip| prefix.contains_v4(u32::from_ne_bytes(ip)))
        };
        assert_eq!(inside(v4), [true, false, false]);
        assert_eq!(inside(Prefix::new("0.0.0.0".parse().unwrap(), 0)), [true; 3]);
        assert_eq!([v6, Prefix::NONE].map(inside), [[false; 3]; 2]);
    }

    #[test]
    fn words_and_bytes_are_the_same_address() {
        let address = Addr16::from("fd00:96::7".parse::<IpAddr>().unwrap());
        assert_eq!(Addr16::from_words(address.words()), address);
        assert!(Addr16::mapped([1, 2, 3, 4]).is_v4() && !address.is_v4());
    }
}
