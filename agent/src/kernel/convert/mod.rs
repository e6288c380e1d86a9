//! From an agent with other layouts or larger maps to this one, without losing a connection.
//!
//! ```text
//!  share    maps whose rows lie as they did are pinned in the new folder: both generations of programs use them
//!  load     programs, bridges and the other maps; a failure leaves the old programs running
//!  copy     rows of the old maps but the flows, converted by the names of their fields
//!  bridge   the pins of attachments move, and bridges take their place in TC: they lead to the old programs
//!  cross    one word: every bridge leads to the new programs, which take flows out of the old tables as they meet them
//!  swap     new programs at every hook
//!  follow   the other flows are copied
//!  finish   the old tables are taken from the programs; the description is pinned, which says that all is done; the old pins go
//! ```
//!
//! Whenever it is interrupted, the next start begins again: nothing is lost by doing a step twice. Who was interrupted after the
//! crossing does not copy again what the new maps know better.

pub mod crossing;
pub mod describe;
pub mod generation;
pub mod older;
pub mod raw;
pub mod rows;

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use abi::name;
use abi::older::Older;

use super::bpf::{monotonic_second, open_pin, update_link};
use super::{KernelError, cleanup};
use crate::desired::endpoints::LINK_PREFIX;
use crossing::Stand;
use describe::{Description, Kind, ROWS};
use raw::RawMap;

/// The pin that says what the maps of a folder mean, and that they are complete.
pub const DESCRIPTION: &str = "hw_layout";
/// Seconds in which packets of unknown connections are not refused: their flow may be in the other generation's map.
const GRACE: u32 = 3;
/// Maps whose rows come and go by packets.
const MOVING: [&str; 3] = [name::EMBRYOS, name::FLOWS, name::AFFINITY];
const BPF_NOEXIST: u64 = 1;

/// What an agent with other layouts left.
pub struct Conversion {
    old: PathBuf,
    own: PathBuf,
    from: Description,
    to: Description,
    /// Whether somebody was interrupted after the crossing.
    has_crossed: bool,
    /// Where programs find the parts of the old flows; none where they cannot, and flows are copied only.
    places: Option<Older>,
}

/// How far a conversion has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// What is the same is in the new folder.
    Shared,
    /// Programs are loaded.
    Loaded,
    /// The new maps have what does not move.
    Copied,
    /// The pins of attachments lie in the new folder.
    Taken,
    /// Bridges stand at the hooks.
    Bridged,
    /// They lead to the new programs.
    Crossed,
    /// The new programs stand at the hooks.
    Swapped,
    /// The new maps have everything.
    Followed,
    /// The new folder says so.
    Described,
}

impl Step {
    /// All of them, in order.
    pub const ALL: [Self; 9] = [
        Self::Shared,
        Self::Loaded,
        Self::Copied,
        Self::Taken,
        Self::Bridged,
        Self::Crossed,
        Self::Swapped,
        Self::Followed,
        Self::Described,
    ];

    /// Notes that it is done.
    pub fn done(self) {
        tracing::info!(step = ?self, "converting what an agent with other maps has left");
    }
}

impl Conversion {
    /// Finds what is to be converted into `own`, which is not there yet or not complete. What somebody left there who was
    /// interrupted while copying is out of date and goes.
    pub fn find(bpffs: &Path, own: &Path, scale: u32) -> Result<Option<Self>, KernelError> {
        if own.join(DESCRIPTION).exists() {
            return Ok(None);
        }
        let to = Description::own(scale);
        let has_crossed = crossing::has_crossed(own)?;
        // Programs that stand at hooks have their bridges and maps there.
        if own.exists() && !entries(own)?.iter().any(|pin| is_attachment(pin)) {
            cleanup::remove_pins(own, &mut Vec::new())?;
        }
        for old in others(bpffs, own)? {
            let Some(from) = read_description(&old)? else { continue };
            let own = own.to_owned();
            let mut found = Self { old, own, from, to, has_crossed, places: None };
            found.places = crossing::places(&found);
            return Ok(Some(found));
        }
        Ok(None)
    }

    /// Pins what is the same in both into the new folder, and lays out the tables that are not. Before the programs are loaded,
    /// which are told the answer.
    pub fn share(&self) -> Result<Older, KernelError> {
        std::fs::create_dir_all(&self.own)
            .map_err(KernelError::io(format!("create {}", self.own.display())))?;
        for (map, ..) in ROWS.iter().filter(|(map, ..)| self.is_shared(map)) {
            let (old, own) = (self.old.join(map), self.own.join(map));
            if !own.exists() {
                let shared = open_pin(&old).and_then(|fd| raw::pin(fd.as_fd(), &own));
                shared.map_err(KernelError::io(format!("share {}", old.display())))?;
            }
        }
        let older = self.lay_out()?;
        Step::Shared.done();
        Ok(older)
    }

    /// Whether somebody was interrupted after the crossing.
    pub fn has_crossed(&self) -> bool {
        self.has_crossed
    }

    /// Copies everything else but the flows that programs will take over.
    pub fn copy(&self) -> Result<(), KernelError> {
        self.set_grace()?;
        if self.has_crossed {
            return Ok(());
        }
        let taken_over = |map: &str| self.places.is_some() && [name::FLOWS, name::EMBRYOS].contains(&map);
        let mut left = 0;
        for (map, kind, ..) in ROWS.iter().filter(|(map, ..)| !self.is_shared(map) && !taken_over(map)) {
            left += self.copy_map(map, *kind, 0)?;
        }
        self.complain(left);
        Ok(())
    }

    /// Copies what the new maps do not have yet of the rows that come and go. After the crossing.
    pub fn follow(&self) -> Result<(), KernelError> {
        let mut left = 0;
        for map in MOVING.iter().filter(|map| !self.is_shared(map)) {
            left += self.copy_map(map, Kind::Hash, BPF_NOEXIST)?;
        }
        self.complain(left);
        Ok(())
    }

    fn complain(&self, left: u64) {
        if left > 0 {
            tracing::warn!(rows = left, from = %self.old.display(), "rows of the old maps do not fit the new ones");
        }
    }

    fn is_shared(&self, map: &str) -> bool {
        let (Some(from), Some(to)) = (self.from.maps.get(map), self.to.maps.get(map)) else { return false };
        let is_same = |kind: &str| rows::is_same(&self.from, &self.to, kind);
        let is_revised = self.from.revisions.get(map) != self.to.revisions.get(map);
        from == to && !is_revised && is_same(&to.key) && is_same(&to.value) && self.old.join(map).exists()
    }

    /// Answers how many rows did not find room.
    fn copy_map(&self, name: &str, kind: Kind, flags: u64) -> Result<u64, KernelError> {
        let (Some(from), Some(to)) = (self.from.maps.get(name), self.to.maps.get(name)) else { return Ok(0) };
        if kind == Kind::Fresh || (&from.key, &from.value) != (&to.key, &to.value) {
            return Ok(0);
        }
        let (old, own) = (RawMap::open(&self.old.join(name))?, RawMap::open(&self.own.join(name))?);
        let is_same = |kind: &str| rows::is_same(&self.from, &self.to, kind);
        let as_it_is = is_same(&to.key) && is_same(&to.value);
        let mut left = 0;
        let mut each = |key: &[u8], value: &[u8]| {
            let is_empty = kind == Kind::Array && value.iter().all(|byte| *byte == 0);
            let written = is_empty
                || if as_it_is {
                    write(&own, key, value, flags)
                } else {
                    self.copy_row(&own, (name, kind), key, value, flags).unwrap_or(false)
                };
            left += u64::from(!written);
        };
        let read = if kind == Kind::Prefixes { old.walk(&mut each) } else { old.rows(&mut each) };
        read.map_err(KernelError::io(format!("read the old {name}")))?;
        Ok(left)
    }

    fn copy_row(
        &self,
        own: &RawMap,
        (name, kind): (&str, Kind),
        key: &[u8],
        value: &[u8],
        flags: u64,
    ) -> Option<bool> {
        let rows = self.to.maps.get(name)?;
        let value = rows::convert(&self.from, &self.to, &rows.value, value)?;
        let (lead, rest) = key.split_at(if kind == Kind::Prefixes { 4 } else { 0 });
        let key = [lead, &rows::convert(&self.from, &self.to, &rows.key, rest)?].concat();
        Some(write(own, &key, &value, flags))
    }

    /// In both generations, by where each has the field.
    fn set_grace(&self) -> Result<(), KernelError> {
        let until = (monotonic_second() + GRACE).to_ne_bytes();
        for (folder, description) in [(&self.old, &self.from), (&self.own, &self.to)] {
            let control = RawMap::open(&folder.join(name::CONTROL))?;
            let mut row = control.lookup(&[0; 4]).map_err(KernelError::io("read the control row"))?;
            let fields = description.structs.get("Control").map_or(&[][..], |layout| &layout.fields);
            let place = fields.iter().find(|field| field.name == "grace").map(|field| field.offset);
            if let Some(cell) = place.and_then(|at| row.get_mut(at..at + until.len())) {
                cell.copy_from_slice(&until);
                control.update(&[0; 4], &row, 0).map_err(KernelError::io("write the control row"))?;
            }
        }
        Ok(())
    }
}

/// Whether the row is there afterwards.
fn write(own: &RawMap, key: &[u8], value: &[u8], flags: u64) -> bool {
    match own.update(key, value, flags) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::AlreadyExists,
    }
}

/// Moves the pins of attachments into `own`, where each gets its new program. One that `own` has already stays.
pub fn take_attachments(bpffs: &Path, own: &Path) -> Result<(), KernelError> {
    for other in others(bpffs, own)? {
        for pin in entries(&other)? {
            let Some(file) = pin.file_name().and_then(|file| file.to_str()) else { continue };
            let to = own.join(file);
            if program_of(file, name::XDP_UPLINK).is_some() && !to.exists() {
                std::fs::rename(&pin, &to).map_err(KernelError::io(format!("move {}", pin.display())))?;
            }
        }
    }
    Ok(())
}

/// Gives every attachment pinned in `own` what is to stand there.
pub fn swap(own: &Path, xdp_program: &str, stand: Stand) -> Result<(), KernelError> {
    let mut ready = Vec::new();
    for pin in entries(own)? {
        let file = pin.file_name().and_then(|file| file.to_str()).unwrap_or_default();
        let Some(program) = program_of(file, xdp_program).and_then(|program| stand.at(program)) else {
            continue;
        };
        let program = own.join(format!("prog_{program}"));
        let open = |path: &Path| open_pin(path).map_err(KernelError::io(format!("open {}", path.display())));
        ready.push((open(&pin)?, open(&program)?));
    }
    let failed = ready.iter().filter(|(link, program)| update_link(link.as_fd(), program.as_fd()).is_err());
    let failed = failed.count();
    if failed > 0 {
        // Their devices are gone; whoever attaches next sees to them.
        tracing::info!(failed, "attachments that have nothing to be attached to");
    }
    Ok(())
}

impl Conversion {
    /// Copies what began until the last program was swapped, and takes the old tables from the programs.
    pub fn end(&self) -> Result<(), KernelError> {
        self.follow()?;
        self.clear()
    }
}

/// Says that the maps of `own` are complete.
pub fn describe(own: &Path, scale: u32) -> Result<(), KernelError> {
    let pin = own.join(DESCRIPTION);
    if pin.exists() {
        return Ok(());
    }
    let map = RawMap::of_text(DESCRIPTION, &Description::own(scale).to_string());
    map.and_then(|map| map.pin(&pin)).map_err(KernelError::io(format!("pin {}", pin.display())))
}

/// Removes the pins of all maps but those of `own`.
pub fn clear_others(bpffs: &Path, own: &Path) -> Result<(), KernelError> {
    crossing::clear_away(own)?;
    let old = cleanup::remove_other_layouts(bpffs, own)?;
    if !old.is_empty() {
        tracing::info!(pins = old.len(), "removed what an agent with other maps had pinned");
    }
    Ok(())
}

fn is_attachment(pin: &Path) -> bool {
    pin.file_name().is_some_and(|file| file.as_encoded_bytes().starts_with(b"link_"))
}

/// The program behind a pin of an attachment; none for hooks this agent does not have, which would stay attached for ever.
fn program_of<'a>(file: &'a str, xdp_program: &'a str) -> Option<&'a str> {
    let hook = file.strip_prefix("link_")?;
    if hook == name::SOCK_RELEASE || name::SOCKET_PROGRAMS.contains(&hook) {
        return Some(hook);
    }
    let (device, end) = hook.rsplit_once('_')?;
    match (end, device.starts_with(LINK_PREFIX)) {
        ("in", true) => Some(name::TC_POD_OUT),
        ("out", true) => Some(name::TC_POD_IN),
        ("in", false) => Some(name::TC_UPLINK_IN),
        ("out", false) => Some(name::TC_UPLINK_OUT),
        ("xdp", _) => Some(xdp_program),
        _ => None,
    }
}

fn read_description(folder: &Path) -> Result<Option<Description>, KernelError> {
    let pin = folder.join(DESCRIPTION);
    if !pin.exists() {
        return Ok(None);
    }
    let text =
        RawMap::open(&pin)?.lookup(&[0; 4]).map_err(KernelError::io(format!("read {}", pin.display())))?;
    Ok(Description::read(String::from_utf8_lossy(&text).trim_end_matches('\0')))
}

/// Folders of other layouts.
fn others(bpffs: &Path, own: &Path) -> Result<Vec<PathBuf>, KernelError> {
    if !bpffs.exists() {
        return Ok(Vec::new());
    }
    let is_layout =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"v"));
    Ok(entries(bpffs)?.into_iter().filter(|path| is_layout(path) && path != own).collect())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, KernelError> {
    let shown = format!("read {}", folder.display());
    let list = std::fs::read_dir(folder).map_err(KernelError::io(shown.clone()))?;
    list.map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(KernelError::io(shown))
}
