//! Arrays mapped into memory: cells change by stores of whole words, without a system call.
//!
//! An update through the system call copies the value with `memcpy`, which promises nothing about who sees which half; a
//! segment has to change in one store of eight bytes.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use aya::maps::MapData;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::KernelError;

/// A mapped array of `T`.
pub struct Mapped<T> {
    words: &'static [AtomicU64],
    cell: PhantomData<T>,
}

impl<T: FromBytes + IntoBytes + Immutable> Mapped<T> {
    /// Words of one cell: the kernel rounds cells up to whole ones.
    const WORDS: usize = size_of::<T>().div_ceil(8);

    /// Maps an array that was made mappable.
    pub fn map(map: &MapData, name: &'static str) -> Result<Self, KernelError> {
        let info = map.info().map_err(|source| KernelError::Map { map: name, source })?;
        let length = info.max_entries() as usize * Self::WORDS * 8;
        // SAFETY: a fresh mapping at an address of the kernel's choice; no other mapping is touched.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.fd().as_fd().as_raw_fd(),
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(KernelError::io(format!("map {name}"))(io::Error::last_os_error()));
        }
        // SAFETY: the mapping has `length` bytes, is aligned to a page, lasts as long as the process (it is never unmapped),
        // and everybody who writes to it does so in whole words or halves.
        let words = unsafe { std::slice::from_raw_parts(at.cast::<AtomicU64>(), length / 8) };
        Ok(Self { words, cell: PhantomData })
    }

    /// How many cells there are.
    pub fn len(&self) -> u32 {
        u32::try_from(self.words.len() / Self::WORDS).unwrap_or(u32::MAX)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// Reads a cell, each word at once.
    pub fn read(&self, index: u32) -> Option<T> {
        let mut value = T::new_zeroed();
        for (bytes, word) in value.as_mut_bytes().chunks_mut(8).zip(self.row(index)?) {
            let loaded = word.load(Ordering::Acquire).to_ne_bytes();
            bytes.copy_from_slice(&loaded[..bytes.len()]);
        }
        Some(value)
    }

    /// Writes a cell, each word in one store; `None` if there is no such cell.
    pub fn write(&self, index: u32, value: &T) -> Option<()> {
        for (bytes, word) in value.as_bytes().chunks(8).zip(self.row(index)?) {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_ne_bytes(whole), Ordering::Release);
        }
        Some(())
    }

    /// Four bytes of a cell, for fields that programs change beside others.
    pub fn half(&self, index: u32, offset: usize) -> Option<&AtomicU32> {
        let word = self.row(index)?.get(offset / 8)?;
        // SAFETY: either half of a word is inside of it and aligned.
        Some(unsafe { &*std::ptr::from_ref(word).cast::<AtomicU32>().add(offset % 8 / 4) })
    }

    fn row(&self, index: u32) -> Option<&[AtomicU64]> {
        let start = index as usize * Self::WORDS;
        self.words.get(start..start + Self::WORDS)
    }
}

#[cfg(test)]
mod tests {
    use abi::event::Control;
    use abi::service::{Segment, Service};

    use super::*;

    fn table<T>(words: usize) -> Mapped<T> {
        let words = Vec::leak((0..words).map(|_| AtomicU64::new(0)).collect());
        Mapped { words, cell: PhantomData }
    }

    #[test]
    fn cells_are_read_as_they_were_written() {
        let services = table::<Service>(6);
        let service =
            Service { cluster: Segment { base: 7, count: 9 }, affinity: 3, flags: 5, ..Service::default() };
        services.write(1, &service).unwrap();
        assert_eq!((services.read(0), services.read(1)), (Some(Service::default()), Some(service)));
        assert_eq!((services.len(), services.read(2)), (2, None));
        let slots = table::<u32>(2);
        slots.write(1, &7).unwrap();
        assert_eq!((slots.len(), slots.read(1)), (2, Some(7)));
    }

    #[test]
    fn a_half_is_the_field_at_its_offset() {
        let control = table::<Control>(2);
        control.half(0, std::mem::offset_of!(Control, tombstones)).unwrap().store(4, Ordering::Relaxed);
        control.half(0, std::mem::offset_of!(Control, grace)).unwrap().store(2, Ordering::Relaxed);
        assert_eq!(control.read(0), Some(Control { grace: 2, tombstones: 4, ..Control::default() }));
    }
}
