//! Live frames (BPF_F_TEST_XDP_LIVE_FRAMES, kernel 5.18): the kernel makes frames, a program decides, and the verdict is
//! carried out. The program here writes the head of the packet anew, because frames are used again as the last run left them,
//! and then hands over to another program or to the stack.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const PROG_LOAD: libc::c_int = 5;
const PROG_TEST_RUN: libc::c_int = 10;
const LINK_CREATE: libc::c_int = 28;
const MAP_TYPE_PROG_ARRAY: u32 = 3;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_TYPE_XDP: u32 = 37;
const XDP_HAS_FRAGS: u32 = 1 << 5;
/// The driver runs the program, not the stack for it.
const DRIVER_MODE: u32 = 1 << 2;
const LIVE_FRAMES: u32 = 1 << 1;
/// Frames the kernel makes at once.
const BATCH: u32 = 64;
/// Bytes of a packet.
pub const FRAME: usize = 64;

/// A loaded generator.
pub struct Generator {
    program: OwnedFd,
    frame: [u8; FRAME],
    _next: Option<OwnedFd>,
}

fn bpf(command: libc::c_int, attributes: &[u8]) -> io::Result<i32> {
    // SAFETY: the attributes are as long as stated and outlive the call.
    let code = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), attributes.len()) };
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(code as i32) }
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel has just given us this descriptor.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// One instruction: code, destination and source register, offset, immediate.
fn instruction(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> u64 {
    u64::from(code)
        | u64::from(dst | (src << 4)) << 8
        | u64::from(offset.cast_unsigned()) << 16
        | u64::from(immediate.cast_unsigned()) << 32
}

impl Generator {
    /// Writes `frame` and passes it to `next`, or to the stack.
    pub fn load(frame: [u8; FRAME], next: Option<i32>) -> io::Result<Self> {
        let array = next.map(prog_array).transpose()?;
        let mut code = vec![
            instruction(0xbf, 6, 1, 0, 0),            // r6 = context
            instruction(0x61, 2, 1, 0, 0),            // r2 = data
            instruction(0x61, 3, 1, 4, 0),            // r3 = data_end
            instruction(0xbf, 4, 2, 0, 0),            // r4 = r2
            instruction(0x07, 4, 0, 0, FRAME as i32), // r4 += 64
        ];
        let stores = FRAME / 4;
        code.push(instruction(0x2d, 4, 3, stores as i16, 0)); // if r4 > r3, skip the stores
        for (at, word) in frame.chunks_exact(4).enumerate() {
            let word = i32::from_ne_bytes(word.try_into().expect("four bytes"));
            code.push(instruction(0x62, 2, 0, (at * 4) as i16, word)); // *(u32 *)(r2 + at) = word
        }
        if let Some(array) = &array {
            code.push(instruction(0xbf, 1, 6, 0, 0)); // r1 = context
            code.push(instruction(0x18, 2, 1, 0, array.as_raw_fd())); // r2 = the array
            code.push(0);
            code.push(instruction(0xb7, 3, 0, 0, 0)); // r3 = 0
            code.push(instruction(0x85, 0, 0, 0, 12)); // tail call
        }
        code.push(instruction(0xb7, 0, 0, 0, 2)); // r0 = XDP_PASS
        code.push(instruction(0x95, 0, 0, 0, 0)); // exit
        Ok(Self { program: program(&code)?, frame, _next: array })
    }

    /// Sends this many frames in on a device of the calling thread's namespace, and says how long it took.
    pub fn run(&self, ifindex: u32, frames: u32) -> io::Result<Duration> {
        let context = words(&[0, FRAME as u32, 0, ifindex, 0, 0]);
        let mut attributes = words(&[self.program.as_raw_fd().cast_unsigned(), 0, FRAME as u32, 0]);
        attributes.extend((self.frame.as_ptr() as u64).to_ne_bytes());
        attributes.extend(0_u64.to_ne_bytes());
        attributes.extend(words(&[frames, 0, context.len() as u32, 0]));
        attributes.extend((context.as_ptr() as u64).to_ne_bytes());
        attributes.extend(0_u64.to_ne_bytes());
        attributes.extend(words(&[LIVE_FRAMES, 0, BATCH, 0]));
        let start = Instant::now();
        bpf(PROG_TEST_RUN, &attributes)?;
        Ok(start.elapsed())
    }
}

/// Drops everything that arrives on a device of the calling thread's namespace, for as long as what is returned lives.
pub fn drop_all(ifindex: u32) -> io::Result<[OwnedFd; 2]> {
    let code = [instruction(0xb7, 0, 0, 0, 1), instruction(0x95, 0, 0, 0, 0)];
    let program = program(&code)?;
    let attributes = words(&[program.as_raw_fd().cast_unsigned(), ifindex, ATTACH_TYPE_XDP, DRIVER_MODE]);
    let link = bpf(LINK_CREATE, &attributes).map(owned)?;
    Ok([program, link])
}

fn program(code: &[u64]) -> io::Result<OwnedFd> {
    let licence = c"GPL";
    let mut log = vec![0_u8; 1 << 16];
    let mut attributes = words(&[PROG_TYPE_XDP, code.len() as u32]);
    attributes.extend((code.as_ptr() as u64).to_ne_bytes());
    attributes.extend((licence.as_ptr() as u64).to_ne_bytes());
    attributes.extend(words(&[1, log.len() as u32]));
    attributes.extend((log.as_mut_ptr() as u64).to_ne_bytes());
    attributes.extend(words(&[0, XDP_HAS_FRAGS]));
    attributes.extend([0; 16]); // name
    attributes.extend(words(&[0, ATTACH_TYPE_XDP]));
    bpf(PROG_LOAD, &attributes).map(owned).map_err(|error| {
        let text = String::from_utf8_lossy(&log);
        io::Error::other(format!("{error}: {}", text.trim_end_matches('\0')))
    })
}

fn prog_array(next: i32) -> io::Result<OwnedFd> {
    let array = bpf(MAP_CREATE, &words(&[MAP_TYPE_PROG_ARRAY, 4, 4, 1, 0])).map(owned)?;
    let (key, value) = (0_u32, next);
    let mut attributes = words(&[array.as_raw_fd().cast_unsigned(), 0]);
    attributes.extend((&raw const key as u64).to_ne_bytes());
    attributes.extend((&raw const value as u64).to_ne_bytes());
    attributes.extend(0_u64.to_ne_bytes());
    bpf(MAP_UPDATE_ELEM, &attributes)?;
    Ok(array)
}
