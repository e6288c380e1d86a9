//! Asks the live programs what the oracle answers from the tables: one made-up packet, run and taken back.

pub mod frame;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use abi::flow::FlowKey;
use abi::service::AffinityKey;
use abi::{Addr16, Be16, Tuple, name};

use crate::kernel::KernelError;
use crate::kernel::trial::{Ran, Trial};
use crate::oracle::{Ask, Client, Outcome, Packet, Way};
use frame::{Kind, Seen};

/// `TC_ACT_SHOT`.
const SHOT: i32 = 2;
/// Where made-up flows come from: ports of clients, so that nobody is surprised by one.
const PORTS: std::ops::Range<u16> = 49_152..61_000;

/// What the programs did with a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Live {
    /// Nothing.
    Untouched,
    /// Answered in the name of the address.
    Echo,
    /// Told the client that it is not served; for these reasons, if the node is quiet.
    Refused(Vec<&'static str>),
    /// Dropped it, for these reasons, if the node is quiet.
    Dropped(Vec<&'static str>),
    /// Sent it to this backend; a tunnel hides the port.
    Forwarded(SocketAddr, Way),
    /// Something that is none of these.
    Odd(String),
}

/// Runs the program that would see `packet` first. Nothing is left behind but its counts.
pub fn ask(trial: &Trial, packet: &Packet, ifindex: u32) -> Result<Live, KernelError> {
    let program = match packet.client {
        Client::Outside => name::TC_UPLINK_IN,
        Client::Pod | Client::Host => name::TC_POD_OUT,
    };
    let (sport, key) = unused(trial, packet)?;
    let service = place(packet).map(|key| trial.place(&key)).transpose()?.flatten();
    let affinity = service
        .map(|place| AffinityKey { client: Addr16::from(packet.src), service: place.frontend.service });
    let kept = affinity.as_ref().map(|key| trial.affinity(key)).transpose()?;
    let ran = trial.run(program, ifindex, &frame::first(packet, sport));
    trial.forget(&key)?;
    if let (Some(key), Some(kept)) = (affinity, kept) {
        trial.restore(&key, kept)?;
    }
    Ok(read(&ran?, packet, sport))
}

/// The frontend a packet asks for.
pub fn place(packet: &Packet) -> Option<abi::service::FrontendKey> {
    let Ask::Port(protocol, port) = packet.ask else {
        return None;
    };
    Some(abi::service::FrontendKey {
        addr: Addr16::from(packet.dst),
        port: Be16::new(port),
        proto: protocol.number(),
        zero: 0,
    })
}

/// A source port without a flow, and the key of the flow it will make.
fn unused(trial: &Trial, packet: &Packet) -> Result<(u16, FlowKey), KernelError> {
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.subsec_nanos());
    let many = u32::from(PORTS.end - PORTS.start);
    let mut candidate = (PORTS.start, key(packet, PORTS.start));
    for attempt in 0..64 {
        let port = PORTS.start + (seed.wrapping_add(attempt * 7919) % many) as u16;
        candidate = (port, key(packet, port));
        if trial.flow(&candidate.1)?.is_none() {
            break;
        }
    }
    Ok(candidate)
}

fn key(packet: &Packet, sport: u16) -> FlowKey {
    let (proto, dport) = match packet.ask {
        Ask::Port(protocol, port) => (protocol.number(), port),
        Ask::Echo => (if packet.src.is_ipv4() { 1 } else { 58 }, 0),
    };
    let tuple = Tuple {
        src: Addr16::from(packet.src),
        dst: Addr16::from(packet.dst),
        sport: Be16::new(sport),
        dport: Be16::new(dport),
    };
    FlowKey { tuple, proto, zero: [0; 3] }
}

fn read(ran: &Ran, packet: &Packet, sport: u16) -> Live {
    if ran.code == SHOT {
        return Live::Dropped(ran.drops.clone());
    }
    let Some(seen) = frame::read(&ran.frame) else {
        return Live::Odd(format!("a frame that is no packet, code {}", ran.code));
    };
    let goes_back = seen.dst == packet.src && seen.src == packet.dst;
    match seen.kind {
        Kind::Reset | Kind::Unreachable if goes_back => Live::Refused(ran.drops.clone()),
        Kind::EchoReply if goes_back => Live::Echo,
        Kind::Tunnel => Live::Forwarded(SocketAddr::new(seen.dst, 0), Way::Tunnelled),
        _ if seen == before(packet, sport) => Live::Untouched,
        Kind::Plain => {
            let way = if seen.src == packet.src { Way::Kept } else { Way::Hidden };
            Live::Forwarded(SocketAddr::new(seen.dst, seen.dport), way)
        }
        _ => Live::Odd(format!("{seen:?}, code {}", ran.code)),
    }
}

fn before(packet: &Packet, sport: u16) -> Seen {
    let (sport, dport) = match packet.ask {
        Ask::Port(_, port) => (sport, port),
        Ask::Echo => (0, 0),
    };
    Seen { src: packet.src, dst: packet.dst, sport, dport, kind: Kind::Plain }
}

/// What is wrong, if the programs did what the oracle does not allow.
pub fn disagreement(oracle: &Outcome, live: &Live) -> Option<String> {
    let reason = |reasons: &[&str], reason: abi::drops::Drop| {
        reasons.is_empty() || reasons.contains(&format!("{reason:?}").as_str())
    };
    let agrees = match (oracle, live) {
        (Outcome::NotAService, Live::Untouched) | (Outcome::Echo, Live::Echo) => true,
        (Outcome::Refused(want), Live::Refused(got)) => reason(got, *want),
        (Outcome::Dropped(want), Live::Dropped(got)) => reason(got, *want),
        (Outcome::Forwarded(to), Live::Forwarded(backend, way @ Way::Tunnelled)) => {
            to.backends.iter().any(|(own, own_way)| own.ip() == backend.ip() && own_way == way)
        }
        (Outcome::Forwarded(to), Live::Forwarded(backend, way)) => to.backends.get(backend) == Some(way),
        _ => false,
    };
    (!agrees).then(|| format!("the rules say {oracle:?}, the programs did {live:?}"))
}

/// Whether a refusal was only not sent, because too many were in the last second.
pub fn is_muted(oracle: &Outcome, live: &Live) -> bool {
    match (oracle, live) {
        (Outcome::Refused(want), Live::Dropped(got)) => got.contains(&format!("{want:?}").as_str()),
        _ => false,
    }
}

/// Backends of the maps against those of the oracle: for clients whose hooks cannot be run for show.
pub fn rows_disagree(oracle: &Outcome, rows: &BTreeSet<SocketAddr>) -> Option<String> {
    let want: BTreeSet<SocketAddr> = match oracle {
        Outcome::Forwarded(to) => to.backends.keys().copied().collect(),
        _ => BTreeSet::new(),
    };
    (want != *rows).then(|| format!("the rules say {want:?}, the maps hold {rows:?}"))
}
