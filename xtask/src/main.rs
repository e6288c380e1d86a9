//! The workshop: every command a person or CI needs, as `cargo xtask <command>`.
//!
//! Runs processes and reads files; knows none of Hawser's crates. Start with `setup.rs` (what a machine needs) and
//! `build.rs` (what is made of it).

mod apt;
mod build;
mod clients;
mod deps;
mod descriptions;
mod e2e;
mod etcd;
mod fuzz;
mod process;
mod setup;
mod tables;
mod test;
mod tidy;
mod vm;
mod wire;

use std::process::Command as Process;

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
    /// Write target/hawser-image.tar, the image that deploy/hawser.yaml names, for `ctr images import`, `docker load` and
    /// `kind load image-archive`.
    Image,
    /// Install, build and bring up a cluster on this machine; apply the example and call it.
    Up {
        /// Nodes, each a network namespace with its own containerd.
        #[arg(long, default_value_t = 1)]
        nodes: u8,
        /// Keep the cluster's objects in an etcd instead of the embedded store.
        #[arg(long)]
        etcd: bool,
    },
    /// Stop the cluster and remove everything but its objects.
    Down {
        /// Remove the objects too.
        #[arg(long)]
        purge: bool,
    },
    /// Install what tests need and run all of them: rules, formats, lints, unit, packet, namespace and cluster tests.
    Test,
    /// Run the cluster tests on namespaces of this machine, or install the agent on a kind cluster and try it there.
    E2e {
        /// What the nodes are.
        #[arg(long, value_enum, default_value = "netns")]
        provider: e2e::Provider,
    },
    /// Check the repository's own rules.
    Tidy,
    /// Check which crate uses which.
    Deps,
    /// Measure, side by side: services against direct addresses, the API server, start-up, memory.
    Bench,
    /// Feed the CNI plugin and the API server whatever libFuzzer thinks of.
    Fuzz {
        /// How long each target runs.
        #[arg(default_value_t = 300)]
        seconds: u32,
    },
    /// Run client-go and kubectl, as Kubernetes has them, against the API server; downloads about 100 MB the first time.
    Clients {
        /// Run only the cases whose names match this regular expression.
        #[arg(long)]
        only: Option<String>,
    },
    /// Kill the API server under load again and again, and see that nothing is lost.
    Kills {
        /// How often.
        #[arg(default_value_t = 1000)]
        cycles: u32,
    },
    /// Boot Debian's kernels under qemu, load every program and run the packet tests on each that have not passed there as
    /// they are now.
    Vm {
        /// Run those too that have passed.
        #[arg(long)]
        again: bool,
        /// One of 5.10, 6.1, 6.12 and newest; all if none is named.
        kernels: Vec<String>,
    },
    /// Rewrite golden files from what the code does now; read the diff.
    Bless,
    /// Generate the API server's tables from a folder with the published facts of the Kubernetes API.
    Tables {
        /// Folder with schemas.json, bootstrap.json and discovery.json.
        #[arg(long)]
        facts: std::path::PathBuf,
    },
}

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Setup => setup::ready(),
        Command::Build { dev } => build::all(dev),
        Command::Bpf => {
            setup::ready()?;
            build::bpf()
        }
        Command::Image => {
            setup::ready()?;
            build::image()
        }
        Command::Up { nodes, etcd } => {
            build::all(false)?;
            let mut up = local(&["up", "--nodes", &nodes.to_string()]);
            if etcd {
                etcd::ready()?;
                up.arg("--etcd").arg(etcd::program());
            }
            process::run(&mut up)
        }
        Command::Down { purge } => {
            build::local()?;
            process::run(&mut local(if purge { &["down", "--purge"] } else { &["down"] }))
        }
        Command::Test => test::all(),
        Command::E2e { provider } => e2e::run_on(provider),
        Command::Tidy => tidy::check(),
        Command::Deps => deps::check(),
        Command::Bench => {
            build::all(false)?;
            process::run(&mut local(&["bench"]))?;
            for bench in [
                "changes",
                "traffic",
                "forwarding",
                "nodes",
                "attach",
                "policies",
                "bandwidth",
                "compile",
                "api",
            ] {
                process::run(process::cargo().args(["bench", "--quiet", "--bench", bench]))?;
            }
            Ok(())
        }
        Command::Fuzz { seconds } => fuzz::run_for(seconds),
        Command::Clients { only } => clients::run_all(only.as_deref()),
        Command::Kills { cycles } => test::kills(cycles),
        Command::Vm { kernels, again } => vm::run_on(&kernels, again),
        Command::Bless => test::bless(),
        Command::Tables { facts } => tables::generate(&facts),
    }
}

/// The program that knows local clusters.
fn local(arguments: &[&str]) -> Process {
    let mut command = Process::new(process::root().join("target/release/hawser-local"));
    command.args(arguments);
    command
}
