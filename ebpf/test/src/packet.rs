//! Packets as values: built from words, read back from bytes, with every checksum right or reported.

use std::net::IpAddr;

use anyhow::{Context, Result, bail, ensure};

/// TCP flag bits.
pub const FIN: u8 = 1;
/// Begins a connection.
pub const SYN: u8 = 2;
/// Ends it at once.
pub const RST: u8 = 4;
/// Acknowledges.
pub const ACK: u8 = 16;

/// SCTP chunks: data.
pub const DATA: u8 = 0;
/// Begins an association.
pub const INIT: u8 = 1;
/// Answers that.
pub const INIT_ACK: u8 = 2;
/// Ends it at once.
pub const ABORT: u8 = 6;
/// Says what was wrong.
pub const ERROR: u8 = 9;
/// Ends the handshake.
pub const COOKIE_ACK: u8 = 11;
/// Says that the other end wants to end it.
pub const SHUTDOWN_ACK: u8 = 8;
/// Ends it in the end.
pub const SHUTDOWN_COMPLETE: u8 = 14;

/// An Ethernet frame with an IP packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// TTL or hop limit.
    pub hops: u8,
    /// What it carries.
    pub body: Body,
    /// Fragment offset in units of eight bytes, and whether more follow.
    pub fragment: (u16, bool),
}

/// The transport layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Ports, flags, data.
    Tcp(u16, u16, u8, Vec<u8>),
    /// Ports, data.
    Udp(u16, u16, Vec<u8>),
    /// Ports, type of the first chunk, its value.
    Sctp(u16, u16, u8, Vec<u8>),
    /// Whether it is a request, the identifier.
    Echo(bool, u16),
    /// An ICMP error: its type and code, and the packet it is about, cut off or whole.
    Error(u8, u8, Vec<u8>),
    /// Protocol number and bytes.
    Other(u8, Vec<u8>),
}

/// A packet without a body yet.
pub fn packet(src: IpAddr, dst: IpAddr) -> Packet {
    Packet { src, dst, hops: 64, body: Body::Other(59, Vec::new()), fragment: (0, false) }
}

impl Packet {
    /// A TCP segment with these flags.
    pub fn tcp(self, sport: u16, dport: u16, flags: u8) -> Self {
        Self { body: Body::Tcp(sport, dport, flags, b"data".to_vec()), ..self }
    }

    /// A UDP datagram.
    pub fn udp(self, sport: u16, dport: u16) -> Self {
        Self { body: Body::Udp(sport, dport, b"data".to_vec()), ..self }
    }

    /// An SCTP packet with one chunk.
    pub fn sctp(self, sport: u16, dport: u16, chunk: u8) -> Self {
        Self { body: Body::Sctp(sport, dport, chunk, b"data".to_vec()), ..self }
    }

    /// An ICMP echo.
    pub fn echo(self, request: bool, id: u16) -> Self {
        Self { body: Body::Echo(request, id), ..self }
    }

    /// An ICMP error about another packet, cut off after `length` bytes.
    pub fn error(self, kind: u8, code: u8, about: &Packet, length: usize) -> Self {
        let mut inside = about.bytes()[14..].to_vec();
        inside.truncate(length);
        Self { body: Body::Error(kind, code, inside), ..self }
    }

    /// The packet an error is about.
    pub fn inside(&self) -> Result<Self> {
        let Body::Error(_, _, inside) = &self.body else { bail!("not an ICMP error: {self:?}") };
        let kind = if self.src.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] };
        Self::read_unchecked(&[&[0; 12], &kind[..], inside].concat())
    }

    /// Another TTL or hop limit.
    pub fn hops(self, hops: u8) -> Self {
        Self { hops, ..self }
    }

    /// A fragment at `offset` (in eight bytes), with more to follow or not.
    pub fn fragment(self, offset: u16, more: bool) -> Self {
        Self { fragment: (offset, more), ..self }
    }

    /// Source and destination port, or the echo identifier on its side.
    pub fn ports(&self) -> (u16, u16) {
        match &self.body {
            Body::Tcp(sport, dport, ..) | Body::Udp(sport, dport, _) | Body::Sctp(sport, dport, ..) => {
                (*sport, *dport)
            }
            Body::Echo(true, id) => (*id, 0),
            Body::Echo(false, id) => (0, *id),
            Body::Error(..) | Body::Other(..) => (0, 0),
        }
    }

    /// The packet an answerer would send.
    pub fn answer(&self) -> Self {
        let body = match &self.body {
            Body::Tcp(sport, dport, _, data) => Body::Tcp(*dport, *sport, SYN | ACK, data.clone()),
            Body::Udp(sport, dport, data) => Body::Udp(*dport, *sport, data.clone()),
            Body::Sctp(sport, dport, _, data) => Body::Sctp(*dport, *sport, INIT_ACK, data.clone()),
            Body::Echo(_, id) => Body::Echo(false, *id),
            Body::Error(..) | Body::Other(..) => self.body.clone(),
        };
        Self { src: self.dst, dst: self.src, hops: 64, body, fragment: (0, false) }
    }

    /// What its sender is told when it is refused: a RST for TCP, port unreachable for the rest.
    ///
    /// # Panics
    /// For packets that are neither TCP nor UDP.
    pub fn refusal(&self) -> Self {
        let to = packet(self.dst, self.src);
        match self.body {
            Body::Tcp(sport, dport, flags, _) => {
                let flags = if flags & ACK == 0 { RST | ACK } else { RST };
                Self { body: Body::Tcp(dport, sport, flags, Vec::new()), ..to }
            }
            Body::Sctp(sport, dport, chunk, _) => {
                let chunk = if chunk == SHUTDOWN_ACK { SHUTDOWN_COMPLETE } else { ABORT };
                Self { body: Body::Sctp(dport, sport, chunk, Vec::new()), ..to }
            }
            Body::Udp(..) if self.src.is_ipv4() => to.error(3, 3, self, 28),
            Body::Udp(..) => to.error(1, 4, self, 48),
            _ => panic!("nobody refuses {self:?}"),
        }
    }

    fn protocol(&self) -> u8 {
        match (&self.body, self.src.is_ipv4()) {
            (Body::Tcp(..), _) => 6,
            (Body::Udp(..), _) => 17,
            (Body::Sctp(..), _) => 132,
            (Body::Echo(..) | Body::Error(..), true) => 1,
            (Body::Echo(..) | Body::Error(..), false) => 58,
            (Body::Other(number, _), _) => *number,
        }
    }

    /// The frame, with right checksums.
    pub fn bytes(&self) -> Vec<u8> {
        let body = self.body_bytes();
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                frame.extend([0x08, 0x00]);
                let total = (20 + body.len()) as u16;
                let mut header = vec![0x45, 0];
                header.extend(total.to_be_bytes());
                header.extend([0x12, 0x34]);
                let (offset, more) = self.fragment;
                header.extend((offset | if more { 0x2000 } else { 0 }).to_be_bytes());
                header.extend([self.hops, self.protocol(), 0, 0]);
                header.extend(src.octets());
                header.extend(dst.octets());
                let sum = checksum(&header, 0);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                frame.extend(header);
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                let (offset, more) = self.fragment;
                let fragmented = self.fragment != (0, false);
                let length = body.len() + if fragmented { 8 } else { 0 };
                frame.extend((length as u16).to_be_bytes());
                frame.extend([if fragmented { 44 } else { self.protocol() }, self.hops]);
                frame.extend(src.octets());
                frame.extend(dst.octets());
                if fragmented {
                    frame.extend([self.protocol(), 0]);
                    frame.extend(((offset << 3) | u16::from(more)).to_be_bytes());
                    frame.extend([0, 0, 0x12, 0x34]);
                }
            }
            _ => panic!("source and destination are of one family"),
        }
        frame.extend(body);
        frame
    }

    fn body_bytes(&self) -> Vec<u8> {
        let (mut bytes, at) = match &self.body {
            Body::Tcp(sport, dport, flags, data) => {
                let mut bytes = Vec::new();
                bytes.extend(sport.to_be_bytes());
                bytes.extend(dport.to_be_bytes());
                bytes.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, *flags, 0x20, 0, 0, 0, 0, 0]);
                bytes.extend(data);
                (bytes, 16)
            }
            Body::Udp(sport, dport, data) => {
                let mut bytes = Vec::new();
                bytes.extend(sport.to_be_bytes());
                bytes.extend(dport.to_be_bytes());
                bytes.extend(((8 + data.len()) as u16).to_be_bytes());
                bytes.extend([0, 0]);
                bytes.extend(data);
                (bytes, 6)
            }
            Body::Echo(request, id) => {
                let kind = match (self.src.is_ipv4(), request) {
                    (true, true) => 8,
                    (true, false) => 0,
                    (false, true) => 128,
                    (false, false) => 129,
                };
                let mut bytes = vec![kind, 0, 0, 0];
                bytes.extend(id.to_be_bytes());
                bytes.extend([0, 1]);
                bytes.extend(b"ping");
                (bytes, 2)
            }
            Body::Error(kind, code, inside) => {
                let mut bytes = vec![*kind, *code, 0, 0, 0, 0, 0, 0];
                bytes.extend(inside);
                (bytes, 2)
            }
            Body::Sctp(sport, dport, chunk, data) => return sctp_bytes(*sport, *dport, *chunk, data),
            Body::Other(_, data) => return data.clone(),
        };
        let sum = checksum(&bytes, self.pseudo(bytes.len()));
        bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    fn pseudo(&self, length: usize) -> u32 {
        if matches!(self.body, Body::Echo(..) | Body::Error(..)) && self.src.is_ipv4() {
            return 0;
        }
        let octets = |ip: IpAddr| match ip {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let addresses = [octets(self.src), octets(self.dst)].concat();
        sum(&addresses, 0) + length as u32 + u32::from(self.protocol())
    }

    /// Reads a frame back; a wrong checksum is an error.
    pub fn read(frame: &[u8]) -> Result<Self> {
        let packet = Self::read_unchecked(frame)?;
        if !matches!(packet.body, Body::Other(..)) && packet.fragment == (0, false) {
            let (.., body) = headers(frame)?;
            let right = match packet.body {
                Body::Sctp(..) => crc32c(&zeroed(body)).to_le_bytes() == body[8..12],
                _ => checksum(body, packet.pseudo(body.len())) == 0,
            };
            ensure!(right, "wrong transport checksum in {packet:?}");
        }
        Ok(packet)
    }

    /// Reads a frame back without looking at its transport checksum, and with as much data as there is.
    fn read_unchecked(frame: &[u8]) -> Result<Self> {
        let (src, dst, hops, fragment, proto, body) = headers(frame)?;
        let port = |at: usize| -> Result<u16> {
            let bytes = body.get(at..at + 2).context("the packet ends inside its ports")?;
            Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
        };
        let parsed = match proto {
            6 => {
                let flags = body.get(13).copied().unwrap_or(0);
                Body::Tcp(port(0)?, port(2)?, flags, body.get(20..).unwrap_or_default().to_vec())
            }
            17 => Body::Udp(port(0)?, port(2)?, body.get(8..).unwrap_or_default().to_vec()),
            132 if body.len() >= 16 => Body::Sctp(port(0)?, port(2)?, body[12], body[16..].to_vec()),
            1 | 58 if matches!(body[0], 8 | 128) => Body::Echo(true, port(4)?),
            1 | 58 if matches!(body[0], 0 | 129) => Body::Echo(false, port(4)?),
            1 if body[0] == 3 => Body::Error(3, body[1], body[8..].to_vec()),
            58 if body[0] < 128 => Body::Error(body[0], body[1], body[8..].to_vec()),
            _ => Body::Other(proto, body.to_vec()),
        };
        Ok(Self { src, dst, hops, body: parsed, fragment })
    }
}

fn sctp_bytes(sport: u16, dport: u16, chunk: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(sport.to_be_bytes());
    bytes.extend(dport.to_be_bytes());
    bytes.extend([0xaa, 0xbb, 0xcc, 0xdd, 0, 0, 0, 0, chunk, 0]);
    bytes.extend((4 + data.len() as u16).to_be_bytes());
    bytes.extend(data);
    let sum = crc32c(&bytes);
    bytes[8..12].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// An SCTP packet as its checksum is computed: with zeros in its place.
fn zeroed(body: &[u8]) -> Vec<u8> {
    let mut bytes = body.to_vec();
    bytes[8..12].fill(0);
    bytes
}

/// RFC 9260, appendix A, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(
            sum ^ u32::from(*byte),
            |sum, _| {
                if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 }
            },
        )
    })
}

type Parts<'a> = (IpAddr, IpAddr, u8, (u16, bool), u8, &'a [u8]);

fn headers(frame: &[u8]) -> Result<Parts<'_>> {
    let ip = &frame[14..];
    match u16::from_be_bytes([frame[12], frame[13]]) {
        0x0800 => read_v4(ip),
        0x86dd => read_v6(ip),
        other => bail!("ethertype {other:#x}"),
    }
}

fn read_v4(ip: &[u8]) -> Result<Parts<'_>> {
    ensure!(checksum(&ip[..20], 0) == 0, "wrong IPv4 header checksum");
    let address = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&ip[at..at + 4]).expect("four bytes"));
    let offset = u16::from_be_bytes([ip[6], ip[7]]);
    let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    Ok((
        address(12),
        address(16),
        ip[8],
        (offset & 0x1fff, offset & 0x2000 != 0),
        ip[9],
        &ip[20..total.min(ip.len())],
    ))
}

fn read_v6(ip: &[u8]) -> Result<Parts<'_>> {
    let address = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&ip[at..at + 16]).expect("sixteen bytes"));
    let (mut proto, mut body, mut fragment) = (ip[6], &ip[40..], (0, false));
    if proto == 44 {
        proto = body[0];
        let offset = u16::from_be_bytes([body[2], body[3]]);
        fragment = (offset >> 3, offset & 1 != 0);
        body = &body[8..];
    }
    Ok((address(8), address(24), ip[7], fragment, proto, body))
}

fn sum(bytes: &[u8], seed: u32) -> u32 {
    bytes.chunks(2).fold(seed, |sum, pair| {
        sum + u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))
    })
}

fn checksum(bytes: &[u8], seed: u32) -> u16 {
    let mut total = sum(bytes, seed);
    while total >> 16 != 0 {
        total = (total & 0xffff) + (total >> 16);
    }
    !(total as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for (src, dst) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")] {
            let base = packet(src.parse().unwrap(), dst.parse().unwrap());
            for packet in [
                base.clone().tcp(1, 2, SYN),
                base.clone().udp(3, 4),
                base.clone().echo(true, 7),
                base.clone().sctp(1, 2, INIT),
                base.udp(5, 6).fragment(3, true),
            ] {
                assert_eq!(Packet::read(&packet.bytes()).unwrap(), packet);
            }
        }
    }

    #[test]
    fn the_crc_is_the_one_of_the_specification() {
        // RFC 3720, B.4: thirty-two bytes of zeros, and of ones.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn a_wrong_checksum_is_an_error() {
        let mut bytes = packet("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()).udp(1, 2).bytes();
        *bytes.last_mut().unwrap() ^= 1;
        assert!(Packet::read(&bytes).is_err());
    }
}
