//! What is built: the eBPF object, then the binaries that embed it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{cargo, root, run};
use crate::setup::{self, bpf_compiler};

/// The eBPF object, where the agent's build script looks for it.
const OBJECT: &str = "target/bpf/hawser.bpf.o";

/// The image's name, as in `deploy/hawser.yaml`.
const IMAGE: &str = "hawser.dev/hawser:latest";

/// Compiles `ebpf/prog` for the BPF target into [`OBJECT`].
///
/// `core` is built from Debian's library source by the compiler of the same version; `--btf` keeps the type
/// information that gives map dumps their field names.
pub fn bpf() -> Result<()> {
    let root = root();
    let compiler = bpf_compiler()?;
    let path = std::env::var("PATH").context("PATH is not set")?;
    let flags = [
        "-Cdebuginfo=2",
        "-Ctarget-cpu=v3",
        "-Clink-arg=--btf",
        "--cfg",
        "bpf_target_arch=\"x86_64\"",
        "-Clinker=bpf-linker",
    ];
    let target = root.join("target/bpf-build");
    run(cargo()
        .args(["build", "--quiet", "--profile", "bpf", "--package", "prog", "--bin", "hawser-bpf"])
        .args(["--target", "bpfel-unknown-none", "-Z", "build-std=core", "--target-dir"])
        .arg(&target)
        .env("RUSTC", &compiler.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("PATH", format!("{}:{path}", root.join("tools/bin").display()))
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f")))?;
    let built = target.join("bpfel-unknown-none/bpf/hawser-bpf");
    install_if_changed(&built, &root.join(OBJECT))
}

/// Makes the machine ready and builds everything, in release or without optimisation.
pub fn all(dev: bool) -> Result<()> {
    setup::ready()?;
    step("build the eBPF object");
    bpf()?;
    step("build the programs");
    binaries(dev)
}

/// Builds every program, all at once: another selection of packages would compile their dependencies anew, with other
/// features. A release has the CNI plugin as it is shipped.
pub fn binaries(dev: bool) -> Result<()> {
    let profile: &[&str] = if dev { &[] } else { &["--release"] };
    run(cargo().args(["build", "--bins"]).args(profile))?;
    if !dev {
        place(&plugin()?, &root().join("target/release/hawser-cni"))?;
    }
    hello(if dev { "debug" } else { "release" })
}

/// Builds the CNI plugin as it is shipped, and says where it is: linked statically, because it runs on whatever the host has, and
/// with musl, because a runtime waits for it to start. glibc asks the processor some seventy questions (CPUID) before `main`;
/// where a hypervisor answers them, that was half a millisecond.
fn plugin() -> Result<PathBuf> {
    let target = setup::plugin_target()?;
    let build = ["rustc", "--release", "--package", "cni", "--bin", "hawser-cni", "--target", &target];
    run(cargo().args(build).args(["--", "-Cstrip=symbols"]))?;
    Ok(root().join("target").join(&target).join("release/hawser-cni"))
}

/// Puts a copy of a program in the place of another one, of which cargo keeps what it has under another name.
fn place(from: &Path, to: &Path) -> Result<()> {
    let fresh = to.with_extension("new");
    std::fs::copy(from, &fresh).with_context(|| format!("copy {}", from.display()))?;
    std::fs::rename(&fresh, to).with_context(|| format!("put {} in its place", to.display()))
}

/// The image that `deploy/hawser.yaml` names: static programs without symbols, which run on whatever the host has.
pub fn image() -> Result<()> {
    /// What `cargo` calls this machine's target; naming it keeps the flags from build scripts and macros.
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    bpf()?;
    let folder = root().join("target/image");
    step("build the programs of the image");
    run(cargo()
        .args(["rustc", "--release", "--package", "agent", "--bin", "hawser-agent", "--target", TARGET])
        .arg("--target-dir")
        .arg(&folder)
        .env("RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .args(["--", "-Cstrip=symbols"]))?;
    let plugin = plugin()?;
    run(cargo().args(["build", "--package", "e2e", "--bins"]))?;
    let built = folder.join(TARGET).join("release");
    let local = root().join("target/debug/hawser-local");
    hello("debug")?;
    run(Command::new(&local)
        .args(["hello-image", "--program"])
        .arg(root().join("target/debug/hawser-hello"))
        .arg("--to")
        .arg(root().join("target/hello-image.tar")))?;
    run(Command::new(&local)
        .args(["image", "--name", IMAGE, "--agent"])
        .arg(built.join("hawser-agent"))
        .arg("--plugin")
        .arg(plugin)
        .arg("--to")
        .arg(root().join("target/hawser-image.tar")))
}

/// The program that takes a local cluster down, built only where it is missing: whoever brought one up has it.
pub fn local() -> Result<()> {
    if root().join("target/release/hawser-local").exists() {
        return Ok(());
    }
    run(cargo().args(["build", "--release", "--package", "e2e", "--bins"]))
}

/// The example's server: one file, no dependencies.
fn hello(folder: &str) -> Result<()> {
    let source = root().join("e2e/image/hello.rs");
    let built = root().join("target").join(folder).join("hawser-hello");
    let age = |path: &Path| std::fs::metadata(path).and_then(|meta| meta.modified());
    if age(&built).is_ok_and(|built| age(&source).is_ok_and(|source| source < built)) {
        return Ok(());
    }
    let flags = ["--edition", "2024", "-O", "-Cstrip=symbols", "-Ctarget-feature=+crt-static"];
    run(Command::new("rustc").args(flags).arg(&source).arg("-o").arg(&built))
}

fn step(what: &str) {
    println!("xtask: {what}");
}

/// Copies `from` over `to` only when the bytes differ, so that an unchanged object rebuilds nothing.
fn install_if_changed(from: &Path, to: &Path) -> Result<()> {
    let bytes = std::fs::read(from).with_context(|| format!("read {}", from.display()))?;
    if std::fs::read(to).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let folder = to.parent().context("the object has a folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    std::fs::write(to, bytes).with_context(|| format!("write {}", to.display()))
}
