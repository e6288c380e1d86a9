//! One run of one program through BPF_PROG_TEST_RUN, with the flags aya does not know.

use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::runner::Outcome;

/// Whether a device has computed the frame's checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sums {
    /// It has not.
    Unchecked,
    /// It has; the kernel (6.11 and later) holds what the program makes of it against the frame afterwards.
    Complete,
}

/// A program and what it runs on.
#[derive(Debug)]
pub struct Run<'a> {
    /// The loaded program.
    pub program: BorrowedFd<'a>,
    /// Whether it is one of the XDP hook.
    pub xdp: bool,
    /// Device the frame came by.
    pub ifindex: u32,
    /// The frame.
    pub frame: &'a [u8],
    /// How often.
    pub times: u32,
    /// How the frame's checksum stands.
    pub sums: Sums,
}

const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_F_TEST_SKB_CHECKSUM_COMPLETE: u32 = 4;
/// Room for what a tunnel adds.
const ROOM: usize = 128;
/// The first fields of `struct __sk_buff`, up to the one we set.
const SKB_CONTEXT: usize = 192;
/// Offset of `ifindex` in it.
const SKB_IFINDEX: usize = 40;
/// Offset of `tstamp` in it.
const SKB_TSTAMP: usize = 152;

/// The part of `union bpf_attr` that BPF_PROG_TEST_RUN reads.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

impl Run<'_> {
    /// Runs it.
    pub fn go(self) -> Result<Outcome> {
        let context = self.context();
        let mut out = vec![0; self.frame.len() + ROOM];
        let mut after = [0; SKB_CONTEXT];
        let complete = self.sums == Sums::Complete && !self.xdp;
        let mut attributes = Attributes {
            prog_fd: self.program.as_raw_fd().cast_unsigned(),
            data_size_in: self.frame.len() as u32,
            data_size_out: out.len() as u32,
            data_in: self.frame.as_ptr() as u64,
            data_out: out.as_mut_ptr() as u64,
            repeat: self.times,
            ctx_size_in: context.len() as u32,
            ctx_in: context.as_ptr() as u64,
            ctx_size_out: if self.xdp { 0 } else { after.len() as u32 },
            ctx_out: if self.xdp { 0 } else { after.as_mut_ptr() as u64 },
            flags: if complete { BPF_F_TEST_SKB_CHECKSUM_COMPLETE } else { 0 },
            ..Attributes::default()
        };
        if let Err(error) = call(&mut attributes) {
            let unknown_flag = complete && error.raw_os_error() == Some(libc::EINVAL);
            if !unknown_flag {
                let reason = "run the program; EBADMSG says that it left a computed checksum wrong";
                return Err(error).context(reason);
            }
            attributes.flags = 0;
            call(&mut attributes)?;
        }
        out.truncate(attributes.data_size_out as usize);
        Ok(Outcome {
            code: attributes.retval.cast_signed(),
            frame: out,
            departure: u64::from_ne_bytes(*after[SKB_TSTAMP..].first_chunk().context("it is that long")?),
            duration: Duration::from_nanos(u64::from(attributes.duration)),
        })
    }

    fn context(&self) -> Vec<u8> {
        if self.xdp {
            // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
            return [0, self.frame.len() as u32, 0, self.ifindex, 0, 0]
                .iter()
                .flat_map(|word| word.to_ne_bytes())
                .collect();
        }
        let mut context = vec![0; SKB_CONTEXT];
        context[SKB_IFINDEX..SKB_IFINDEX + 4].copy_from_slice(&self.ifindex.to_ne_bytes());
        context
    }
}

fn call(attributes: &mut Attributes) -> std::io::Result<()> {
    let size = size_of::<Attributes>();
    // SAFETY: the attributes are as long as stated; their pointers lead to buffers that outlive the call.
    let code =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, std::ptr::from_mut(attributes), size) };
    if code < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}
