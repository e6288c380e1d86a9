//! The plugin without the process around it: name, environment and standard input in, standard output and exit status out.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::Path;

use crate::answer::Failure;
use crate::client::Agent;
use crate::loopback;
use crate::request::{self, Malformed, SUPPORTED};
use crate::spool::Waiting;
use crate::verbs::{self, Answer};

/// What the specification tells plugins in their environment (CNI spec 1.1, section 2).
const VARIABLES: [&str; 5] = ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"];

/// What the process does with itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// One line of JSON without its end; empty where the specification asks for nothing.
    pub stdout: String,
    /// Whether the exit status is zero.
    pub is_success: bool,
}

impl Output {
    /// The output of a failure: the error object, and a status other than zero.
    pub fn failure(failure: &Failure) -> Self {
        let stdout = serde_json::to_string(failure).expect("strings and a number serialize");
        Self { stdout, is_success: false }
    }
}

impl From<Answer> for Output {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Silent => Self { stdout: String::new(), is_success: true },
            Answer::Printed(stdout) => Self { stdout, is_success: true },
            Answer::Failed(failure) => Self::failure(&failure),
        }
    }
}

/// Serves one call. `program` is the name the plugin was called by, `agent` makes a client of a socket's path, `queue`
/// keeps a DEL in a directory.
pub fn run<A: Agent>(
    program: &Path,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    stdin: &[u8],
    agent: impl FnOnce(&Path) -> A,
    queue: impl FnOnce(&Path, &Waiting) -> io::Result<()>,
) -> Output {
    let newest = SUPPORTED[SUPPORTED.len() - 1];
    let environment = match ours(environment) {
        Ok(environment) => environment,
        Err(error) => return Output::failure(&Failure::new(newest, error.code(), &error)),
    };
    match request::parse(&environment, stdin) {
        Ok(request) if is_loopback(program) => loopback::serve(&request).into(),
        Ok(request) => verbs::serve(&request, &agent(&request.config.agent_socket), queue).into(),
        Err((version, error)) => Output::failure(&Failure::new(&version, error.code(), &error)),
    }
}

/// The variables that are meant for plugins.
fn ours(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<BTreeMap<String, String>, Malformed> {
    let mut found = BTreeMap::new();
    for (key, value) in environment {
        let Some(name) = VARIABLES.into_iter().find(|name| key == **name) else { continue };
        let value = value.into_string().map_err(|value| Malformed::BadVariable {
            name,
            value: value.to_string_lossy().into_owned(),
            want: "it must be UTF-8",
        })?;
        found.insert(name.to_owned(), value);
    }
    Ok(found)
}

/// Runtimes up to containerd 1.7 call a plugin of this name for every sandbox; a link to us serves where none is.
fn is_loopback(program: &Path) -> bool {
    program.file_name() == Some(loopback::NAME.as_ref())
}
