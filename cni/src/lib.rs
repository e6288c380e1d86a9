//! The CNI 1.1 front end and the protocol it speaks with the agent.

pub mod answer;
pub mod client;
pub mod front_end;
pub mod loopback;
pub mod request;
pub mod spool;
pub mod verbs;
mod wire;

/// The messages and the service of `proto/attachments.proto`.
#[expect(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "generated code"
)]
pub mod proto {
    tonic::include_proto!("hawser.cni.v1");
}
