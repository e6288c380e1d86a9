//! The CNI plugin: reads what the runtime asks, lets the agent do it, prints the answer.

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use cni::answer::Failure;
use cni::client::Socket;
use cni::front_end::{self, Output};
use cni::request::SUPPORTED;
use cni::spool;

fn main() -> ExitCode {
    let Output { stdout, is_success } = output();
    if stdout.is_empty() || writeln!(io::stdout(), "{stdout}").is_ok() {
        return if is_success { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    // Nobody reads us any more; the exit code is all that is left to say.
    ExitCode::FAILURE
}

fn output() -> Output {
    let mut stdin = Vec::new();
    if let Err(error) = io::stdin().read_to_end(&mut stdin) {
        return Output::failure(&Failure::new(SUPPORTED[SUPPORTED.len() - 1], 5, &error));
    }
    let program = std::env::args_os().next().unwrap_or_default();
    let agent = |path: &Path| Socket { path: path.to_owned() };
    front_end::run(Path::new(&program), std::env::vars_os(), &stdin, agent, spool::queue)
}
