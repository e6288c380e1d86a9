//! Filters of TC that are eBPF programs.

use std::os::fd::{AsRawFd, BorrowedFd};

use futures::TryStreamExt;
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcMessage, TcOption,
};
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage;

use super::requests::Requests;
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

/// A program that is to hang on a device as a filter.
#[derive(Debug, Clone, Copy)]
pub struct NewFilter<'a> {
    /// The program's name.
    pub program: &'static str,
    /// The loaded program.
    pub fd: BorrowedFd<'a>,
    /// Whether it sees what comes in.
    pub ingress: bool,
    /// Its place among the filters of the device.
    pub priority: u16,
    /// Its number among those of its priority.
    pub handle: u32,
}

impl Requests {
    /// Hangs programs on a device that has no place for filters yet.
    pub fn add_filters(&mut self, device: u32, filters: &[NewFilter<'_>]) {
        if filters.is_empty() {
            return;
        }
        let mut place = TcMessage::with_index(device.cast_signed());
        place.header.parent = TcHandle::CLSACT;
        place.header.handle = TcHandle { major: TcHandle::CLSACT.major, minor: 0 };
        place.attributes = vec![TcAttribute::Kind("clsact".to_owned())];
        let action = format!("make a place for filters on device {device}");
        self.add(RouteNetlinkMessage::NewQueueDiscipline(place), NLM_F_CREATE | NLM_F_EXCL, action);
        for filter in filters {
            let action = format!("attach program {} to device {device}", filter.program);
            let message = RouteNetlinkMessage::NewTrafficFilter(filter.message(device));
            self.add(message, NLM_F_CREATE | NLM_F_EXCL, action);
        }
    }
}

impl NewFilter<'_> {
    fn message(&self, device: u32) -> TcMessage {
        let minor = if self.ingress { TcHandle::MIN_INGRESS } else { TcHandle::MIN_EGRESS };
        let mut message = TcMessage::with_index(device.cast_signed());
        message.header.parent = TcHandle { major: TcHandle::CLSACT.major, minor };
        message.header.handle = TcHandle::from(self.handle);
        let every_protocol = (libc::ETH_P_ALL as u16).to_be();
        message.header.info = u32::from(self.priority) << 16 | u32::from(every_protocol);
        let options = [
            TcFilterBpfOption::ProgFd(self.fd.as_raw_fd().cast_unsigned()),
            TcFilterBpfOption::ProgName(self.program.to_owned()),
            TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
        ];
        let options = options.into_iter().map(TcOption::Bpf).collect();
        message.attributes =
            vec![TcAttribute::Kind(TcFilterBpf::KIND.to_owned()), TcAttribute::Options(options)];
        message
    }
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
