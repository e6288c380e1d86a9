//! The few system calls that aya has no name for.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::KernelError;

const BPF_OBJ_GET: libc::c_int = 7;
const BPF_MAP_UPDATE_BATCH: libc::c_int = 26;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// `bpf_attr` of BPF_LINK_UPDATE.
#[repr(C)]
#[derive(Default)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// `bpf_attr` of BPF_MAP_UPDATE_BATCH (Linux 5.6).
#[repr(C)]
struct UpdateBatch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// `bpf_attr` of BPF_OBJ_GET.
#[repr(C)]
struct ObjectGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Opens what is pinned at `path`.
pub fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes = ObjectGet { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: the structure is as long as stated; it and the path outlive the call.
    let code =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET, &raw const attributes, size_of::<ObjectGet>()) };
    let fd = i32::try_from(code).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Writes rows in order until one is refused; answers how many are written.
pub fn update_batch<K: aya::Pod, V: aya::Pod>(
    map: BorrowedFd<'_>,
    keys: &[K],
    values: &[V],
) -> (usize, io::Result<()>) {
    let count = u32::try_from(keys.len().min(values.len())).unwrap_or(u32::MAX);
    if count == 0 {
        return (0, Ok(()));
    }
    let mut attributes = UpdateBatch {
        in_batch: 0,
        out_batch: 0,
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count,
        map_fd: map.as_raw_fd().cast_unsigned(),
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: the structure is as long as stated and names two arrays of `count` rows, which outlive the call; the kernel writes
    // the number of written rows into it, and nowhere else.
    let code = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_MAP_UPDATE_BATCH, &raw mut attributes, size_of::<UpdateBatch>())
    };
    let outcome = if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    (attributes.count.min(count) as usize, outcome)
}

/// Second of the clock that programs read.
pub fn monotonic_second() -> u32 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    now.map_or(0, |now| u32::try_from(now.tv_sec()).unwrap_or(0))
}

/// Gives an attached link another program: no packet sees neither or both.
pub fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = LinkUpdate {
        link_fd: link.as_raw_fd().cast_unsigned(),
        new_prog_fd: program.as_raw_fd().cast_unsigned(),
        ..LinkUpdate::default()
    };
    // SAFETY: the structure is as long as stated and outlives the call; the kernel does not write to it.
    let code = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_LINK_UPDATE, &raw const attributes, size_of::<LinkUpdate>())
    };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes sure that `folder` lies on a bpffs: mounts one where `/sys/fs/bpf` has none.
pub fn ensure_bpffs(folder: &Path) -> Result<(), KernelError> {
    let root = Path::new("/sys/fs/bpf");
    if folder.starts_with(root) && !is_bpffs(root)? {
        nix::mount::mount(Some("bpf"), root, Some("bpf"), nix::mount::MsFlags::empty(), None::<&str>)
            .map_err(io::Error::from)
            .map_err(KernelError::io("mount bpffs on /sys/fs/bpf"))?;
    }
    std::fs::create_dir_all(folder).map_err(KernelError::io(format!("create {}", folder.display())))?;
    if is_bpffs(folder)? {
        return Ok(());
    }
    Err(KernelError::Io {
        action: format!("{} is not on a bpffs; mount one there or choose another --bpffs", folder.display()),
        source: io::Error::from(io::ErrorKind::InvalidInput),
    })
}

/// Whether this folder is on a bpffs.
pub fn is_bpffs(path: &Path) -> Result<bool, KernelError> {
    let stat = nix::sys::statfs::statfs(path)
        .map_err(io::Error::from)
        .map_err(KernelError::io(format!("examine {}", path.display())))?;
    Ok(stat.filesystem_type().0 == BPF_FS_MAGIC)
}
