//! Who has this address? ARP (RFC 826, announcements by RFC 5227) and neighbour discovery (RFC 4861), as bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A hardware address.
pub type Mac = [u8; 6];

const EVERYBODY: Mac = [0xff; 6];
/// The hardware address of ff02::1, all nodes of a link.
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ARP: [u8; 2] = [0x08, 0x06];
const IPV6: [u8; 2] = [0x86, 0xdd];
/// Ethernet and IPv4, with addresses of six and four bytes.
const ARP_HEAD: [u8; 6] = [0, 1, 0x08, 0x00, 6, 4];
const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Solicited: it answers somebody. Override: it replaces what others said before.
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// Somebody's question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// The address it is about.
    pub address: IpAddr,
    /// Who asks; unspecified when somebody wants the address for himself.
    pub asker: IpAddr,
    /// Where the answer goes.
    pub mac: Mac,
}

/// Reads an Ethernet frame; `None` for everything but a question that is well formed.
pub fn question(frame: &[u8]) -> Option<Question> {
    let (ethernet, rest) = frame.split_at_checked(14)?;
    let mac = ethernet[6..12].try_into().ok()?;
    match &ethernet[12..] {
        kind if *kind == ARP => arp_question(rest, mac),
        kind if *kind == IPV6 => solicitation(rest, mac),
        _ => None,
    }
}

fn arp_question(arp: &[u8], mac: Mac) -> Option<Question> {
    let arp: &[u8; 28] = arp.first_chunk()?;
    if arp[..6] != ARP_HEAD || arp[6..8] != [0, REQUEST] {
        return None;
    }
    let address = |at: usize| Ipv4Addr::new(arp[at], arp[at + 1], arp[at + 2], arp[at + 3]);
    Some(Question { address: address(24).into(), asker: address(14).into(), mac })
}

fn solicitation(packet: &[u8], mac: Mac) -> Option<Question> {
    let (header, message) = packet.split_first_chunk::<40>()?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let message = message.get(..length)?;
    let head: &[u8; 24] = message.first_chunk()?;
    // A hop limit of 255 proves that no router has passed it on.
    if header[6] != ICMPV6 || header[7] != 255 || head[..2] != [SOLICITATION, 0] {
        return None;
    }
    let address = |bytes: &[u8]| Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?));
    let (asker, to) = (address(&header[8..24])?, address(&header[24..40])?);
    if checksum(asker, to, message) != 0 {
        return None;
    }
    Some(Question { address: address(&head[8..24])?.into(), asker: asker.into(), mac })
}

/// The answer: the address is at `mac`.
pub fn answer(question: &Question, mac: Mac) -> Vec<u8> {
    match (question.address, question.asker) {
        (IpAddr::V4(address), IpAddr::V4(asker)) => {
            arp(REPLY, (mac, address), (question.mac, asker), question.mac)
        }
        (IpAddr::V6(address), IpAddr::V6(asker)) if !asker.is_unspecified() => {
            advertisement(address, mac, (question.mac, asker), SOLICITED | OVERRIDE)
        }
        (address, _) => announcement(address, mac),
    }
}

/// Tells everybody on the link that the address is at `mac` now.
pub fn announcement(address: IpAddr, mac: Mac) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => arp(REQUEST, (mac, address), ([0; 6], address), EVERYBODY),
        IpAddr::V6(address) => advertisement(address, mac, (ALL_NODES_MAC, ALL_NODES), OVERRIDE),
    }
}

/// The multicast hardware address that questions about an IPv6 address are sent to (RFC 4291, 2.7.1; RFC 2464, 7).
pub fn solicited_node(address: Ipv6Addr) -> Mac {
    let [.., a, b, c] = address.octets();
    [0x33, 0x33, 0xff, a, b, c]
}

fn arp(operation: u8, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr), to: Mac) -> Vec<u8> {
    [
        &to[..],
        &sender.0,
        &ARP,
        &ARP_HEAD,
        &[0, operation],
        &sender.0,
        &sender.1.octets(),
        &target.0,
        &target.1.octets(),
    ]
    .concat()
}

fn advertisement(address: Ipv6Addr, mac: Mac, to: (Mac, Ipv6Addr), flags: u8) -> Vec<u8> {
    // Type, code, checksum, flags, the address, and the option "target link-layer address".
    let mut message =
        [&[ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0], &address.octets()[..], &[2, 1], &mac].concat();
    let sum = checksum(address, to.1, &message).to_be_bytes();
    message[2..4].copy_from_slice(&sum);
    let [high, low] = 32_u16.to_be_bytes();
    let header = [0x60, 0, 0, 0, high, low, ICMPV6, 255];
    [&to.0[..], &mac, &IPV6, &header, &address.octets(), &to.1.octets(), &message].concat()
}

/// RFC 4443, 2.3: zero over a message that carries a right one.
fn checksum(src: Ipv6Addr, dst: Ipv6Addr, message: &[u8]) -> u16 {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    let pseudo = [&src.octets()[..], &dst.octets(), &length, &[0, 0, 0, ICMPV6], message].concat();
    let words =
        pseudo.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OURS: Mac = [2, 0, 0, 0, 0, 1];
    const THEIRS: Mac = [2, 0, 0, 0, 0, 2];

    fn asks_v6(address: &str, asker: &str) -> Vec<u8> {
        let (address, asker): (Ipv6Addr, Ipv6Addr) = (address.parse().unwrap(), asker.parse().unwrap());
        let to: Ipv6Addr = "ff02::1:ff00:7".parse().unwrap();
        let mut message = [&[SOLICITATION, 0, 0, 0, 0, 0, 0, 0], &address.octets()[..]].concat();
        let sum = checksum(asker, to, &message).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
        let header = [0x60, 0, 0, 0, 0, 24, ICMPV6, 255];
        let ethernet = [&solicited_node(address)[..], &THEIRS, &IPV6].concat();
        [&ethernet[..], &header, &asker.octets(), &to.octets(), &message].concat()
    }

    #[test]
    fn who_asks_for_an_ipv4_address_is_told() {
        let (address, asker) = ("192.0.2.7".parse().unwrap(), "192.0.2.9".parse().unwrap());
        let asked = arp(REQUEST, (THEIRS, asker), ([0; 6], address), EVERYBODY);
        let question = question(&asked).unwrap();
        assert_eq!((question.address, question.mac), (address.into(), THEIRS));
        let told = answer(&question, OURS);
        assert_eq!(told, arp(REPLY, (OURS, address), (THEIRS, asker), THEIRS));
        assert_eq!(super::question(&told), None, "an answer is no question");
    }

    #[test]
    fn who_asks_for_an_ipv6_address_is_told() {
        let question = question(&asks_v6("2001:db8::7", "2001:db8::9")).unwrap();
        assert_eq!(question.address, "2001:db8::7".parse::<IpAddr>().unwrap());
        let told = answer(&question, OURS);
        assert_eq!((&told[..6], &told[6..12]), (&THEIRS[..], &OURS[..]));
        let (src, dst) = ("2001:db8::7".parse().unwrap(), "2001:db8::9".parse().unwrap());
        assert_eq!(checksum(src, dst, &told[54..]), 0);
        assert_eq!((told[54], told[58]), (ADVERTISEMENT, SOLICITED | OVERRIDE));
        assert_eq!(told[80..], OURS);
    }

    #[test]
    fn who_wants_the_address_himself_hears_it_with_everybody() {
        let question = question(&asks_v6("2001:db8::7", "::")).unwrap();
        let told = answer(&question, OURS);
        assert_eq!(told[..6], ALL_NODES_MAC);
        assert_eq!(told[58], OVERRIDE);
    }

    #[test]
    fn a_broken_question_is_none() {
        let good = asks_v6("2001:db8::7", "2001:db8::9");
        for (at, value) in [(21, 254), (20, 59), (54, 136), (55, 1), (56, 0), (19, 23)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(question(&bad), None, "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..120), kind in 0..3_usize) {
            let mut frame = bytes;
            if frame.len() >= 14 {
                frame[12..14].copy_from_slice(&[ARP, IPV6, [8, 0]][kind]);
            }
            if let Some(question) = question(&frame) {
                answer(&question, OURS);
            }
        }
    }
}
