//! Processes that outlive `up`: started in the background with a pid file and a log, found and ended by `down`.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::layout::Layout;
use crate::place::Place;

/// A background process of a cluster.
#[derive(Debug, Clone)]
pub struct Daemon {
    pub name: String,
    pub log: PathBuf,
    pid_file: PathBuf,
}

impl Daemon {
    pub(crate) fn new(layout: &Layout, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            log: layout.logs().join(format!("{name}.log")),
            pid_file: layout.pids().join(name),
        }
    }

    /// Starts `command` in `place`, in a session of its own, unless it runs already.
    pub(crate) fn start(&self, mut command: Command, place: &Place) -> Result<()> {
        if self.pid().is_some() {
            return Ok(());
        }
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("open {}", self.log.display()))?;
        let errors = log.try_clone().context("duplicate the log's handle")?;
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        place.enter_before_exec(&mut command)?;
        // SAFETY: setsid is async-signal-safe and touches no memory of the parent.
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                Ok(())
            });
        }
        let child = command.spawn().with_context(|| format!("start {}", self.name))?;
        fs::write(&self.pid_file, child.id().to_string())
            .with_context(|| format!("write {}", self.pid_file.display()))
    }

    /// The process id, if the process that wrote the pid file still runs.
    pub fn pid(&self) -> Option<Pid> {
        let text = fs::read_to_string(&self.pid_file).ok()?;
        let pid = Pid::from_raw(text.trim().parse().ok()?);
        is_alive(pid).then_some(pid)
    }

    /// Whether the running process has this flag on its command line.
    pub(crate) fn was_told(&self, flag: &str) -> bool {
        let Some(pid) = self.pid() else { return false };
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split('\0').any(|word| word == flag)
    }

    /// An error with the end of the log when the process is gone.
    pub(crate) fn check(&self) -> Result<()> {
        if self.pid().is_some() {
            return Ok(());
        }
        bail!("{} ended; the end of {} is:\n{}", self.name, self.log.display(), self.tail());
    }

    pub(crate) fn tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// Sends SIGTERM, waits, and then SIGKILL. A process that is gone is no error.
    pub fn stop(&self, patience: Duration) {
        let Some(pid) = self.pid() else { return };
        for (signal, patience) in [(Signal::SIGTERM, patience), (Signal::SIGKILL, Duration::from_secs(5))] {
            // A process that ended meanwhile needs no signal.
            kill(pid, signal).ok();
            let deadline = Instant::now() + patience;
            while is_alive(pid) && Instant::now() < deadline {
                reap(pid);
                std::thread::sleep(Duration::from_millis(5));
            }
            if !is_alive(pid) {
                break;
            }
        }
        fs::remove_file(&self.pid_file).ok();
    }

    /// `kill -9`, as a crash would.
    pub fn kill(&self) -> Result<()> {
        let pid = self.pid().with_context(|| format!("{} does not run", self.name))?;
        kill(pid, Signal::SIGKILL).with_context(|| format!("kill {}", self.name))?;
        while is_alive(pid) {
            reap(pid);
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

/// Every daemon of the cluster that left a pid file.
pub(crate) fn all(layout: &Layout) -> Vec<Daemon> {
    let Ok(entries) = fs::read_dir(layout.pids()) else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut daemons: Vec<Daemon> = names.map(|name| Daemon::new(layout, &name)).collect();
    daemons.sort_by(|a, b| a.name.cmp(&b.name));
    daemons
}

/// Programs a cluster starts, directly or through containerd.
const PROGRAMS: [&str; 6] =
    ["hawser-control", "hawser-agent", "containerd", "containerd-shim-runc-v2", "ctr", "etcd"];

/// Processes of a cluster or a node that no pid file knows, as after a crash between start and note: known by their program
/// and by one of these paths on their command line.
pub(crate) fn strays(places: &[PathBuf]) -> Result<Vec<Pid>> {
    let places: Vec<String> = places.iter().map(|path| path.display().to_string()).collect();
    // `n1` is the beginning of `n10`.
    let names = |word: &str, place: &String| word.contains(&format!("{place}/")) || word.ends_with(place);
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("read /proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process that ended meanwhile has no command line.
        let line = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        let program = line.split('\0').next().and_then(|path| path.rsplit('/').next()).unwrap_or_default();
        if PROGRAMS.contains(&program)
            && line.split('\0').any(|word| places.iter().any(|place| names(word, place)))
        {
            found.push(Pid::from_raw(pid));
        }
    }
    Ok(found)
}

/// Ends processes that have had their chance.
pub(crate) fn kill_all(pids: &[Pid]) {
    for pid in pids {
        // One that ended meanwhile needs no signal.
        kill(*pid, Signal::SIGKILL).ok();
    }
    for pid in pids {
        while is_alive(*pid) {
            reap(*pid);
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Alive and not a zombie.
fn is_alive(pid: Pid) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}

/// Takes the exit status if the process is a child of this one, as in tests; elsewhere init does it.
fn reap(pid: Pid) {
    nix::sys::wait::waitpid(pid, Some(nix::sys::wait::WaitPidFlag::WNOHANG)).ok();
}
