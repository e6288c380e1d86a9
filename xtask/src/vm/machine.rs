//! One machine: how it is started, what it says, and when it counts as hung.

use std::fmt;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// How long a machine may say nothing before it counts as hung. Emulation beside other work has taken ten minutes for a test
/// that a real machine runs in seconds, and a whole machine is not timed at all.
pub const SILENCE: Duration = Duration::from_secs(1800);
/// The word of the kernel's command line that names the tests.
pub const WANTED: &str = "hawser.tests=";
/// What the machine says when a test begins, has passed or has failed.
pub const BEGINS: &str = "hawser-vm: begins ";
/// See [`BEGINS`].
pub const PASSED: &str = "hawser-vm: passed ";
/// See [`BEGINS`].
pub const FAILED: &str = "hawser-vm: failed ";
/// Lines that wait to be looked at.
const LINES: usize = 64;

/// What a machine says of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said<'a> {
    /// It has passed.
    Passed(&'a str),
    /// It has failed.
    Failed(&'a str),
}

impl<'a> Said<'a> {
    /// What a line of the console says, if it is about a test. The kernel's own words may stand before it.
    fn parse(line: &'a str) -> Option<Self> {
        let after = |mark| line.split_once(mark).map(|(_, name)| name);
        after(PASSED).map(Self::Passed).or_else(|| after(FAILED).map(Self::Failed))
    }
}

/// How a machine ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself: it was done, or its kernel panicked.
    Off,
    /// It said nothing for too long.
    Silent,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "the machine ended",
            Self::Silent => "the machine fell silent",
        })
    }
}

/// The command that boots a kernel with a first file system, to run the named tests.
pub fn emulated(kernel: &Path, image: &Path, tests: &[&str]) -> Command {
    // The machine ends with us, however we end.
    let mut machine = Command::new("setpriv");
    machine.args(["--pdeathsig", "KILL", "qemu-system-x86_64", "-cpu", "Nehalem,-cx16"]);
    machine.args(["-m", "3072", "-smp", "1", "-nographic", "-no-reboot", "-net", "none"]);
    let words = format!("console=ttyS0 quiet panic=-1 {WANTED}{}", tests.join(","));
    machine.args(["-append", &words]).arg("-kernel").arg(kernel).arg("-initrd").arg(image);
    machine
}

/// Runs a machine to its end, or kills it when it says nothing for as long as `silence`; keeps what it says in `log`, and
/// hands on what it says of tests.
pub fn listen(
    machine: &mut Command,
    mut log: &File,
    silence: Duration,
    mut heard: impl FnMut(Said<'_>) -> Result<()>,
) -> Result<End> {
    let mut machine =
        machine.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("start the machine")?;
    let console = machine.stdout.take().context("it is piped")?;
    let (says, lines) = sync_channel(LINES);
    let reader = thread::spawn(move || read(console, &says));
    let end = hear(&lines, silence, |line| {
        writeln!(log, "{line}").context("write the log")?;
        Said::parse(line).map_or(Ok(()), &mut heard)
    });
    // Nothing more is wanted of it, whether it is off, hung, or we cannot go on; the reader ends with it.
    drop(lines);
    machine.kill().context("stop the machine")?;
    machine.wait().context("wait for the machine")?;
    reader.join().expect("reading does not panic").context("read what the machine says")?;
    end
}

/// Sends the console's lines until there are no more, or nobody wants them.
fn read(console: ChildStdout, says: &SyncSender<String>) -> std::io::Result<()> {
    for line in BufReader::new(console).split(b'\n') {
        if says.send(String::from_utf8_lossy(&line?).trim_end().to_owned()).is_err() {
            break;
        }
    }
    Ok(())
}

fn hear(
    lines: &Receiver<String>,
    silence: Duration,
    mut heard: impl FnMut(&str) -> Result<()>,
) -> Result<End> {
    loop {
        match lines.recv_timeout(silence) {
            Ok(line) => heard(&line)?,
            Err(RecvTimeoutError::Disconnected) => return Ok(End::Off),
            Err(RecvTimeoutError::Timeout) => return Ok(End::Silent),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _};

    use super::*;

    fn shell(script: &str, silence: Duration) -> (End, Vec<String>, String) {
        let mut log = tempfile();
        let mut said = Vec::new();
        let end = listen(Command::new("sh").args(["-c", script]), &log, silence, |one| {
            said.push(format!("{one:?}"));
            Ok(())
        });
        let mut kept = String::new();
        log.rewind().unwrap();
        log.read_to_string(&mut kept).unwrap();
        (end.unwrap(), said, kept)
    }

    /// A file without a name.
    fn tempfile() -> File {
        let path = std::env::temp_dir().join(format!("hawser-vm-{:?}", thread::current().id()));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file
    }

    #[test]
    fn a_machine_is_heard_to_its_end() {
        let script =
            "echo 'hawser-vm: begins a'; echo '[ 1.0] hawser-vm: passed a'; echo 'hawser-vm: failed b'";
        let (end, said, kept) = shell(script, Duration::from_secs(60));
        assert_eq!(end, End::Off);
        assert_eq!(said, ["Passed(\"a\")", "Failed(\"b\")"]);
        assert_eq!(kept.lines().count(), 3, "{kept}");
    }

    #[test]
    fn a_machine_that_says_nothing_is_stopped() {
        let script = "echo 'hawser-vm: passed a'; exec sleep 600";
        let (end, said, _) = shell(script, Duration::from_millis(300));
        assert_eq!(end, End::Silent);
        assert_eq!(said, ["Passed(\"a\")"]);
    }

    #[test]
    fn a_machine_that_goes_on_talking_has_all_the_time_it_wants() {
        let script = "for i in 1 2 3 4 5 6; do echo $i; sleep 0.2; done; echo 'hawser-vm: passed a'";
        let (end, said, _) = shell(script, Duration::from_millis(900));
        assert_eq!((end, said.len()), (End::Off, 1));
    }
}
