//! The services, mapped into memory: a segment changes in one store of eight bytes.
//!
//! An update through the system call copies the value with `memcpy`, which promises nothing about who sees which half.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU64, Ordering};

use abi::name;
use abi::service::{Segment, Service};
use aya::maps::MapData;

use super::KernelError;

/// Eight-byte words of one service: cluster segment, local segment, the rest.
const WORDS: usize = size_of::<Service>() / 8;
const LENGTH: usize = size_of::<Service>() * name::SERVICES_SIZE;

/// The mapped array.
pub struct ServiceTable {
    words: &'static [AtomicU64],
}

impl ServiceTable {
    /// Maps the array, which was made mappable.
    pub fn map(map: &MapData) -> Result<Self, KernelError> {
        // SAFETY: a fresh mapping at an address of the kernel's choice; no other mapping is touched.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                LENGTH,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.fd().as_fd().as_raw_fd(),
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(KernelError::io(format!("map {}", name::SERVICES))(io::Error::last_os_error()));
        }
        // SAFETY: the mapping has `LENGTH` bytes, is aligned to a page, lasts as long as the process (it is never unmapped),
        // and everybody who writes to it does so in whole words.
        let words = unsafe { std::slice::from_raw_parts(at.cast::<AtomicU64>(), LENGTH / 8) };
        Ok(Self { words })
    }

    /// Reads a service.
    pub fn read(&self, index: u32) -> Option<Service> {
        let words = self.row(index)?;
        let [cluster, local, rest] = [0, 1, 2].map(|word| words[word].load(Ordering::Acquire));
        let (affinity, flags) = halves(rest);
        Some(Service { cluster: segment(cluster), local: segment(local), affinity, flags })
    }

    /// Writes a service, each segment in one store. Its backends are in place.
    pub fn write(&self, index: u32, service: &Service) -> Option<()> {
        let words = self.row(index)?;
        words[0].store(joined(service.cluster.base, service.cluster.count), Ordering::Release);
        words[1].store(joined(service.local.base, service.local.count), Ordering::Release);
        words[2].store(joined(service.affinity, service.flags), Ordering::Release);
        Some(())
    }

    fn row(&self, index: u32) -> Option<&[AtomicU64]> {
        let start = index as usize * WORDS;
        self.words.get(start..start + WORDS)
    }
}

fn segment(word: u64) -> Segment {
    let (base, count) = halves(word);
    Segment { base, count }
}

/// Two neighbours in memory as the machine's word.
fn joined(first: u32, second: u32) -> u64 {
    let (first, second) = (first.to_ne_bytes(), second.to_ne_bytes());
    u64::from_ne_bytes([first[0], first[1], first[2], first[3], second[0], second[1], second[2], second[3]])
}

fn halves(word: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
    (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_halves_make_the_word_that_the_struct_is() {
        assert_eq!(halves(joined(7, 9)), (7, 9));
        assert_eq!(segment(joined(7, 9)), Segment { base: 7, count: 9 });
        assert_eq!(size_of::<Service>(), WORDS * 8, "a service is whole words");
    }
}
