//! Embeds the eBPF object that `cargo xtask bpf` builds; without it the agent compiles and says so when it starts.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let object = manifest.join("../target/bpf/hawser.bpf.o");
    println!("cargo:rerun-if-changed={}", object.display());
    let embedded = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("hawser.bpf.o");
    // No object is an empty one: the agent explains itself at run time.
    let bytes = fs::read(&object).unwrap_or_default();
    fs::write(&embedded, bytes).expect("OUT_DIR is writable");
}
