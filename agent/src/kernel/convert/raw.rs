//! Maps as bytes: neither key nor value is known before the description is read.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use aya::maps::MapInfo;

use super::super::KernelError;
use super::super::bpf::open_pin;

const BPF_MAP_CREATE: libc::c_int = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_MAP_GET_NEXT_KEY: libc::c_int = 4;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;
/// Rows asked for at once; more than any bucket of a hash holds.
const BATCH: usize = 4096;

/// `bpf_attr` of the operations on one row.
#[repr(C)]
struct Element {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `bpf_attr` of BPF_MAP_LOOKUP_BATCH (Linux 5.6).
#[repr(C)]
struct LookupBatch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// `bpf_attr` of BPF_MAP_CREATE, as far as it is needed.
#[repr(C)]
struct Create {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    name: [u8; 16],
}

/// `bpf_attr` of BPF_OBJ_PIN.
#[repr(C)]
struct Pin {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// A map.
pub struct RawMap {
    fd: OwnedFd,
    key: usize,
    value: usize,
}

impl RawMap {
    /// Opens a pinned map.
    pub fn open(pin: &Path) -> Result<Self, KernelError> {
        let shown = || format!("open {}", pin.display());
        let info = MapInfo::from_pin(pin).map_err(io::Error::other).map_err(KernelError::io(shown()))?;
        let fd = open_pin(pin).map_err(KernelError::io(shown()))?;
        Ok(Self { fd, key: info.key_size() as usize, value: info.value_size() as usize })
    }

    /// An array of one row that holds `text`.
    pub fn of_text(name: &str, text: &str) -> io::Result<Self> {
        let size = u32::try_from(text.len()).map_err(io::Error::other)?;
        let map = Self::array(name, BPF_MAP_TYPE_ARRAY, size, 0)?;
        map.update(&[0; 4], text.as_bytes(), 0)?;
        Ok(map)
    }

    /// An array with room for one map that is made like `example`.
    pub fn of_maps(name: &str, example: BorrowedFd<'_>) -> io::Result<Self> {
        Self::array(name, BPF_MAP_TYPE_ARRAY_OF_MAPS, 4, example.as_raw_fd().cast_unsigned())
    }

    fn array(name: &str, map_type: u32, value_size: u32, inner_map_fd: u32) -> io::Result<Self> {
        let mut attributes = Create {
            map_type,
            key_size: 4,
            value_size,
            max_entries: 1,
            map_flags: 0,
            inner_map_fd,
            numa_node: 0,
            name: [0; 16],
        };
        attributes.name[..name.len().min(15)].copy_from_slice(&name.as_bytes()[..name.len().min(15)]);
        let fd = call(BPF_MAP_CREATE, &raw mut attributes)?;
        // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) }, key: 4, value: value_size as usize })
    }

    /// The value of a key.
    pub fn lookup(&self, key: &[u8]) -> io::Result<Vec<u8>> {
        let mut value = vec![0; self.value];
        let mut attributes = self.element(key, value.as_mut_ptr(), 0);
        call(BPF_MAP_LOOKUP_ELEM, &raw mut attributes).map(|_| value)
    }

    /// Writes a row.
    pub fn update(&self, key: &[u8], value: &[u8], flags: u64) -> io::Result<()> {
        if (key.len(), value.len()) != (self.key, self.value) {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let mut attributes = self.element(key, value.as_ptr().cast_mut(), flags);
        call(BPF_MAP_UPDATE_ELEM, &raw mut attributes).map(drop)
    }

    /// Removes a row.
    pub fn remove(&self, key: &[u8]) -> io::Result<()> {
        let mut attributes = self.element(key, std::ptr::null_mut(), 0);
        call(BPF_MAP_DELETE_ELEM, &raw mut attributes).map(drop)
    }

    /// Pins it.
    pub fn pin(&self, path: &Path) -> io::Result<()> {
        pin(self.fd.as_fd(), path)
    }

    /// Every row of a hash or an array.
    pub fn rows(&self, mut each: impl FnMut(&[u8], &[u8])) -> io::Result<()> {
        let (mut keys, mut values) = (vec![0; BATCH * self.key], vec![0; BATCH * self.value]);
        // The place in a hash is a number, elsewhere it is a key.
        let mut place = vec![0_u8; self.key.max(8)];
        let mut began = false;
        loop {
            let at = place.clone();
            let mut attributes = LookupBatch {
                in_batch: if began { at.as_ptr() as u64 } else { 0 },
                out_batch: place.as_mut_ptr() as u64,
                keys: keys.as_mut_ptr() as u64,
                values: values.as_mut_ptr() as u64,
                count: BATCH as u32,
                map_fd: self.fd.as_raw_fd().cast_unsigned(),
                elem_flags: 0,
                flags: 0,
            };
            let ended = match call(BPF_MAP_LOOKUP_BATCH, &raw mut attributes) {
                Ok(_) => false,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
                Err(error) => return Err(error),
            };
            let count = attributes.count as usize;
            for (key, value) in keys.chunks(self.key).zip(values.chunks(self.value)).take(count) {
                each(key, value);
            }
            if ended || count == 0 {
                return Ok(());
            }
            began = true;
        }
    }

    /// Every row of a map that cannot be read in batches.
    pub fn walk(&self, mut each: impl FnMut(&[u8], &[u8])) -> io::Result<()> {
        let mut key: Option<Vec<u8>> = None;
        loop {
            let mut next = vec![0; self.key];
            let mut attributes = self.element(key.as_deref().unwrap_or_default(), next.as_mut_ptr(), 0);
            if key.is_none() {
                attributes.key = 0;
            }
            match call(BPF_MAP_GET_NEXT_KEY, &raw mut attributes) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
                Err(error) => return Err(error),
            }
            each(&next, &self.lookup(&next)?);
            key = Some(next);
        }
    }

    fn element(&self, key: &[u8], value: *mut u8, flags: u64) -> Element {
        Element {
            map_fd: self.fd.as_raw_fd().cast_unsigned(),
            padding: 0,
            key: key.as_ptr() as u64,
            value: value as u64,
            flags,
        }
    }
}

/// Pins a map under one more name.
pub fn pin(map: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
    let mut attributes =
        Pin { pathname: path.as_ptr() as u64, bpf_fd: map.as_raw_fd().cast_unsigned(), file_flags: 0 };
    call(BPF_OBJ_PIN, &raw mut attributes).map(drop)
}

fn call<T>(command: libc::c_int, attributes: *mut T) -> io::Result<i32> {
    // SAFETY: every caller passes a structure of this command, whose pointers lead to buffers of the map's sizes that outlive
    // the call.
    let code = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    let code = i32::try_from(code).map_err(io::Error::other)?;
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(code) }
}
