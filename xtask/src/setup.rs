//! What a machine needs before Hawser can be built and run, installed step by step.
//!
//! Debian packages come from apt; the BPF linker goes into `tools/`, a folder of this checkout. Every step looks first
//! and does nothing when its result is there.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{cargo, on_path, output, root, run};

/// Program that proves a package is there, and the Debian package that brings it.
const PACKAGES: &[(&str, &str)] = &[
    ("/usr/bin/rustc", "rustc-web"),
    ("/usr/sbin/bpftool", "bpftool"),
    ("/usr/bin/containerd", "containerd"),
    ("/usr/sbin/runc", "runc"),
    ("/bin/ip", "iproute2"),
    ("/bin/ping", "iputils-ping"),
    ("/usr/sbin/nft", "nftables"),
    ("/usr/sbin/iptables-legacy-restore", "iptables"),
    ("/bin/busybox", "busybox-static"),
    ("/usr/bin/protoc", "protobuf-compiler"),
    ("/usr/include/google/protobuf/descriptor.proto", "libprotobuf-dev"),
    ("/usr/share/doc/rust-web-src/copyright", "rust-web-src"),
    ("/etc/ssl/certs/ca-certificates.crt", "ca-certificates"),
];

/// A rustc that can compile `core` for the BPF target: program, version and LLVM major.
pub struct BpfCompiler {
    pub rustc: PathBuf,
    pub llvm_major: u32,
}

/// Makes the machine ready; prints one line for each step that had something to do.
pub fn ready() -> Result<()> {
    install(PACKAGES)?;
    let compiler = bpf_compiler()?;
    bpf_linker(&compiler)
}

/// Installs the Debian packages of the programs that are not there.
pub fn install(wanted: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> =
        wanted.iter().filter(|(proof, _)| !Path::new(proof).exists()).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !on_path("apt-get") || !is_root() {
        bail!(
            "these packages are missing and cannot be installed from here (needs root and apt): {}\n\
             install them by hand, then run this command again",
            missing.join(" ")
        );
    }
    println!("setup: apt-get install {}", missing.join(" "));
    run(Command::new("apt-get").args(["update", "-q"]))?;
    run(Command::new("apt-get")
        .args(["install", "-y", "-q", "--no-install-recommends"])
        .args(&missing)
        .env("DEBIAN_FRONTEND", "noninteractive"))
}

/// The parts of the toolchain that only tests need; rustup's minimal profile leaves them out.
pub fn components() -> Result<()> {
    for (program, component) in [("cargo-clippy", "clippy"), ("cargo-fmt", "rustfmt")] {
        if on_path(program) && output(Command::new(program).arg("--version")).is_ok() {
            continue;
        }
        println!("setup: rustup component add {component}");
        run(Command::new("rustup").args(["component", "add", component]))?;
    }
    Ok(())
}

/// The target of the CNI plugin, which needs no library of the host; its part of the toolchain is fetched where it is missing.
pub fn plugin_target() -> Result<String> {
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let library = output(Command::new("rustc").args(["--print", "target-libdir", "--target", &target]))?;
    if !Path::new(library.trim()).exists() {
        println!("setup: rustup target add {target}");
        run(Command::new("rustup").args(["target", "add", &target]))?;
    }
    Ok(target)
}

/// The compiler for the programs, read from `rustc -vV` instead of assumed.
pub fn bpf_compiler() -> Result<BpfCompiler> {
    let rustc = PathBuf::from("/usr/bin/rustc");
    let version = output(Command::new(&rustc).arg("-vV"))?;
    let llvm_major = version
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))
        .and_then(|version| version.split('.').next())
        .and_then(|major| major.parse().ok())
        .with_context(|| format!("`{} -vV` names no LLVM version", rustc.display()))?;
    Ok(BpfCompiler { rustc, llvm_major })
}

fn bpf_linker(compiler: &BpfCompiler) -> Result<()> {
    let tools = root().join("tools");
    if tools.join("bin/bpf-linker").exists() {
        return Ok(());
    }
    let major = compiler.llvm_major;
    let library = format!("libLLVM.so.{major}.1");
    let source = Path::new("/usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH)).join(&library);
    if !source.exists() {
        bail!("{} is missing; it comes with the Debian package rustc-web", source.display());
    }
    let folder = tools.join("llvm/lib");
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    for name in ["libLLVM.so", library.as_str()] {
        let link = folder.join(name);
        if !link.exists() {
            std::os::unix::fs::symlink(&source, &link).with_context(|| format!("link {}", link.display()))?;
        }
    }
    println!("setup: build bpf-linker for LLVM {major} into tools/");
    run(cargo()
        .args(["install", "bpf-linker", "--version", "0.13.0", "--locked", "--no-default-features"])
        .args(["--features", &format!("llvm-{major}"), "--root"])
        .arg(&tools)
        .env("LLVM_PREFIX", tools.join("llvm"))
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0"))
}

fn is_root() -> bool {
    output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}
