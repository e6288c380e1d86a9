//! Fuzzing by libFuzzer: `fuzz/`, a workspace of its own, with cargo-fuzz in `tools/`.

use anyhow::{Context, Result};

use crate::process::{cargo, root, run};

/// Each target with the folders of its seeds; what a run finds stays under `target/fuzz`.
const TARGETS: &[(&str, &[&str])] =
    &[("cni_call", &["fuzz/corpus/cni_call", "cni/testdata"]), ("api_request", &["fuzz/corpus/api_request"])];

/// Runs every target for `seconds`; what fails lies under `target/fuzz` afterwards.
pub fn run_for(seconds: u32) -> Result<()> {
    let tools = root().join("tools");
    if !tools.join("bin/cargo-fuzz").exists() {
        println!("fuzz: build cargo-fuzz into tools/");
        run(cargo()
            .args(["install", "cargo-fuzz", "--version", "0.13.2", "--locked", "--root"])
            .arg(&tools))?;
    }
    for (target, seeds) in TARGETS {
        let found = root().join("target/fuzz").join(target);
        std::fs::create_dir_all(&found).with_context(|| format!("create {}", found.display()))?;
        let mut fuzz = std::process::Command::new(tools.join("bin/cargo-fuzz"));
        // Sanitizers want a nightly compiler, and there is nothing unsafe here for them to find.
        fuzz.current_dir(root())
            .args(["fuzz", "run", "--sanitizer", "none", "--target-dir", "target/fuzz", target])
            .arg(&found)
            .args(*seeds)
            .args(["--", "-max_len=8192", "-timeout=10", "-artifact_prefix=target/fuzz/"])
            .arg(format!("-max_total_time={seconds}"));
        run(&mut fuzz)?;
    }
    Ok(())
}
