//! `hawser-control`: the control plane in one process, in any set of roles.

mod cli;
mod credentials;
mod memory;
mod run;
mod snapshot;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};

/// Requests make and drop trees of many small pieces, which the C library's allocator spends a third of their time on.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_env("HAWSER_LOG")
                .unwrap_or_else(|_unset| tracing_subscriber::EnvFilter::new("info")),
        )
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    match execute(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hawser-control: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run(options) => {
            memory::in_small_pages();
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(run::run(options))
        }
        Command::NodeCredentials(options) => credentials::write(&options),
        Command::Snapshot { command } => snapshot::run(command),
    }
}
