//! The workshop: every command a person or CI needs, as `cargo xtask <command>`.
//!
//! Runs processes and reads files; knows none of Hawser's crates. Start with `setup.rs` (what a machine needs) and
//! `build.rs` (what is made of it).

mod build;
mod process;
mod setup;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build, run and check Hawser")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what building and running needs; each step is skipped when its result is there already.
    Setup,
    /// Build the eBPF object and every binary.
    Build {
        /// Build without optimisation.
        #[arg(long)]
        dev: bool,
    },
    /// Build only the eBPF object, target/bpf/hawser.bpf.o.
    Bpf,
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Setup => setup::ready(),
        Command::Build { dev } => {
            setup::ready()?;
            build::bpf()?;
            build::binaries(dev)
        }
        Command::Bpf => {
            setup::ready()?;
            build::bpf()
        }
    }
}
