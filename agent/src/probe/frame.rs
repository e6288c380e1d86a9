//! First packets as bytes, and what became of them.

use std::net::IpAddr;

use crate::oracle::{Ask, Packet};
use crate::tables::Protocol;

const ETHERNET: usize = 14;
const SYN: u8 = 2;
const RST: u8 = 4;
/// Type of an SCTP chunk (RFC 9260, section 3.2); the first follows the common header.
const ABORT: u8 = 6;
const CHUNK: usize = 12;

/// A packet as it left a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Source port, if it has ports.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// What it is.
    pub kind: Kind,
}

/// Kinds of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One that somebody sent.
    Plain,
    /// A TCP RST, or an SCTP ABORT.
    Reset,
    /// An ICMP port unreachable.
    Unreachable,
    /// An answer to a ping.
    EchoReply,
    /// A packet inside a packet.
    Tunnel,
}

/// The frame of a packet that begins a flow.
pub fn first(packet: &Packet, sport: u16) -> Vec<u8> {
    let (number, body) = body(packet, sport);
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    match (packet.src, packet.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            frame.extend([0x08, 0x00]);
            let mut header = vec![0x45, 0];
            header.extend((20 + body.len() as u16).to_be_bytes());
            header.extend([0, 0, 0x40, 0, 64, number, 0, 0]);
            header.extend(src.octets());
            header.extend(dst.octets());
            let sum = checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            frame.extend(header);
        }
        (src, dst) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((body.len() as u16).to_be_bytes());
            frame.extend([number, 64]);
            frame.extend(octets(src));
            frame.extend(octets(dst));
        }
    }
    frame.extend(body);
    frame
}

/// Protocol number, and the transport header with its checksum.
fn body(packet: &Packet, sport: u16) -> (u8, Vec<u8>) {
    let Ask::Port(protocol, dport) = packet.ask else {
        let (kind, number) = if packet.src.is_ipv4() { (8, 1) } else { (128, 58) };
        let [high, low] = sport.to_be_bytes();
        let mut bytes = vec![kind, 0, 0, 0, high, low, 0, 1];
        let pseudo = if number == 1 { Vec::new() } else { pseudo(packet, number, bytes.len()) };
        let sum = checksum(&[pseudo, bytes.clone()].concat());
        bytes[2..4].copy_from_slice(&sum.to_be_bytes());
        return (number, bytes);
    };
    let mut bytes = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
    let at = match protocol {
        Protocol::Tcp => {
            bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, SYN, 0xff, 0xff, 0, 0, 0, 0]);
            Some(16)
        }
        Protocol::Udp => {
            bytes.extend([0, 12, 0, 0, 0, 0, 0, 0]);
            Some(6)
        }
        // An INIT; its checksum is not read by anybody on the way.
        Protocol::Sctp => {
            bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 20]);
            bytes.extend([0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
            None
        }
    };
    if let Some(at) = at {
        let sum = checksum(&[pseudo(packet, protocol.number(), bytes.len()), bytes.clone()].concat());
        bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    (protocol.number(), bytes)
}

fn pseudo(packet: &Packet, number: u8, length: usize) -> Vec<u8> {
    let mut bytes = [octets(packet.src), octets(packet.dst)].concat();
    bytes.extend((length as u32).to_be_bytes());
    bytes.extend([0, 0, 0, number]);
    bytes
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Reads a frame back; none if it is no IP packet or cut off.
pub fn read(frame: &[u8]) -> Option<Seen> {
    let is_v4 = frame.get(12..14)? == [0x08, 0x00];
    let packet = frame.get(ETHERNET..)?;
    let address = |at: usize| -> Option<IpAddr> {
        Some(if is_v4 {
            IpAddr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?)
        } else {
            IpAddr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?)
        })
    };
    let (src, dst, number, body) = if is_v4 {
        let length = usize::from(packet.first()? & 15) * 4;
        (address(12)?, address(16)?, *packet.get(9)?, packet.get(length..)?)
    } else {
        (address(8)?, address(24)?, *packet.get(6)?, packet.get(40..)?)
    };
    let kind = kind(number, body)?;
    let port = |at: usize| Some(u16::from_be_bytes([*body.get(at)?, *body.get(at + 1)?]));
    let has_ports = matches!(number, 6 | 17 | 132);
    let (sport, dport) = if has_ports { (port(0)?, port(2)?) } else { (0, 0) };
    Some(Seen { src, dst, sport, dport, kind })
}

fn kind(number: u8, body: &[u8]) -> Option<Kind> {
    Some(match (number, *body.first()?) {
        (4 | 41, _) => Kind::Tunnel,
        (6, _) if body.get(13)? & RST != 0 => Kind::Reset,
        (132, _) if *body.get(CHUNK)? == ABORT => Kind::Reset,
        (1, 3) | (58, 1) => Kind::Unreachable,
        (1, 0) | (58, 129) => Kind::EchoReply,
        _ => Kind::Plain,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::Client;

    #[test]
    fn what_is_written_is_read_back() {
        for (src, dst) in [("192.0.2.1", "10.96.0.10"), ("2001:db8::1", "fd00:96::a")] {
            for ask in [
                Ask::Port(Protocol::Tcp, 80),
                Ask::Port(Protocol::Udp, 53),
                Ask::Port(Protocol::Sctp, 9),
                Ask::Echo,
            ] {
                let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
                let packet = Packet { client: Client::Pod, src, dst, ask };
                let seen = read(&first(&packet, 50_000)).unwrap();
                let ports = match ask {
                    Ask::Port(_, port) => (50_000, port),
                    Ask::Echo => (0, 0),
                };
                assert_eq!(seen, Seen { src, dst, sport: ports.0, dport: ports.1, kind: Kind::Plain });
            }
        }
    }

    #[test]
    fn an_association_that_is_aborted_is_refused() {
        let (src, dst) = ("192.0.2.1".parse().unwrap(), "10.96.0.10".parse().unwrap());
        let packet = Packet { client: Client::Pod, src, dst, ask: Ask::Port(Protocol::Sctp, 9) };
        let mut frame = first(&packet, 50_000);
        frame[ETHERNET + 20 + CHUNK] = ABORT;
        assert_eq!(read(&frame).unwrap().kind, Kind::Reset);
    }

    #[test]
    fn sums_over_a_right_header_are_zero() {
        let packet = Packet {
            client: Client::Pod,
            src: "192.0.2.1".parse().unwrap(),
            dst: "192.0.2.2".parse().unwrap(),
            ask: Ask::Echo,
        };
        let frame = first(&packet, 7);
        assert_eq!(checksum(&frame[14..34]), 0);
        assert_eq!(checksum(&frame[34..]), 0);
    }

    #[test]
    fn cut_off_frames_are_no_packets() {
        let packet = Packet {
            client: Client::Pod,
            src: "2001:db8::1".parse().unwrap(),
            dst: "2001:db8::2".parse().unwrap(),
            ask: Ask::Port(Protocol::Tcp, 80),
        };
        let frame = first(&packet, 7);
        for length in 0..ETHERNET + 40 + 14 {
            assert_eq!(read(&frame[..length]), None, "{length}");
        }
    }
}
