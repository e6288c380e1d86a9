//! Parsing: from a frame to addresses, ports and what kind of packet it is.

use abi::drops::Drop;
use abi::flow::FlowKey;
use abi::{Addr16, Be16, Tuple};
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::programs::TcContext;

use crate::bytes::{Bytes, get};
use crate::maps::work;
use crate::verdict::{decode, encode};
use crate::{key, sctp};

pub const ETHERNET: usize = 14;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMP: u8 = 1;
pub const ICMPV6: u8 = 58;
pub const SCTP: u8 = 132;

pub const ETH_P_IP: u16 = 0x0800;
const ETH_P_ARP: u16 = 0x0806;
const FRAGMENT: u8 = 44;
pub const ETH_P_IPV6: u16 = 0x86dd;
const AUTHENTICATION: u8 = 51;
/// Extension headers that are followed before the packet is given up.
const EXTENSIONS: usize = 8;
/// Bit of TCP's flags byte.
pub const FIN: u32 = 1;
pub const SYN: u32 = 2;
pub const RST: u32 = 4;
pub const ACK: u32 = 16;

/// What kind of frame arrived.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    Ip,
    Arp,
    Other,
}

/// Which part of a datagram this is.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Part {
    Whole,
    /// The first fragment has ports; the others follow without.
    First,
    Later,
}

/// An IP packet. Ports are zero for protocols without ports.
#[repr(C)]
pub struct Packet {
    /// The packet's tuple and protocol.
    pub key: FlowKey,
    /// Offset of the transport header.
    pub l4: u32,
    pub part: Part,
    pub ports: Ports,
    /// One for IPv4, zero for IPv6.
    pub family: u32,
    /// Identification, as it lies in the header; only of fragments.
    pub id: u32,
    pub tcp_flags: u32,
    pub plain: Plain,
    /// TTL or hop limit; only of plain packets.
    pub hops: u32,
    /// Length of the transport header; only of plain packets.
    pub header: u32,
    /// Length of the transport header and what follows, as the IP header says.
    pub length: u32,
}

/// Whether all headers are as most packets have them: TCP, UDP or SCTP right behind an IP header without options, not a fragment.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Plain {
    No,
    Yes,
}

/// Where the numbers that tell flows apart are.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Ports {
    /// TCP, UDP and SCTP: source and destination at the start of the header.
    Pair,
    /// ICMP echo: the identifier stands for the port of the side that asked.
    EchoRequest,
    EchoReply,
    /// An ICMP error: the packet it is about follows.
    Error,
    /// There are some behind headers that nobody has followed.
    Unread,
    None,
}

impl Packet {
    #[inline(always)]
    pub fn v4(&self) -> bool {
        self.family == 1
    }

    #[inline(always)]
    pub fn proto(&self) -> u8 {
        self.key.proto
    }

    #[inline(always)]
    pub fn tuple(&self) -> &Tuple {
        &self.key.tuple
    }

    /// Whether the protocol has connections, which say themselves when they begin and end.
    #[inline(always)]
    pub fn is_connection(&self) -> bool {
        matches!(self.key.proto, TCP | SCTP)
    }

    /// Whether it says that it begins something: such a packet answers nobody.
    #[inline(always)]
    pub fn asks(&self) -> bool {
        let begins = self.is_connection() && self.tcp_flags & (SYN | ACK) == SYN;
        begins || matches!(self.ports, Ports::EchoRequest)
    }

    /// Whether a service can be asked for by this packet.
    #[inline(always)]
    pub fn has_ports(&self) -> bool {
        matches!(self.ports, Ports::Pair)
    }

    #[inline(always)]
    pub fn is_fragment(&self) -> bool {
        !matches!(self.part, Part::Whole)
    }
}

/// Reads the headers of a plain packet, in place; answers whether it is one.
#[inline(always)]
pub fn parse_plain<B: Bytes>(bytes: &B, packet: &mut Packet) -> bool {
    packet.part = Part::Whole;
    let read = match bytes.ethertype() {
        ETH_P_IP => plain_v4(bytes, packet),
        ETH_P_IPV6 => plain_v6(bytes, packet),
        _ => None,
    };
    packet.plain = if read.is_some() { Plain::Yes } else { Plain::No };
    read.is_some()
}

/// Start of the packet, if its first `length` bytes are there to be read.
#[inline(always)]
fn reach<B: Bytes>(bytes: &B, length: usize) -> Option<usize> {
    let (start, end) = bytes.range();
    if start + length <= end {
        return Some(start);
    }
    if !bytes.pull(length as u32) {
        return None;
    }
    let (start, end) = bytes.range();
    if start + length <= end { Some(start) } else { None }
}

#[inline(always)]
fn plain_v4<B: Bytes>(bytes: &B, packet: &mut Packet) -> Option<()> {
    const L4: usize = ETHERNET + 20;
    let start = reach(bytes, L4 + 8)?;
    // SAFETY: `reach` has compared with the end.
    unsafe {
        let version: u8 = get(start + ETHERNET);
        let fragment: u16 = get(start + ETHERNET + 6);
        if version != 0x45 || fragment & 0x3fff_u16.to_be() != 0 {
            return None;
        }
        packet.family = 1;
        packet.length = u32::from(u16::from_be(get(start + ETHERNET + 2))).wrapping_sub(20);
        packet.hops = u32::from(get::<u8>(start + ETHERNET + 8));
        let proto: u8 = get(start + ETHERNET + 9);
        let [src, dst]: [u32; 2] = [get(start + ETHERNET + 12), get(start + ETHERNET + 16)];
        let ports: u32 = get(start + L4);
        key::put(&mut packet.key, [0, key::v4(src), 0, key::v4(dst), key::last(ports, proto)]);
    }
    plain_transport::<B, L4>(bytes, packet)
}

#[inline(always)]
fn plain_v6<B: Bytes>(bytes: &B, packet: &mut Packet) -> Option<()> {
    const L4: usize = ETHERNET + 40;
    let start = reach(bytes, L4 + 8)?;
    // SAFETY: `reach` has compared with the end.
    unsafe {
        packet.family = 0;
        packet.length = u32::from(u16::from_be(get(start + ETHERNET + 4)));
        let proto: u8 = get(start + ETHERNET + 6);
        packet.hops = u32::from(get::<u8>(start + ETHERNET + 7));
        let [src, dst] = [start + ETHERNET + 8, start + ETHERNET + 24];
        let ports: u32 = get(start + L4);
        key::put(&mut packet.key, [get(src), get(src + 8), get(dst), get(dst + 8), key::last(ports, proto)]);
    }
    plain_transport::<B, L4>(bytes, packet)
}

#[inline(always)]
fn plain_transport<B: Bytes, const L4: usize>(bytes: &B, packet: &mut Packet) -> Option<()> {
    if !matches!(packet.key.proto, TCP | UDP | SCTP) {
        return None;
    }
    packet.ports = Ports::Pair;
    packet.l4 = L4 as u32;
    packet.tcp_flags = 0;
    packet.header = 8;
    if packet.key.proto == TCP {
        let start = reach(bytes, L4 + 20)?;
        // SAFETY: `reach` has compared with the end.
        let (offset, flags): (u8, u8) = unsafe { (get(start + L4 + 12), get(start + L4 + 13)) };
        packet.header = u32::from(offset >> 4) * 4;
        packet.tcp_flags = u32::from(flags);
    } else if packet.key.proto == SCTP {
        let start = reach(bytes, L4 + sctp::HEAD)?;
        packet.header = 12;
        // SAFETY: as above.
        packet.tcp_flags = sctp::flags(unsafe { get(start + L4 + 12) });
    }
    Some(())
}

/// Reads the headers of a packet that [`parse_plain`] has given up.
#[inline(always)]
pub fn parse(ctx: &TcContext, packet: &mut Packet) -> Result<Frame, Drop> {
    if matches!(packet.plain, Plain::Yes) {
        return Ok(Frame::Ip);
    }
    Ok(match decode(parse_skb(ctx.skb.skb))? {
        0 => Frame::Ip,
        1 => Frame::Arp,
        _ => Frame::Other,
    })
}

/// Verified by itself.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn parse_skb(skb: *mut __sk_buff) -> i32 {
    let parsed = work()
        .ok_or(Drop::FlowTable)
        .and_then(|work| parse_any(&TcContext::new(skb), &mut work.packet))
        .map(|frame| match frame {
            Frame::Ip => 0,
            Frame::Arp => 1,
            Frame::Other => 2,
        });
    encode(parsed)
}

#[inline(always)]
fn parse_any(ctx: &TcContext, packet: &mut Packet) -> Result<Frame, Drop> {
    packet.tcp_flags = 0;
    packet.ports = Ports::None;
    match u16::from_be(ctx.skb.protocol() as u16) {
        ETH_P_IP => parse_v4(ctx, packet)?,
        ETH_P_IPV6 => parse_v6(ctx, packet)?,
        ETH_P_ARP => return Ok(Frame::Arp),
        _ => return Ok(Frame::Other),
    }
    ports(ctx, packet)?;
    Ok(Frame::Ip)
}

#[inline(always)]
fn load<const N: usize>(ctx: &TcContext, offset: usize) -> Result<[u32; N], Drop> {
    ctx.load::<[u32; N]>(offset).map_err(|_| Drop::Truncated)
}

#[inline(always)]
fn parse_v4(ctx: &TcContext, packet: &mut Packet) -> Result<(), Drop> {
    let header: [u32; 5] = load(ctx, ETHERNET)?;
    let fragment = u16::from_be((header[1] >> 16) as u16);
    let length = (header[0] & 0x0f) * 4;
    if length < 20 {
        return Err(Drop::Truncated);
    }
    packet.part = match (fragment & 0x1fff, fragment & 0x2000) {
        (0, 0) => Part::Whole,
        (0, _) => Part::First,
        _ => Part::Later,
    };
    packet.length = u32::from(u16::from_be((header[0] >> 16) as u16)).wrapping_sub(length);
    packet.id = header[1] & 0xffff;
    packet.key.tuple.src = Addr16::from_v4_word(header[3]);
    packet.key.tuple.dst = Addr16::from_v4_word(header[4]);
    packet.key.set_proto((header[2] >> 8) as u8);
    packet.l4 = ETHERNET as u32 + length;
    packet.family = 1;
    Ok(())
}

#[inline(always)]
fn parse_v6(ctx: &TcContext, packet: &mut Packet) -> Result<(), Drop> {
    let header: [u32; 10] = load(ctx, ETHERNET)?;
    packet.key.tuple.src = Addr16::from_words([header[2], header[3], header[4], header[5]]);
    packet.key.tuple.dst = Addr16::from_words([header[6], header[7], header[8], header[9]]);
    packet.family = 0;
    let mut proto = (header[1] >> 16) as u8;
    let mut l4 = ETHERNET as u32 + 40;
    for _ in 0..EXTENSIONS {
        if !is_extension(proto) {
            break;
        }
        let next: [u32; 2] = load(ctx, l4 as usize)?;
        let bytes = next[0].to_ne_bytes();
        if proto == FRAGMENT {
            let fragment = u16::from_be_bytes([bytes[2], bytes[3]]);
            if fragment & 0xfff8 != 0 {
                packet.part = Part::Later;
            } else if fragment & 1 != 0 {
                packet.part = Part::First;
            }
            packet.id = next[1];
            l4 += 8;
        } else if proto == AUTHENTICATION {
            l4 += (u32::from(bytes[1]) + 2) * 4;
        } else {
            l4 += 8 + u32::from(bytes[1]) * 8;
        }
        proto = bytes[0];
        if matches!(packet.part, Part::Later) {
            break;
        }
    }
    if is_extension(proto) {
        packet.ports = Ports::Unread;
    }
    packet.key.set_proto(proto);
    packet.l4 = l4;
    packet.length = u32::from(u16::from_be(header[1] as u16)).wrapping_sub(l4 - (ETHERNET as u32 + 40));
    Ok(())
}

/// Hop-by-hop, routing, fragment, authentication, destination options, mobility, HIP, Shim6.
#[inline(always)]
fn is_extension(proto: u8) -> bool {
    matches!(proto, 0 | 43 | FRAGMENT | AUTHENTICATION | 60 | 135 | 139 | 140)
}

/// Reads the ports, where there are any.
#[inline(always)]
fn ports(ctx: &TcContext, packet: &mut Packet) -> Result<(), Drop> {
    packet.key.tuple.sport = Be16::new(0);
    packet.key.tuple.dport = Be16::new(0);
    if matches!(packet.part, Part::Later) {
        return Ok(());
    }
    let l4 = packet.l4 as usize;
    match packet.key.proto {
        TCP | UDP | SCTP => {
            let ports: [u32; 1] = load(ctx, l4)?;
            packet.key.tuple.sport = Be16 { be: ports[0] as u16 };
            packet.key.tuple.dport = Be16 { be: (ports[0] >> 16) as u16 };
            packet.ports = Ports::Pair;
            if packet.key.proto == TCP {
                let flags: u8 = ctx.load(l4 + 13).map_err(|_| Drop::Truncated)?;
                packet.tcp_flags = u32::from(flags);
            } else if packet.key.proto == SCTP {
                let chunk: u8 = ctx.load(l4 + 12).map_err(|_| Drop::Truncated)?;
                packet.tcp_flags = sctp::flags(chunk);
            }
        }
        ICMP | ICMPV6 => {
            let echo: [u32; 2] = load(ctx, l4)?;
            let id = Be16 { be: echo[1] as u16 };
            match (packet.key.proto, echo[0] as u8) {
                (ICMP, 8) | (ICMPV6, 128) => {
                    packet.key.tuple.sport = id;
                    packet.ports = Ports::EchoRequest;
                }
                (ICMP, 0) | (ICMPV6, 129) => {
                    packet.key.tuple.dport = id;
                    packet.ports = Ports::EchoReply;
                }
                (ICMP, 3 | 11 | 12) | (ICMPV6, 1..=4) => packet.ports = Ports::Error,
                _ => {}
            }
        }
        _ => {}
    }
    Ok(())
}
