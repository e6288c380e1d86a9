//! The queueing discipline a device sends by.

use futures::StreamExt;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};
use rtnetlink::packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;

use super::{Netlink, accept, failed};
use crate::kernel::KernelError;

/// `linux/pkt_sched.h`.
const TCA_OPTIONS: u16 = 2;
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
const TC_LINKLAYER_ETHERNET: u8 = 1;

/// How a device sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discipline {
    /// `fq`: every packet at the time it is stamped with.
    Stamps,
    /// `tbf`: all packets in a row, at a rate.
    Bucket(Bucket),
}

/// Parameters of `tbf`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// Bytes per second.
    pub rate: u64,
    /// Bytes that leave at once after a silence.
    pub burst: u32,
    /// Bytes that wait; who sends more is held up or loses it.
    pub limit: u32,
}

impl Netlink {
    /// Has the device send by a discipline.
    pub fn set_root_qdisc(&self, device: u32, discipline: Discipline) -> Result<(), KernelError> {
        let mut message = root(device);
        let (kind, options) = match discipline {
            Discipline::Stamps => ("fq", None),
            Discipline::Bucket(bucket) => ("tbf", Some(bucket.options())),
        };
        message.attributes.push(TcAttribute::Kind(kind.to_owned()));
        let options = options.map(|bytes| TcAttribute::Other(DefaultNla::new(TCA_OPTIONS, bytes)));
        message.attributes.extend(options);
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewQueueDiscipline(message));
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        let answers = async {
            let mut answers = self.handle.clone().request(request)?;
            while let Some(answer) = answers.next().await {
                match answer.payload {
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(rtnetlink::Error::NetlinkError(error));
                    }
                    _ => {}
                }
            }
            Ok(())
        };
        self.runtime.block_on(answers).map_err(failed(format!("have device {device} send by {kind}")))
    }

    /// Lets the device send by the kernel's own discipline again.
    pub fn delete_root_qdisc(&self, device: u32) -> Result<(), KernelError> {
        let mut request = self.handle.qdisc().del(device.cast_signed());
        *request.message_mut() = root(device);
        accept(
            self.runtime.block_on(request.execute()),
            // There is none but the kernel's own.
            &[libc::ENOENT, libc::EINVAL],
            format!("have device {device} send as it did"),
        )
    }
}

fn root(device: u32) -> TcMessage {
    let mut message = TcMessage::with_index(device.cast_signed());
    message.header.parent = TcHandle::ROOT;
    message
}

impl Bucket {
    /// Attributes, as `tbf_change` of the kernel reads them.
    fn options(self) -> Vec<u8> {
        // `struct tc_tbf_qopt`: the rate, a peak rate, then bytes that wait, ticks of the bucket (given as bytes below), MTU.
        let mut parameters = vec![0; 36];
        parameters[1] = TC_LINKLAYER_ETHERNET;
        let narrow = u32::try_from(self.rate).unwrap_or(u32::MAX);
        parameters[8..12].copy_from_slice(&narrow.to_ne_bytes());
        parameters[24..28].copy_from_slice(&self.limit.to_ne_bytes());
        [
            attribute(TCA_TBF_PARMS, &parameters),
            attribute(TCA_TBF_RATE64, &self.rate.to_ne_bytes()),
            attribute(TCA_TBF_BURST, &self.burst.to_ne_bytes()),
        ]
        .concat()
    }
}

/// `struct nlattr` and its value, whose length is a multiple of four.
pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len() + 4).expect("attributes are short");
    [&length.to_ne_bytes(), &kind.to_ne_bytes(), value].concat()
}
