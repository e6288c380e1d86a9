//! Packages of Debian's other suites, unpacked into a folder and not installed.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::process::{on_path, output, run};

/// An apt of our own, that knows the suites it is told and touches nothing of the machine's.
pub struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Reads what the suites hold from the mirror this machine is set up with; apt holds every list and package to
    /// Debian's signatures.
    pub fn new(folder: PathBuf, suites: &[&str]) -> Result<Self> {
        ensure!(
            on_path("apt-get") && on_path("dpkg-deb"),
            "there is no apt-get here: this command takes packages from a mirror of Debian, and runs on Debian alone"
        );
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(part)).context("make room for apt")?;
        }
        let known = output(Command::new("apt-get").args([
            "indextargets",
            "--format",
            "$(REPO_URI) $(COMPONENT) $(LABEL)",
        ]))?;
        let mirror = known
            .lines()
            .find_map(|line| line.strip_suffix(" main Debian"))
            .context("apt knows no mirror of Debian's main; run `apt-get update`")?;
        let mut sources = String::new();
        for suite in suites {
            let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
            writeln!(sources, "deb [signed-by={keys}] {mirror} {suite} main")?;
        }
        fs::write(folder.join("sources.list"), sources).context("write sources.list")?;
        fs::write(folder.join("status"), "").context("write status")?;
        let apt = Self { folder };
        run(apt.command("apt-get").args(["update", "-qq"]))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (option, value) in [
            ("Dir::Etc::SourceList", self.folder.join("sources.list")),
            ("Dir::Etc::SourceParts", PathBuf::from("/dev/null")),
            ("Dir::State::Lists", self.folder.join("lists")),
            // What this machine has installed does not matter.
            ("Dir::State::Status", self.folder.join("status")),
            ("Dir::Cache", self.folder.join("cache")),
            ("APT::Sandbox::User", PathBuf::from("root")),
        ] {
            command.arg("-o").arg(format!("{option}={}", value.display()));
        }
        command
    }

    /// What a package names as its dependencies.
    pub fn depends(&self, package: &str) -> Result<Vec<String>> {
        let shown = output(self.command("apt-cache").args(["show", "--no-all-versions", package]))?;
        let line = shown.lines().find_map(|line| line.strip_prefix("Depends: ")).unwrap_or_default();
        Ok(line.split(", ").filter_map(|one| one.split(' ').next()).map(str::to_owned).collect())
    }

    /// A package and everything it depends on, directly or not, as far as the names are `wanted`.
    pub fn closure(&self, package: &str, wanted: fn(&str) -> bool) -> Result<BTreeSet<String>> {
        let listed = output(self.command("apt-cache").args([
            "depends",
            "--recurse",
            "--no-recommends",
            "--no-suggests",
            "--no-conflicts",
            "--no-breaks",
            "--no-replaces",
            "--no-enhances",
            package,
        ]))?;
        // Names begin lines; what stands behind spaces or in angle brackets is said again, or virtual.
        let names = listed.lines().filter(|line| line.starts_with(char::is_alphanumeric));
        Ok(names.filter(|name| wanted(name)).map(str::to_owned).collect())
    }

    /// Downloads packages and unpacks them into `folder`; nothing is done when that was done before.
    pub fn unpack(&self, packages: &[String], folder: &Path) -> Result<()> {
        let complete = folder.join("complete");
        if complete.exists() {
            return Ok(());
        }
        let downloads = folder.join("packages");
        fs::create_dir_all(&downloads).context("make room for packages")?;
        run(self
            .command("apt-get")
            .arg("download")
            .args(packages)
            .current_dir(&downloads)
            .stdout(Stdio::null()))?;
        for entry in fs::read_dir(&downloads)? {
            run(Command::new("dpkg-deb").arg("-x").arg(entry?.path()).arg(folder))?;
        }
        fs::remove_dir_all(&downloads)?;
        fs::write(&complete, "").with_context(|| format!("write {}", complete.display()))
    }
}
