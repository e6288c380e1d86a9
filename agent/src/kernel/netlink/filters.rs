//! Filters of TC that are eBPF programs.

use futures::TryStreamExt;
use netlink_packet_route::tc::{TcAttribute, TcFilterBpfOption, TcMessage, TcOption};

use super::{Netlink, failed};
use crate::kernel::KernelError;

/// A program that hangs on a device as a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The program's name.
    pub program: String,
    /// Whether it sees what comes in.
    pub ingress: bool,
}

impl Netlink {
    /// The programs that hang on a device as filters.
    pub fn filters(&self, device: u32) -> Result<Vec<Filter>, KernelError> {
        let mut all = Vec::new();
        for ingress in [true, false] {
            let list = self.handle.traffic_filter(device.cast_signed()).get();
            let list = if ingress { list.ingress() } else { list.egress() };
            let list = self.runtime.block_on(list.execute().try_collect::<Vec<_>>());
            let list = list.map_err(failed(format!("list the filters of device {device}")))?;
            all.extend(list.iter().flat_map(programs).map(|program| Filter { program, ingress }));
        }
        Ok(all)
    }
}

fn programs(message: &TcMessage) -> impl Iterator<Item = String> {
    let options = message.attributes.iter().filter_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    });
    options.flatten().filter_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => Some(name.clone()),
        _ => None,
    })
}
