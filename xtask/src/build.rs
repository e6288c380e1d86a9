//! What is built: the eBPF object, then the binaries that embed it.

use anyhow::{Context, Result};

use crate::process::{cargo, root, run};
use crate::setup::bpf_compiler;

/// The eBPF object, where the agent's build script looks for it.
const OBJECT: &str = "target/bpf/hawser.bpf.o";

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

/// Builds every host crate; `dev` leaves optimisation out.
pub fn binaries(dev: bool) -> Result<()> {
    let mut command = cargo();
    command.arg("build");
    if !dev {
        command.arg("--release");
    }
    run(&mut command)
}

/// Copies `from` over `to` only when the bytes differ, so that an unchanged object rebuilds nothing.
fn install_if_changed(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
    let bytes = std::fs::read(from).with_context(|| format!("read {}", from.display()))?;
    if std::fs::read(to).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let folder = to.parent().context("the object has a folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    std::fs::write(to, bytes).with_context(|| format!("write {}", to.display()))
}
