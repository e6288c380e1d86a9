//! The ring buffer of events, and the switch that makes the programs write to it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use abi::event::{Control, Event};
use abi::name;
use aya::maps::{Map, MapData, MapError, RingBuf};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use zerocopy::FromBytes;

use super::KernelError;
use super::meters::open;

/// One page holds the one row.
const PAGE: usize = 4096;

/// Reads events.
pub struct Events {
    ring: RingBuf<MapData>,
    wanted: &'static AtomicU32,
}

impl Events {
    /// Opens the ring pinned in `folder`; the programs are told to write nothing.
    pub fn open(folder: &Path) -> Result<Self, KernelError> {
        let ring = open(folder, name::EVENTS)?;
        let events = Self { ring, wanted: switch(folder)? };
        // Left by an agent that was killed.
        events.want(0);
        Ok(events)
    }

    /// From now on the programs write events of these kinds, `abi::event::kind`.
    pub fn want(&self, kinds: u32) {
        self.wanted.store(kinds, Ordering::Release);
    }

    /// Waits until there is something to read, or for as long as `patience`.
    pub fn wait(&self, patience: Duration) -> io::Result<()> {
        // SAFETY: the descriptor lives as long as `self`.
        let ring = unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) };
        let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(ring, PollFlags::POLLIN)], timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The next event, if there is one.
    pub fn read(&mut self) -> Option<Event> {
        let record = self.ring.next()?;
        Event::read_from_prefix(&record).ok().map(|(event, _)| event)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.want(0);
    }
}

/// The word of the control row that says which events are wanted.
fn switch(folder: &Path) -> Result<&'static AtomicU32, KernelError> {
    let failed = |source: MapError| KernelError::Map { map: name::CONTROL, source };
    let map = MapData::from_pin(folder.join(name::CONTROL)).and_then(Map::from_map_data).map_err(failed)?;
    let Map::Array(data) = map else {
        return Err(KernelError::Missing(format!("array {}", name::CONTROL)));
    };
    // SAFETY: a fresh mapping at an address of the kernel's choice; no other mapping is touched.
    let at = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            data.fd().as_fd().as_raw_fd(),
            0,
        )
    };
    if at == libc::MAP_FAILED {
        return Err(KernelError::io(format!("map {}", name::CONTROL))(io::Error::last_os_error()));
    }
    // SAFETY: the page is never unmapped, and begins with the row; the field is a word that everybody stores whole.
    Ok(unsafe { &*at.cast::<u8>().add(std::mem::offset_of!(Control, events)).cast::<AtomicU32>() })
}
