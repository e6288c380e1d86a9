//! What the kernel tells by itself: links and addresses come and go.

use std::net::IpAddr;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc::UnboundedReceiver;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::{MulticastGroup, sys::SocketAddr};

use crate::desired::endpoints::LINK_PREFIX;

/// How long a change is waited for to be joined by others: an address rarely comes alone.
const SETTLING: Duration = Duration::from_millis(50);

/// News of links and addresses.
pub struct News {
    messages: Option<UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>>,
}

impl News {
    /// Listens in the network namespace of the calling thread. Where that cannot be, there is never any news.
    pub fn listen() -> Self {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let messages = match rtnetlink::new_multicast_connection(&groups) {
            Ok((connection, _, messages)) => {
                tokio::spawn(connection);
                Some(messages)
            }
            Err(error) => {
                tracing::error!(%error, "links and addresses are followed by looking from time to time only");
                None
            }
        };
        Self { messages }
    }

    /// Waits for news and for those that come right after.
    pub async fn told(&mut self) {
        let Some(messages) = &mut self.messages else { return std::future::pending().await };
        loop {
            match messages.next().await {
                None => {
                    self.messages = None;
                    return;
                }
                Some((message, _)) if matters(&message.payload) => break,
                Some(_) => {}
            }
        }
        let quiet = tokio::time::sleep(SETTLING);
        tokio::pin!(quiet);
        loop {
            tokio::select! {
                () = &mut quiet => return,
                message = messages.next() => if message.is_none() { return },
            }
        }
    }
}

/// Whether it is about more than links of pods and addresses that mean nothing beyond one link: those come and go all the time.
fn matters(payload: &NetlinkPayload<RouteNetlinkMessage>) -> bool {
    let NetlinkPayload::InnerMessage(message) = payload else { return true };
    match message {
        RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link) => {
            let of_pod = |attribute: &LinkAttribute| {
                matches!(attribute, LinkAttribute::IfName(name) if name.starts_with(LINK_PREFIX))
            };
            !link.attributes.iter().any(of_pod)
        }
        RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
            !address.attributes.iter().any(|attribute| {
                matches!(attribute, AddressAttribute::Address(IpAddr::V6(v6)) if v6.is_unicast_link_local())
            })
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::address::AddressMessage;
    use rtnetlink::packet_route::link::LinkMessage;

    use super::*;

    #[test]
    fn links_of_pods_and_addresses_of_links_are_no_news() {
        let link = |name: &str| {
            let mut message = LinkMessage::default();
            message.attributes.push(LinkAttribute::IfName(name.to_owned()));
            matters(&NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(message)))
        };
        let address = |text: &str| {
            let mut message = AddressMessage::default();
            message.attributes.push(AddressAttribute::Address(text.parse().unwrap()));
            matters(&NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(message)))
        };
        assert_eq!([link("eth0"), link("hawser-vxlan"), link("hw0123456789ab")], [true, true, false]);
        assert_eq!([address("192.0.2.1"), address("2001:db8::1"), address("fe80::1")], [true, true, false]);
    }
}
