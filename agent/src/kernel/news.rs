//! What the kernel tells by itself: links and addresses come and go.

use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc::UnboundedReceiver;
use rtnetlink::packet_core::NetlinkMessage;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::{MulticastGroup, sys::SocketAddr};

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
        if messages.next().await.is_none() {
            self.messages = None;
            return;
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
