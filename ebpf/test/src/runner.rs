//! The object, loaded in a network namespace of its own, and one run of one program.

use std::path::{Path, PathBuf};
use std::time::Duration;

use abi::name;
use abi::node::Node;
use anyhow::{Context, Result, bail};
use aya::maps::{Array, HashMap, MapData, PerCpuArray};
use aya::programs::{CgroupSock, CgroupSockAddr, SchedClassifier, TestRun};
use aya::{Ebpf, EbpfLoader, Pod, TestRunOptions};

/// What a run gave.
#[derive(Debug)]
pub struct Outcome {
    /// The program's return code, a `TC_ACT_*`.
    pub code: i32,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// Time per run, as the kernel measured it.
    pub duration: Duration,
}

/// `TC_ACT_UNSPEC`: the next program or the stack has it.
pub const STACK: i32 = -1;
/// `TC_ACT_SHOT`.
pub const SHOT: i32 = 2;
/// `TC_ACT_REDIRECT`.
pub const REDIRECT: i32 = 7;

/// The first fields of `struct __sk_buff`, up to the one we set.
const SKB_CONTEXT: usize = 192;
/// Offset of `ifindex` in it.
const SKB_IFINDEX: usize = 40;

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
        let path = object();
        let bytes = std::fs::read(&path)
            .with_context(|| format!("read {}; `cargo xtask bpf` makes it", path.display()))?;
        let mut ebpf = EbpfLoader::new().override_global(name::NODE, node, true).load(&bytes)?;
        for program in name::PROGRAMS {
            let loaded = ebpf.program_mut(program).with_context(|| format!("no program {program}"))?;
            if *program == name::SOCK_RELEASE {
                <&mut CgroupSock>::try_from(loaded)?.load()
            } else if name::SOCKET_PROGRAMS.contains(program) {
                <&mut CgroupSockAddr>::try_from(loaded)?.load()
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

    /// Runs a TC program on a frame that arrived on the device `ifindex`.
    pub fn run(&mut self, program: &str, ifindex: u32, frame: &[u8]) -> Result<Outcome> {
        self.repeat(program, ifindex, frame, 1)
    }

    /// Runs it `times` times on the same memory: a packet that was changed stays changed.
    pub fn repeat(&mut self, program: &str, ifindex: u32, frame: &[u8], times: u32) -> Result<Outcome> {
        let program: &mut SchedClassifier =
            self.ebpf.program_mut(program).context("no such program")?.try_into()?;
        let mut context = [0u8; SKB_CONTEXT];
        context[SKB_IFINDEX..SKB_IFINDEX + 4].copy_from_slice(&ifindex.to_ne_bytes());
        let mut out = vec![0; frame.len() + 64];
        let result = program.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            repeat: times,
            ..TestRunOptions::default()
        })?;
        out.truncate(result.data_size_out as usize);
        Ok(Outcome { code: result.return_value.cast_signed(), frame: out, duration: result.duration })
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
