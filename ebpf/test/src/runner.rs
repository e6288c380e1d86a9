//! The object, loaded in a network namespace of its own, and one run of one program.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use abi::flow::{Flow, FlowKey};
use abi::name;
use abi::node::Node;
use abi::older::Older;
use anyhow::{Context, Result, bail};
use aya::maps::xdp::DevMapHash;
use aya::maps::{Array, ArrayOfMaps, HashMap, Map, MapData, PerCpuArray, PerCpuValues};
use aya::programs::{CgroupSock, CgroupSockAddr, SchedClassifier, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader, Pod};

use crate::kernel;
use crate::run::{Run, Sums};

/// What a run gave.
#[derive(Debug)]
pub struct Outcome {
    /// The program's return code, a `TC_ACT_*`.
    pub code: i32,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// When it may leave: nanoseconds of the monotonic clock, zero if nothing is said; of TC programs only.
    pub departure: u64,
    /// Time per run, as the kernel measured it.
    pub duration: Duration,
}

/// The UDP port that tunnels between nodes have here.
pub const TUNNEL_PORT: u16 = 8475;
/// `TC_ACT_UNSPEC`: the next program or the stack has it.
pub const STACK: i32 = -1;
/// `TC_ACT_SHOT`.
pub const SHOT: i32 = 2;
/// `TC_ACT_REDIRECT`.
pub const REDIRECT: i32 = 7;

/// `XDP_DROP`.
pub const XDP_DROP: i32 = 1;
/// `XDP_PASS`: the stack, and TC before it, has it.
pub const PASS: i32 = 2;
/// `XDP_TX`.
pub const TX: i32 = 3;
/// `XDP_REDIRECT`.
pub const XDP_REDIRECT: i32 = 4;

/// Programs of the XDP hook.
const XDP_PROGRAMS: [&str; 2] = [name::XDP_UPLINK, name::XDP_UPLINK_FRAG];

/// Whether the machine lets us; without privilege the test is skipped with a line, unless this is CI.
pub fn allowed() -> bool {
    // SAFETY: no preconditions.
    if unsafe { libc::geteuid() } == 0 {
        return true;
    }
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "the packet tests need root");
    println!("skipped: the packet tests need root");
    false
}

/// Where `cargo xtask bpf` puts the object.
pub fn object() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bpf/hawser.bpf.o")
}

/// Moves the calling thread into a fresh network namespace.
pub fn isolate() -> Result<()> {
    // SAFETY: no preconditions; only this thread changes.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        bail!("unshare: {}", std::io::Error::last_os_error());
    }
    Ok(())
}

/// Loaded programs and maps.
pub struct Runner {
    ebpf: Ebpf,
}

impl Runner {
    /// Loads every program into the kernel: the verifier has accepted them when this returns.
    pub fn load(node: &Node) -> Result<Self> {
        Self::load_scaled(node, 1)
    }

    /// The same with larger maps.
    pub fn load_scaled(node: &Node, scale: u32) -> Result<Self> {
        Self::load_with(node, scale, &Older::NONE, None)
    }

    /// The same with a table of unanswered flows that has room for so many rows, and forgets none to make room.
    pub fn load_full(node: &Node, rows: u32) -> Result<Self> {
        let pin = PathBuf::from(format!("/sys/fs/bpf/packet-tests-{}", std::process::id()));
        // The loader takes what is pinned for the map of that name.
        HashMap::<MapData, FlowKey, Flow>::create(rows, 0)?.pin(&pin)?;
        let loaded = Self::load_with(node, 1, &Older::NONE, Some(&pin));
        std::fs::remove_file(&pin)?;
        loaded
    }

    /// The same for programs that take over the flows of others, whose rows lie like this.
    pub fn load_over(node: &Node, older: &Older) -> Result<Self> {
        let mut others = Self::load(node)?;
        let mut runner = Self::load_with(node, 1, older, None)?;
        for (table, outer) in [(name::FLOWS, name::OLDER_FLOWS), (name::EMBRYOS, name::OLDER_EMBRYOS)] {
            let (Map::HashMap(table) | Map::LruHashMap(table)) = others.map(table)? else {
                bail!("{table} is no hash map");
            };
            let mut outer: ArrayOfMaps<_, MapData> = runner.map(outer)?.try_into()?;
            outer.set(0, table, 0)?;
        }
        Ok(runner)
    }

    fn load_with(node: &Node, scale: u32, older: &Older, embryos: Option<&Path>) -> Result<Self> {
        let path = object();
        let bytes = std::fs::read(&path)
            .with_context(|| format!("read {}; `cargo xtask bpf` makes it", path.display()))?;
        let mut loader = EbpfLoader::new();
        loader.override_global(name::NODE, node, true);
        loader.override_global(name::TUNNEL_PORT, &TUNNEL_PORT, true);
        loader.override_global(name::OLDER, older, true);
        for map in name::MAPS.iter().filter(|map| map.scaled) {
            loader.map_max_entries(map.name, map.capacity(scale) as u32);
        }
        if let Some(pin) = embryos {
            loader.map_pin_path(name::EMBRYOS, pin);
        }
        let mut ebpf = loader.load(&bytes)?;
        for program in name::PROGRAMS.iter().filter(|program| kernel::takes(program)) {
            let loaded = ebpf.program_mut(program).with_context(|| format!("no program {program}"))?;
            if *program == name::SOCK_RELEASE {
                <&mut CgroupSock>::try_from(loaded)?.load()
            } else if name::SOCKET_PROGRAMS.contains(program) {
                <&mut CgroupSockAddr>::try_from(loaded)?.load()
            } else if XDP_PROGRAMS.contains(program) {
                <&mut Xdp>::try_from(loaded)?.load()
            } else {
                <&mut SchedClassifier>::try_from(loaded)?.load()
            }
            .with_context(|| format!("load {program}"))?;
        }
        Ok(Self { ebpf })
    }

    /// Instructions the verifier went through for a program.
    pub fn verified_instructions(&self, program: &str) -> Result<u32> {
        let program = self.ebpf.program(program).context("no such program")?;
        program.info()?.verified_instruction_count().context("this kernel does not say")
    }

    /// Attaches an XDP program to a device, as the kernel wants it of devices that frames arrive on, and lets others send by it.
    pub fn attach_xdp(&mut self, device: &str, ifindex: u32) -> Result<()> {
        let program: &mut Xdp =
            self.ebpf.program_mut(name::XDP_UPLINK).context("no such program")?.try_into()?;
        program.attach(device, XdpMode::Driver)?;
        let mut devices: DevMapHash<_> =
            self.ebpf.map_mut(name::XDP_DEVICES).context("no such map")?.try_into()?;
        Ok(devices.insert(ifindex, ifindex, None, 0)?)
    }

    /// Runs a program on a frame that arrived on the device `ifindex`.
    pub fn run(&mut self, program: &str, ifindex: u32, frame: &[u8]) -> Result<Outcome> {
        self.repeat(program, ifindex, frame, 1, Sums::Unchecked)
    }

    /// Runs it `times` times on the same memory: a packet that was changed stays changed.
    pub fn repeat(
        &mut self,
        program: &str,
        ifindex: u32,
        frame: &[u8],
        times: u32,
        sums: Sums,
    ) -> Result<Outcome> {
        let xdp = XDP_PROGRAMS.contains(&program);
        if !kernel::takes(program) || (xdp && !kernel::runs_xdp()) {
            return Err(kernel::Missing(program.to_owned()).into());
        }
        let loaded = self.ebpf.program(program).context("no such program")?;
        Run { program: loaded.fd()?.as_fd(), xdp, ifindex, frame, times, sums }.go()
    }

    /// Any map of the object.
    pub fn map(&mut self, name: &str) -> Result<&mut aya::maps::Map> {
        self.ebpf.map_mut(name).context("no such map")
    }

    /// A hash map of the object.
    pub fn hash<K: Pod, V: Pod>(&mut self, name: &str) -> Result<HashMap<&mut MapData, K, V>> {
        Ok(self.ebpf.map_mut(name).context("no such map")?.try_into()?)
    }

    /// An array of the object.
    pub fn array<V: Pod>(&mut self, name: &str) -> Result<Array<&mut MapData, V>> {
        Ok(self.ebpf.map_mut(name).context("no such map")?.try_into()?)
    }

    /// A cell of a per-CPU array, all CPUs.
    pub fn cells<V: Pod>(&mut self, name: &str, index: u32) -> Result<Vec<V>> {
        let array: PerCpuArray<_, V> = self.ebpf.map(name).context("no such map")?.try_into()?;
        Ok(array.get(&index, 0)?.iter().copied().collect())
    }

    /// Changes every cell of a per-CPU array.
    pub fn change_cells<V: Pod>(&mut self, name: &str, change: impl Fn(V) -> V) -> Result<()> {
        let map = self.ebpf.map_mut(name).context("no such map")?;
        let mut array: PerCpuArray<_, V> = map.try_into()?;
        for index in 0..array.len() {
            let cells: Vec<V> = array.get(&index, 0)?.iter().map(|cell| change(*cell)).collect();
            array.set(index, PerCpuValues::try_from(cells)?, 0)?;
        }
        Ok(())
    }

    /// Empties a hash map.
    pub fn clear<K: Pod, V: Pod>(&mut self, name: &str) -> Result<()> {
        let mut map = self.hash::<K, V>(name)?;
        let keys: Vec<K> = map.keys().filter_map(Result::ok).collect();
        for key in keys {
            map.remove(&key)?;
        }
        Ok(())
    }
}
