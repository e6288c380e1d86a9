//! The command line of `hawser-agent`.

use std::process::ExitCode;

use agent::config::{Cli, Command};
use agent::wiring;
use clap::Parser;

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(run) => wiring::run(*run),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hawser-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
