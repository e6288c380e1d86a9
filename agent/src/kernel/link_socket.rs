//! Frames of one protocol on one device, as the link has them: for questions about addresses that the host does not have.

use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use tokio::io::unix::AsyncFd;

use super::KernelError;
use crate::load_balancer::frames::{Mac, solicited_node};

/// What is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// ARP.
    Arp,
    /// Neighbour solicitations of IPv6.
    Solicitations,
}

impl Heard {
    fn ethertype(self) -> u16 {
        match self {
            Self::Arp => 0x0806,
            Self::Solicitations => 0x86dd,
        }
    }
}

/// A packet socket.
#[derive(Debug)]
pub struct LinkSocket {
    fd: AsyncFd<OwnedFd>,
    index: i32,
    mac: Mac,
}

impl LinkSocket {
    /// Opens a socket on a device. Needs `CAP_NET_RAW` and a tokio runtime.
    pub fn open(device: &str, heard: Heard) -> Result<Self, KernelError> {
        let failed = |what: &str| KernelError::io(format!("{what} a packet socket on {device}"));
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // Without a protocol nothing arrives before the filter is there.
        // SAFETY: no preconditions.
        let raw = check(unsafe { libc::socket(libc::AF_PACKET, kind, 0) }).map_err(failed("open"))?;
        // SAFETY: the descriptor is new and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        let index = nix::net::if_::if_nametoindex(device).map_err(io::Error::from).map_err(failed("find"))?;
        let index = index.cast_signed();
        let mac = hardware_address(&fd, device).map_err(failed("ask for"))?;
        if heard == Heard::Solicitations {
            only_solicitations(&fd).map_err(failed("filter"))?;
        }
        bind(&fd, index, heard.ethertype()).map_err(failed("bind"))?;
        // SAFETY: the descriptor is owned and never replaced.
        let fd = unsafe { AsyncFd::register(fd) }.map_err(io::Error::from).map_err(failed("wait on"))?;
        Ok(Self { fd, index, mac })
    }

    /// The device's hardware address.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Waits for a frame; answers how long it is.
    pub async fn hear(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.fd.readable().await?;
            let read = ready.try_io(|fd| {
                // SAFETY: the buffer is as long as stated.
                let length = unsafe {
                    libc::recv(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_TRUNC)
                };
                if length < 0 { Err(io::Error::last_os_error()) } else { Ok(length.cast_unsigned()) }
            });
            if let Ok(length) = read {
                return length.map(|length| length.min(buffer.len()));
            }
        }
    }

    /// Sends a frame.
    pub fn say(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: the frame is as long as stated; the socket is bound to its device.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Has the device take questions about an address, which are sent to a multicast address of its own.
    pub fn take_questions(&self, address: Ipv6Addr) -> io::Result<()> {
        let mut request = libc::packet_mreq {
            mr_ifindex: self.index,
            mr_type: libc::PACKET_MR_MULTICAST as u16,
            mr_alen: 6,
            mr_address: [0; 8],
        };
        request.mr_address[..6].copy_from_slice(&solicited_node(address));
        set(self.fd.get_ref(), libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &request)
    }
}

fn bind(fd: &OwnedFd, index: i32, ethertype: u16) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid address.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex = index;
    let size = size_of::<libc::sockaddr_ll>() as u32;
    // SAFETY: the address is as long as stated and outlives the call.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size) }).map(drop)
}

/// Everything else stays where it is: next header ICMPv6, type 135.
fn only_solicitations(fd: &OwnedFd) -> io::Result<()> {
    let code = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let leave = libc::BPF_RET | libc::BPF_K;
    let mut program = [
        code(load, 0, 0, 20),
        code(equal, 0, 3, 58),
        code(load, 0, 0, 54),
        code(equal, 0, 1, 135),
        code(leave, 0, 0, 0xffff),
        code(leave, 0, 0, 0),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    set(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter)
}

fn hardware_address(fd: &OwnedFd, device: &str) -> io::Result<Mac> {
    // SAFETY: all-zero bytes are a valid request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from as libc::c_char;
    }
    // SAFETY: the request outlives the call, which fills in the address.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::SIOCGIFHWADDR, &raw mut request) })?;
    // SAFETY: the call has written this member.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr };
    let mut mac = Mac::default();
    for (to, from) in mac.iter_mut().zip(address.sa_data) {
        *to = from as u8;
    }
    Ok(mac)
}

fn set<T>(fd: &OwnedFd, level: i32, option: i32, value: &T) -> io::Result<()> {
    let (from, size) = (std::ptr::from_ref(value).cast(), size_of::<T>() as u32);
    // SAFETY: the value is as long as stated and outlives the call.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, from, size) }).map(drop)
}

fn check(code: i32) -> io::Result<i32> {
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(code) }
}
