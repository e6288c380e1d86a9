//! One event for people and programs, and which of them somebody wants to see.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use abi::event::kind;
use clap::Args;
use serde::{Deserialize, Serialize};

/// What a reader gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line {
    /// Something happened.
    Event(Box<Shown>),
    /// The reader was too slow for this many events.
    Lost(u64),
}

/// An event with names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// When.
    pub time: String,
    /// `drop`, `audit`, `begun`, `answered`, `ended`, `socket`.
    pub kind: String,
    /// Where in the kernel; empty where it does not matter.
    pub hook: String,
    /// Device, if there is one.
    pub device: Option<String>,
    /// Bytes of the packet.
    pub length: u32,
    /// Why it was dropped, or would have been.
    pub reason: Option<String>,
    /// Protocol.
    pub protocol: String,
    /// Source as it came.
    pub src: SocketAddr,
    /// Destination as it came.
    pub dst: SocketAddr,
    /// Where it went.
    pub backend: Option<SocketAddr>,
    /// The source it went under, if that is another.
    pub hidden_as: Option<SocketAddr>,
    /// `namespace/name:port`.
    pub service: Option<String>,
    /// `namespace/name` of the pods of this node that are involved.
    pub pods: Vec<String>,
    /// `namespace/name` of the NetworkPolicies of which no rule allows it.
    pub policies: Vec<String>,
    /// The rule of a ClusterNetworkPolicy that denies it, or `isolation` by those policies.
    pub rule: Option<String>,
}

/// What to show; everything that is given has to fit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, Args)]
pub struct Filter {
    /// Only drops, and what would be dropped if it were not audited.
    #[arg(long)]
    pub drops: bool,
    /// Only flows and sockets.
    #[arg(long)]
    pub flows: bool,
    /// Only this Service, `namespace/name` or `namespace/name:port`.
    #[arg(long)]
    pub service: Option<String>,
    /// Only what this pod of the node sends or gets, `namespace/name`.
    #[arg(long)]
    pub pod: Option<String>,
    /// Only what has this address at one end.
    #[arg(long)]
    pub ip: Option<IpAddr>,
    /// Only this protocol: `tcp`, `udp`, `sctp`, `icmp`.
    #[arg(long)]
    pub proto: Option<String>,
    /// Only this port at one end.
    #[arg(long)]
    pub port: Option<u16>,
}

impl Filter {
    /// The kinds of events the programs have to write for it.
    pub fn kinds(&self) -> u32 {
        let flows = kind::BEGUN | kind::ANSWERED | kind::ENDED | kind::SOCKET;
        match (self.drops, self.flows) {
            (true, false) => kind::DROP | kind::AUDIT,
            (false, true) => flows,
            _ => kind::DROP | kind::AUDIT | flows,
        }
    }

    /// Whether an event is wanted.
    pub fn wants(&self, event: &Shown) -> bool {
        let is_drop = matches!(event.kind.as_str(), "drop" | "audit");
        let kind = self.drops == self.flows || self.drops == is_drop;
        let ends = [Some(event.src), Some(event.dst), event.backend, event.hidden_as];
        let mut ends_of = ends.into_iter().flatten();
        let service = |wanted: &String| {
            event.service.as_ref().is_some_and(|own| {
                own == wanted || own.rsplit_once(':').is_some_and(|(service, _)| service == wanted)
            })
        };
        kind && self.service.as_ref().is_none_or(service)
            && self.pod.as_ref().is_none_or(|pod| event.pods.contains(pod))
            && self.proto.as_ref().is_none_or(|proto| event.protocol.eq_ignore_ascii_case(proto))
            && self.ip.is_none_or(|ip| ends_of.clone().any(|end| end.ip() == ip))
            && self.port.is_none_or(|port| ends_of.any(|end| end.port() == port))
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(count) => write!(f, "-- {count} events lost: this reader was too slow"),
            Self::Event(event) => event.fmt(f),
        }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:<8} {} {} -> {}", self.time, self.kind, self.protocol, self.src, self.dst)?;
        if let Some(backend) = self.backend {
            write!(f, " => {backend}")?;
        }
        if let Some(source) = self.hidden_as {
            write!(f, " as {source}")?;
        }
        if let Some(service) = &self.service {
            write!(f, "  service {service}")?;
        }
        if !self.pods.is_empty() {
            write!(f, "  pods {}", self.pods.join(", "))?;
        }
        if let Some(reason) = &self.reason {
            write!(f, "  {reason}")?;
        }
        if !self.policies.is_empty() {
            write!(f, "  policies {}", self.policies.join(", "))?;
        }
        if let Some(rule) = &self.rule {
            write!(f, "  {rule}")?;
        }
        match (&self.device, self.hook.as_str()) {
            (Some(device), hook) => write!(f, "  ({hook} {device}, {} bytes)", self.length),
            (None, "") => Ok(()),
            (None, hook) => write!(f, "  ({hook})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Shown {
        Shown {
            time: "12:00:00.000".into(),
            kind: "begun".into(),
            hook: String::new(),
            device: None,
            length: 60,
            reason: None,
            protocol: "TCP".into(),
            src: "10.244.1.2:40000".parse().unwrap(),
            dst: "10.96.0.10:80".parse().unwrap(),
            backend: Some("10.244.2.2:8080".parse().unwrap()),
            hidden_as: None,
            service: Some("shop/web:http".into()),
            pods: vec!["shop/client".into()],
            policies: Vec::new(),
            rule: None,
        }
    }

    #[test]
    fn everything_that_is_given_has_to_fit() {
        let all = Filter {
            flows: true,
            service: Some("shop/web".into()),
            pod: Some("shop/client".into()),
            ip: Some("10.244.2.2".parse().unwrap()),
            proto: Some("tcp".into()),
            port: Some(8080),
            ..Filter::default()
        };
        assert!(all.wants(&event()) && Filter::default().wants(&event()));
        for wrong in [
            Filter { drops: true, flows: false, ..all.clone() },
            Filter { service: Some("shop/we".into()), ..all.clone() },
            Filter { service: Some("shop/web:https".into()), ..all.clone() },
            Filter { pod: Some("shop/other".into()), ..all.clone() },
            Filter { ip: Some("10.244.2.3".parse().unwrap()), ..all.clone() },
            Filter { proto: Some("udp".into()), ..all.clone() },
            Filter { port: Some(81), ..all.clone() },
        ] {
            assert!(!wrong.wants(&event()), "{wrong:?}");
        }
        let both = Filter { drops: true, flows: true, ..Filter::default() };
        assert!(both.wants(&event()), "drops and flows are everything");
    }

    #[test]
    fn the_programs_write_only_what_somebody_reads() {
        assert_eq!(Filter { drops: true, ..Filter::default() }.kinds(), kind::DROP | kind::AUDIT);
        assert_eq!(Filter { flows: true, ..Filter::default() }.kinds() & kind::DROP, 0);
        assert_eq!(Filter::default().kinds(), 63);
    }

    #[test]
    fn a_line_says_who_went_where() {
        assert_eq!(
            event().to_string(),
            "12:00:00.000 begun    TCP 10.244.1.2:40000 -> 10.96.0.10:80 => 10.244.2.2:8080  service shop/web:http  pods \
             shop/client"
        );
        let drop = Shown {
            kind: "drop".into(),
            hook: "pod out".into(),
            device: Some("hw0".into()),
            reason: Some("the service has no backend".into()),
            backend: None,
            ..event()
        };
        assert!(drop.to_string().ends_with("the service has no backend  (pod out hw0, 60 bytes)"), "{drop}");
        assert_eq!(Line::Lost(3).to_string(), "-- 3 events lost: this reader was too slow");
    }
}
