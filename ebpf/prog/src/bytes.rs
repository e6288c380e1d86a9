//! Where a packet's bytes are: the same code forwards socket buffers (TC) and frames that have none yet (XDP).

use abi::count::Path;
use abi::drops::Drop;
use abi::flow::Hop;
use aya_ebpf::bindings::xdp_action::XDP_TX;
use aya_ebpf::bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};
use aya_ebpf::helpers::generated::{
    bpf_csum_update, bpf_l4_csum_replace, bpf_redirect, bpf_redirect_peer, bpf_skb_pull_data,
    bpf_xdp_get_buff_len,
};
use aya_ebpf::programs::{TcContext, XdpContext};

use crate::maps::XDP_DEVICES;
use crate::packet::{ETHERNET, Packet, TCP, UDP};
use crate::sum;
use crate::verdict::Verdict;

/// A packet whose head can be read and written in place.
pub trait Bytes {
    /// Whether it may go to a pod of this node: what goes elsewhere before the stack is translated.
    const FOR_PODS: bool;
    /// Its first byte and the end of those that lie in a row. Every helper that changes the packet moves them.
    fn range(&self) -> (usize, usize);
    /// What follows the Ethernet header, in host order.
    fn ethertype(&self) -> u16;
    /// Bytes of the frame.
    fn length(&self) -> u32;
    /// Brings the first `length` bytes into a row.
    fn pull(&self, length: u32) -> bool;
    /// Bytes of the largest IP packet this becomes on the wire.
    fn largest(&self, packet: &Packet) -> u32;
    /// Applies what changed in addresses and ports to the transport checksum at `at`.
    fn transport(&self, packet: &Packet, at: usize, addresses: u32, ports: u32) -> Result<(), Drop>;
    /// Hears of a change in an IPv6 header that no checksum in the packet covers.
    fn uncovered(&self, difference: u32);
    /// Whether [`Bytes::send`] can use this hop.
    fn can_send(&self, hop: &Hop) -> bool;
    /// Sends it; the hardware addresses are written.
    fn send(&self, hop: &Hop) -> Verdict;
}

/// A value inside the packet.
///
/// # Safety
/// The caller has compared `at` with the packet's end. eBPF reads unaligned words as the packet's CPU does.
#[inline(always)]
pub unsafe fn get<T: Copy>(at: usize) -> T {
    // SAFETY: see above.
    unsafe { core::ptr::read_volatile(at as *const T) }
}

/// Overwrites a value inside the packet.
///
/// # Safety
/// As for [`get`].
#[inline(always)]
pub unsafe fn put<T: Copy>(at: usize, value: T) {
    // SAFETY: see above.
    unsafe { core::ptr::write_volatile(at as *mut T, value) };
}

/// Flag for a difference that is part of the pseudo header.
pub const PSEUDO: u64 = BPF_F_PSEUDO_HDR as u64;

/// Puts right what the kernel makes of a device's sum over an IPv6 packet: it takes the difference for one that the IP header
/// makes up for, as that of IPv4 does. (Newer kernels could be told: `BPF_F_IPV6`, 6.15.)
#[inline(always)]
pub fn make_up<B: Bytes>(bytes: &B, packet: &Packet, difference: u32) {
    if !packet.v4() {
        bytes.uncovered(difference);
    }
}

/// Zero means "no checksum" in IPv4's UDP only, and stays so.
#[inline(always)]
pub fn zero_is_none(packet: &Packet) -> u64 {
    if packet.v4() && packet.proto() == UDP { u64::from(BPF_F_MARK_MANGLED_0) } else { 0 }
}

impl Bytes for TcContext {
    const FOR_PODS: bool = true;

    #[inline(always)]
    fn range(&self) -> (usize, usize) {
        let skb = self.skb.skb;
        // SAFETY: plain fields of the context. Read every time: what the compiler keeps in a register it may widen, and the verifier
        // takes that for a number.
        let (start, end) = unsafe {
            ((&raw const (*skb).data).read_volatile(), (&raw const (*skb).data_end).read_volatile())
        };
        (start as usize, end as usize)
    }

    #[inline(always)]
    fn ethertype(&self) -> u16 {
        u16::from_be(self.skb.protocol() as u16)
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.len()
    }

    #[inline(always)]
    fn pull(&self, length: u32) -> bool {
        // SAFETY: the context is the program's own.
        self.len() >= length && unsafe { bpf_skb_pull_data(self.skb.skb, length) } == 0
    }

    #[inline(always)]
    fn largest(&self, packet: &Packet) -> u32 {
        // SAFETY: a plain field of the context.
        let segment = unsafe { (*self.skb.skb).gso_size };
        let bytes = if segment == 0 { self.len() } else { packet.l4 + packet.header + segment };
        bytes - ETHERNET as u32
    }

    #[inline(always)]
    fn transport(&self, packet: &Packet, at: usize, addresses: u32, ports: u32) -> Result<(), Drop> {
        let (skb, at) = (self.skb.skb, at as u32);
        // The device may still have to compute the checksum, or have computed it: only the kernel knows.
        let flags = zero_is_none(packet);
        // SAFETY: the context is the program's own.
        let code = unsafe { bpf_l4_csum_replace(skb, at, 0, u64::from(addresses), flags | PSEUDO) };
        if code != 0 {
            return Err(Drop::Rewrite);
        }
        make_up(self, packet, addresses);
        if ports == 0 {
            return Ok(());
        }
        // SAFETY: as above.
        match unsafe { bpf_l4_csum_replace(skb, at, 0, u64::from(ports), flags) } {
            0 => Ok(()),
            _ => Err(Drop::Rewrite),
        }
    }

    #[inline(always)]
    fn uncovered(&self, difference: u32) {
        // An error says that the device did not sum the packet up: nothing to keep right then.
        // SAFETY: the context is the program's own.
        _ = unsafe { bpf_csum_update(self.skb.skb, difference) };
    }

    #[inline(always)]
    fn can_send(&self, _hop: &Hop) -> bool {
        true
    }

    #[inline(always)]
    fn send(&self, hop: &Hop) -> Verdict {
        if hop.mtu == 0 {
            // SAFETY: the helper checks the device.
            let code = unsafe { bpf_redirect_peer(hop.ifindex, 0) };
            return Verdict::Sent(Path::Pod, code as i32);
        }
        // SAFETY: as above.
        Verdict::Sent(Path::Remote, unsafe { bpf_redirect(hop.ifindex, 0) } as i32)
    }
}

/// A frame that has no socket buffer yet; `SCATTERED` if its tail may lie elsewhere (5.18).
pub struct Frame<const SCATTERED: bool>(pub XdpContext);

impl<const SCATTERED: bool> Frame<SCATTERED> {
    #[inline(always)]
    fn device(&self) -> u32 {
        self.0.ingress_ifindex() as u32
    }
}

impl<const SCATTERED: bool> Bytes for Frame<SCATTERED> {
    const FOR_PODS: bool = false;

    #[inline(always)]
    fn range(&self) -> (usize, usize) {
        (self.0.data(), self.0.data_end())
    }

    #[inline(always)]
    fn ethertype(&self) -> u16 {
        let (start, end) = self.range();
        if start + ETHERNET > end {
            return 0;
        }
        // SAFETY: compared with the end.
        u16::from_be(unsafe { get(start + 12) })
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        if SCATTERED {
            // SAFETY: the context is the program's own.
            return unsafe { bpf_xdp_get_buff_len(self.0.ctx) } as u32;
        }
        let (start, end) = self.range();
        (end - start) as u32
    }

    #[inline(always)]
    fn pull(&self, _length: u32) -> bool {
        false
    }

    #[inline(always)]
    fn largest(&self, _packet: &Packet) -> u32 {
        self.length() - ETHERNET as u32
    }

    #[inline(always)]
    fn transport(&self, packet: &Packet, at: usize, addresses: u32, ports: u32) -> Result<(), Drop> {
        let (start, end) = self.range();
        if start + at + 2 > end {
            return Err(Drop::Truncated);
        }
        // SAFETY: compared with the end.
        unsafe {
            let old: u16 = get(start + at);
            if old == 0 && zero_is_none(packet) != 0 {
                return Ok(());
            }
            let new = sum::update(old, addresses, ports);
            put(start + at, if new == 0 && packet.proto() != TCP { 0xffff } else { new });
        }
        Ok(())
    }

    #[inline(always)]
    fn uncovered(&self, _difference: u32) {}

    #[inline(always)]
    fn can_send(&self, hop: &Hop) -> bool {
        let remote = hop.ifindex != 0 && hop.mtu != 0;
        remote && (hop.ifindex == self.device() || XDP_DEVICES.get_ifindex(hop.ifindex).is_some())
    }

    #[inline(always)]
    fn send(&self, hop: &Hop) -> Verdict {
        let code = if hop.ifindex == self.device() {
            XDP_TX
        } else {
            // A device that went since it was looked up: the frame is lost with it.
            XDP_DEVICES.redirect(hop.ifindex, 0).unwrap_or_else(|code| code)
        };
        Verdict::Sent(Path::Xdp, code as i32)
    }
}
