//! All that netlink tells of this network namespace, for a report of a fault.

use futures::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::RouteMessage;
use rtnetlink::IpVersion;

use super::{Netlink, failed};
use crate::kernel::KernelError;

impl Netlink {
    /// Links, addresses, routes, rules and neighbours: a name, and a line for each.
    pub fn everything(&self) -> Result<Vec<(&'static str, Vec<String>)>, KernelError> {
        Ok(vec![
            ("links", self.list("links", self.handle.link().get().execute())?),
            ("addresses", self.list("addresses", self.handle.address().get().execute())?),
            (
                "routes",
                self.both(|family| {
                    let mut filter = RouteMessage::default();
                    filter.header.address_family = family;
                    self.list("routes", self.handle.route().get(filter).execute())
                })?,
            ),
            (
                "rules",
                self.both(|family| {
                    let version = if family == AddressFamily::Inet { IpVersion::V4 } else { IpVersion::V6 };
                    self.list("rules", self.handle.rule().get(version).execute())
                })?,
            ),
            (
                "neighbours",
                self.both(|family| {
                    self.list(
                        "neighbours",
                        self.handle.neighbours().get().set_address_family(family).execute(),
                    )
                })?,
            ),
            ("forwarding", {
                let bridge = self.handle.neighbours().get().set_address_family(AddressFamily::Bridge);
                self.list("forwarding entries", bridge.execute())?
            }),
        ])
    }

    fn list<T: std::fmt::Debug>(
        &self,
        what: &str,
        messages: impl futures::TryStream<Ok = T, Error = rtnetlink::Error>,
    ) -> Result<Vec<String>, KernelError> {
        let list: Result<Vec<T>, _> = self.runtime.block_on(messages.try_collect());
        Ok(list
            .map_err(failed(format!("list {what}")))?
            .iter()
            .map(|message| format!("{message:?}"))
            .collect())
    }

    fn both(
        &self,
        list: impl Fn(AddressFamily) -> Result<Vec<String>, KernelError>,
    ) -> Result<Vec<String>, KernelError> {
        Ok([list(AddressFamily::Inet)?, list(AddressFamily::Inet6)?].concat())
    }
}
