//! An explanation in words.

use std::fmt::Write;
use std::net::SocketAddr;

use abi::drops::{DROPS, Drop};

use super::Explanation;
use crate::kernel::trial::Place;
use crate::oracle::{Ask, Client, Kind, Outcome, Packet, Set, Way};
use crate::probe::Live;

/// What `hawser-agent explain` prints.
pub fn text(explanation: &Explanation) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        writeln!(text, "{name:<12}{value}").expect("writing to a string succeeds");
    };
    line("from", &format!("{} ({})", explanation.src, explanation.client));
    line("to", &explanation.asked);
    line("service", explanation.service.as_deref().unwrap_or("none"));
    line("rules", &explanation.rules);
    line("live", &explanation.live);
    line("maps", explanation.maps.as_deref().unwrap_or("no row"));
    for backend in &explanation.backends {
        line("backend", &format!("{}  {}  {}", backend.address, way(backend.way), backend.egress));
    }
    line("nat", &explanation.nat);
    line("policy", &explanation.policy);
    if let Some(egress) = &explanation.egress {
        line("egress", egress);
    }
    if explanation.disagreements.is_empty() {
        line("agreement", "rules, maps and programs agree");
    }
    for disagreement in &explanation.disagreements {
        line("DISAGREE", disagreement);
    }
    text
}

/// What a packet asks for.
pub fn asked(packet: &Packet) -> String {
    match packet.ask {
        Ask::Port(protocol, port) => {
            format!("{} {}", SocketAddr::new(packet.dst, port), format!("{protocol:?}").to_uppercase())
        }
        Ask::Echo => format!("{} ping", packet.dst),
    }
}

/// What the rules say.
pub fn rules(outcome: &Outcome) -> String {
    match outcome {
        Outcome::NotAService => "no service: goes where the address leads".to_owned(),
        Outcome::Echo => "the ping is answered for the service".to_owned(),
        Outcome::Refused(reason) => format!("refused: {}", sentence(*reason)),
        Outcome::Dropped(reason) => format!("dropped: {}", sentence(*reason)),
        Outcome::Forwarded(to) => {
            let kind = match to.kind {
                Kind::ClusterIp => "virtual address",
                Kind::LoadBalancer => "load balancer address",
                Kind::ExternalIp => "external address",
                Kind::NodePort => "node port",
                Kind::HostPort => "host port of a pod",
            };
            let set = if to.set == Set::Local { "on this node" } else { "in the cluster" };
            let affinity =
                if to.affinity == 0 { String::new() } else { format!(", kept for {} s", to.affinity) };
            format!("{kind}: one of {} backends {set}{affinity}", to.backends.len())
        }
    }
}

/// What the programs did.
pub fn live(live: &Live) -> String {
    let because = |reasons: &[&str]| {
        if reasons.is_empty() { String::new() } else { format!(": {}", reasons.join(", ")) }
    };
    match live {
        Live::Untouched => "left alone".to_owned(),
        Live::Echo => "answered the ping".to_owned(),
        Live::Refused(reasons) => format!("refused{}", because(reasons)),
        Live::Dropped(reasons) => format!("dropped{}", because(reasons)),
        Live::Forwarded(backend, Way::Tunnelled) => format!("sent to {} in a tunnel", backend.ip()),
        Live::Forwarded(backend, how) => format!("sent to {backend}, {}", way(*how)),
        Live::Odd(what) => format!("something unknown: {what}"),
    }
}

/// Why no program was run.
pub fn not_run(client: Client) -> String {
    match client {
        Client::Host => {
            "not run: sockets are translated when they connect, which cannot be done for show".to_owned()
        }
        Client::Pod | Client::Outside => "not run: there is no device to run it for".to_owned(),
    }
}

/// What the maps hold.
pub fn place(place: &Place) -> String {
    let segment = |name: &str, segment: abi::service::Segment, members: usize| {
        let what = if segment.has_slots() { "slots" } else { "places" };
        format!("{name} {}+{} {what}, {members} backends", segment.base, segment.len())
    };
    let service = &place.service;
    format!(
        "service {}: {}; {}",
        place.frontend.service,
        segment("cluster", service.cluster, place.cluster.len()),
        segment("local", service.local, place.local.len())
    )
}

fn way(way: Way) -> &'static str {
    match way {
        Way::Kept => "source kept",
        Way::Hidden => "source hidden",
        Way::Tunnelled => "in a tunnel",
    }
}

fn sentence(reason: Drop) -> &'static str {
    DROPS.iter().find(|(number, ..)| *number == reason as u32).map_or("", |(_, _, sentence)| sentence)
}
