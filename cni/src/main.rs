//! The CNI plugin: reads what the runtime asks, lets the agent do it, prints the answer.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use cni::answer::Failure;
use cni::client::Socket;
use cni::loopback;
use cni::request::{self, SUPPORTED};
use cni::verbs::{self, Answer};

fn main() -> ExitCode {
    let answer = answer();
    let (text, code) = match answer {
        Answer::Silent => return ExitCode::SUCCESS,
        Answer::Printed(text) => (text, ExitCode::SUCCESS),
        Answer::Failed(failure) => {
            (serde_json::to_string(&failure).expect("strings and a number serialize"), ExitCode::FAILURE)
        }
    };
    match writeln!(io::stdout(), "{text}") {
        Ok(()) => code,
        // Nobody reads us any more; the exit code is all that is left to say.
        Err(_) => ExitCode::FAILURE,
    }
}

/// Runtimes up to containerd 1.7 call a plugin of this name for every sandbox; a link to us serves where none is.
fn is_loopback() -> bool {
    let own = std::env::args_os().next().unwrap_or_default();
    std::path::Path::new(&own).file_name() == Some(loopback::NAME.as_ref())
}

fn answer() -> Answer {
    let env = std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let mut stdin = Vec::new();
    if let Err(error) = io::stdin().read_to_end(&mut stdin) {
        return Answer::Failed(Failure::new(SUPPORTED[SUPPORTED.len() - 1], 5, &error));
    }
    match request::parse(&env, &stdin) {
        Ok(request) if is_loopback() => loopback::serve(&request),
        Ok(request) => verbs::serve(&request, &Socket { path: &request.config.agent_socket }),
        Err((version, error)) => Answer::Failed(Failure::new(&version, error.code(), &error)),
    }
}
