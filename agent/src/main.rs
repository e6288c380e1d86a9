//! The command line of `hawser-agent`.

use std::process::ExitCode;

use agent::admin;
use agent::check;
use agent::config::{Cli, Command, Policy};
use agent::wiring;
use clap::Parser;

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(run) => wiring::run(*run),
        Command::Status(ask) => wiring::ask(&ask, admin::show::status),
        Command::Services(ask) => wiring::ask(&ask, admin::show::services),
        Command::Explain(explain) => wiring::explain(explain),
        Command::Policy(Policy::WhatIf(what_if)) => wiring::policy::what_if(&what_if),
        Command::Monitor(monitor) => wiring::monitor(monitor),
        Command::Sysdump(sysdump) => wiring::sysdump(&sysdump),
        Command::Check(check) => check::run(&check),
        Command::CheckServe(serve) => check::traffic::serve(&serve.name, serve.port),
        Command::CheckCall(call) => check::traffic::print_answers(&call.asks, call.patience),
        Command::Cleanup(cleanup) => wiring::cleanup(&cleanup),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hawser-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
