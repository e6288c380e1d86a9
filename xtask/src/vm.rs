//! The packet tests on other kernels: Debian's, booted under qemu's software emulation with nothing but a file system in memory.
//!
//! Kernels come as packages from the suites of the mirror this machine is set up with; nothing is installed but qemu and
//! the tools that unpack.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::apt::Apt;
use crate::build;
use crate::process::{cargo, output, root, run};
use crate::setup;

/// Debian's suites, and what their kernels are known as here.
const KERNELS: &[(&str, &str)] =
    &[("5.10", "bullseye"), ("6.1", "bookworm"), ("6.12", "trixie"), ("newest", "trixie-backports")];
/// The kernels of virtual machines: the same source, fewer drivers.
const FLAVOUR: &str = "linux-image-cloud-amd64";
/// What is needed here, and the package that brings it.
const NEEDS: &[(&str, &str)] = &[
    ("/usr/bin/qemu-system-x86_64", "qemu-system-x86"),
    ("/usr/bin/cpio", "cpio"),
    ("/usr/bin/strip", "binutils"),
    ("/usr/bin/xz", "xz-utils"),
    ("/sbin/modinfo", "kmod"),
];
/// Modules the tests use; a kernel that has one built in has no file for it.
const MODULES: &[&str] = &["veth", "vxlan", "dummy", "sch_ingress", "sch_fq", "cls_bpf", "act_bpf", "ipv6"];
/// The tests that are left out: costs are one machine's, and the long ones show nothing about a kernel.
const LEFT_OUT: &[&str] = &["cost", "flood", "hostile"];
/// The tests that make flows older than they are.
const AGED: &[&str] = &["flows", "cases", "tunnel", "sctp"];
/// Seconds a machine has run before it runs those.
const AGE: u32 = 200;
/// Seconds a machine has before it counts as hung.
const PATIENCE: u32 = 900;
/// What the machine says when a test has passed or failed.
const PASSED: &str = "hawser-vm: passed ";
const FAILED: &str = "hawser-vm: failed ";

/// Runs the packet tests on the named kernels, or on all.
pub fn run_on(wanted: &[String]) -> Result<()> {
    let known: Vec<&str> = KERNELS.iter().map(|(name, _)| *name).collect();
    if let Some(unknown) = wanted.iter().find(|name| !known.contains(&name.as_str())) {
        bail!("there is no kernel {unknown}; there are {}", known.join(", "));
    }
    setup::ready()?;
    setup::install(NEEDS)?;
    build::bpf()?;
    let tests = tests()?;
    let suites: Vec<&str> = KERNELS.iter().map(|(_, suite)| *suite).collect();
    let apt = Apt::new(root().join("target/vm"), &suites)?;
    let mut failed = Vec::new();
    for (name, suite) in KERNELS {
        if !wanted.is_empty() && !wanted.iter().any(|one| one == name) {
            continue;
        }
        let kernel = kernel_of(&apt, suite)?;
        println!("vm: {name} is Linux {}", kernel.release);
        let image = kernel.image(&tests)?;
        failed.extend(boot(&kernel, &image, tests.len())?.into_iter().map(|test| format!("{name}: {test}")));
    }
    ensure!(failed.is_empty(), "failed:\n  {}", failed.join("\n  "));
    Ok(())
}

/// The executables of the packet tests.
fn tests() -> Result<Vec<PathBuf>> {
    let listed =
        output(cargo().args(["test", "--package", "ebpf-test", "--no-run", "--message-format=json"]))?;
    let mut found = Vec::new();
    for line in listed.lines() {
        let message: Value = serde_json::from_str(line).context("cargo prints JSON")?;
        let name = message["target"]["name"].as_str().unwrap_or_default();
        let is_test = message["target"]["kind"][0] == "test";
        if let (true, Some(path)) = (is_test, message["executable"].as_str())
            && !LEFT_OUT.contains(&name)
        {
            found.push(PathBuf::from(path));
        }
    }
    ensure!(!found.is_empty(), "cargo has built no packet test");
    // The machine has to be as old as they make their flows.
    found.sort_by_key(|path| AGED.iter().any(|name| is_test(path, name)));
    Ok(found)
}

fn is_test(path: &Path, name: &str) -> bool {
    path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&format!("{name}-")))
}

/// The kernel of a suite, unpacked.
fn kernel_of(apt: &Apt, suite: &str) -> Result<Kernel> {
    let flavour = apt.depends(&format!("{FLAVOUR}/{suite}"))?;
    let image = flavour
        .into_iter()
        .find(|name| name.starts_with("linux-image-"))
        .with_context(|| format!("{FLAVOUR} of {suite} names no kernel"))?;
    let release = image.trim_start_matches("linux-image-").to_owned();
    let folder = root().join("target/vm").join(&release);
    // Newer packages have the kernel and its modules in two more.
    let parts = apt.depends(&image)?.into_iter().filter(|name| name.ends_with(&release));
    let parts = parts.filter(|name| !name.starts_with("linux-base-")).chain([image.clone()]);
    apt.unpack(&parts.collect::<Vec<_>>(), &folder)?;
    Ok(Kernel { release, folder })
}

/// A kernel's files.
struct Kernel {
    release: String,
    folder: PathBuf,
}

impl Kernel {
    /// The compressed kernel.
    fn boots(&self) -> Result<PathBuf> {
        let candidates = ["boot", "usr/lib/modules", "lib/modules"].map(|place| self.folder.join(place));
        let named = [format!("vmlinuz-{}", self.release), format!("{}/vmlinuz", self.release)];
        candidates
            .iter()
            .flat_map(|folder| named.iter().map(|name| folder.join(name)))
            .find(|path| path.exists())
            .with_context(|| format!("the packages of {} hold no kernel", self.release))
    }

    /// The first file system: the tests, what they run, and modules in the order they are loaded.
    fn image(&self, tests: &[PathBuf]) -> Result<PathBuf> {
        let tree = self.folder.join("tree");
        if tree.exists() {
            fs::remove_dir_all(&tree)?;
        }
        for folder in ["bin", "proc", "sys", "dev", "tmp", "run", "modules", "tests"] {
            fs::create_dir_all(tree.join(folder))?;
        }
        fs::copy("/bin/busybox", tree.join("bin/busybox")).context("busybox is installed by setup")?;
        with_libraries(Path::new("/bin/ip"), &tree, "bin/ip")?;
        for test in tests {
            let name = test.file_name().context("a test has a name")?.to_string_lossy();
            with_libraries(test, &tree, &format!("tests/{name}"))?;
            run(Command::new("strip").arg("--strip-debug").arg(tree.join(format!("tests/{name}"))))?;
        }
        // Where the tests look for the object.
        let object = root().join("target/bpf/hawser.bpf.o");
        copy(&object, &tree.join(object.strip_prefix("/").unwrap_or(&object)))?;
        fs::create_dir_all(tree.join(root().join("ebpf/test").strip_prefix("/")?))?;
        let order = self.modules(&tree)?;
        let init = tree.join("init");
        fs::write(&init, init_script(&order, tests)?)?;
        run(Command::new("chmod").arg("755").arg(&init))?;
        let image = self.folder.join("image.cpio");
        let pack = format!("find . -print0 | cpio --null -o -H newc --quiet > {}", image.display());
        run(Command::new("sh").args(["-c", &pack]).current_dir(&tree))?;
        Ok(image)
    }

    /// Copies the modules with all they depend on; answers with their names in the order they are loaded.
    fn modules(&self, tree: &Path) -> Result<Vec<String>> {
        let listed =
            output(Command::new("find").arg(&self.folder).args(["-path", "*/modules/*", "-name", "*.ko*"]))?;
        let files: Vec<&Path> =
            listed.lines().map(Path::new).filter(|path| !path.starts_with(tree)).collect();
        let (mut order, mut wanted) =
            (Vec::new(), MODULES.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        while let Some(name) = wanted.pop() {
            let is_it = |path: &&&Path| {
                let file = path.file_name().unwrap_or_default().to_string_lossy().replace('-', "_");
                file.split('.').next() == Some(&name)
            };
            let Some(file) = files.iter().find(is_it) else { continue };
            order.retain(|known| *known != name);
            order.insert(0, name.clone());
            let module = tree.join(format!("modules/{name}.ko"));
            let unpack = if file.extension().is_some_and(|end| end == "xz") { "xz -dc" } else { "cat" };
            let copy = format!("{unpack} {} > {}", file.display(), module.display());
            run(Command::new("sh").args(["-c", &copy]))?;
            let needs = output(Command::new("/sbin/modinfo").args(["-F", "depends"]).arg(&module))?;
            wanted.extend(
                needs.trim().split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")),
            );
        }
        Ok(order)
    }
}

/// Copies a program and the libraries it is linked with.
fn with_libraries(program: &Path, tree: &Path, to: &str) -> Result<()> {
    copy(program, &tree.join(to))?;
    let listed = output(Command::new("ldd").arg(program))?;
    for word in listed.split_whitespace().filter(|word| word.starts_with('/')) {
        copy(Path::new(word), &tree.join(word.trim_start_matches('/')))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::copy(from, to).with_context(|| format!("copy {}", from.display()))?;
    Ok(())
}

fn init_script(modules: &[String], tests: &[PathBuf]) -> Result<String> {
    let mut script = String::from(
        "#!/bin/busybox sh\n/bin/busybox --install -s /bin\nexport PATH=/bin CI=true RUST_BACKTRACE=0\n\
         mount -t proc none /proc\nmount -t sysfs none /sys\nmount -t devtmpfs none /dev\n\
         mount -t bpf none /sys/fs/bpf\nmount -t cgroup2 none /sys/fs/cgroup\nulimit -l unlimited\nip link set lo up\n",
    );
    for module in modules {
        writeln!(script, "insmod /modules/{module}.ko || echo \"module {module} cannot be loaded\"")?;
    }
    for test in tests {
        if AGED.iter().any(|name| is_test(test, name)) {
            writeln!(script, "while [ $(cut -d. -f1 /proc/uptime) -lt {AGE} ]; do sleep 1; done")?;
        }
        let name = test.file_name().context("a test has a name")?.to_string_lossy();
        let short = name.rsplit_once('-').map_or(&*name, |(short, _)| short);
        writeln!(
            script,
            "if /tests/{name} --nocapture; then echo '{PASSED}{short}'; else echo '{FAILED}{short}'; fi"
        )?;
    }
    script.push_str("poweroff -f\n");
    Ok(script)
}

/// Boots the kernel and answers with the tests that did not pass.
fn boot(kernel: &Kernel, image: &Path, tests: usize) -> Result<Vec<String>> {
    let log = kernel.folder.join("log");
    let mut machine = Command::new("timeout")
        .args([
            &PATIENCE.to_string(),
            "qemu-system-x86_64",
            "-cpu",
            "Nehalem,-cx16",
            "-m",
            "3072",
            "-smp",
            "1",
        ])
        .args(["-nographic", "-no-reboot", "-net", "none", "-append", "console=ttyS0 quiet panic=-1"])
        .arg("-kernel")
        .arg(kernel.boots()?)
        .arg("-initrd")
        .arg(image)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("start qemu")?;
    let console = BufReader::new(machine.stdout.take().context("it is piped")?);
    let mut kept = fs::File::create(&log).with_context(|| format!("write {}", log.display()))?;
    let (mut passed, mut failed) = (0, Vec::new());
    for line in console.split(b'\n') {
        let line = String::from_utf8_lossy(&line?).trim_end().to_owned();
        writeln!(kept, "{line}")?;
        if let Some((_, test)) = line.split_once(PASSED) {
            println!("  passed {test}");
            passed += 1;
        } else if let Some((_, test)) = line.split_once(FAILED) {
            println!("  FAILED {test}");
            failed.push(format!("{test}, see {}", log.display()));
        }
    }
    machine.wait()?;
    if passed + failed.len() < tests {
        failed.push(format!("the machine ended after {passed} of {tests} tests, see {}", log.display()));
    }
    Ok(failed)
}
