//! What a machine boots: a kernel of Debian's, and a first file system with the tests, what they run, and modules.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::machine::{BEGINS, FAILED, PASSED, WANTED};
use super::{Test, object};
use crate::process::{output, root, run};

/// Modules the tests use; a kernel that has one built in has no file for it.
const MODULES: &[&str] = &["veth", "vxlan", "dummy", "sch_ingress", "sch_fq", "cls_bpf", "act_bpf", "ipv6"];
/// Seconds a machine has run before it runs the tests that make flows older than they are.
const AGE: u32 = 200;

/// A kernel's files.
pub struct Kernel {
    /// Its name, as `uname -r` says it.
    pub release: String,
    /// Where its packages are unpacked, and what belongs to it is kept.
    pub folder: PathBuf,
}

impl Kernel {
    /// The compressed kernel.
    pub fn boots(&self) -> Result<PathBuf> {
        let candidates = ["boot", "usr/lib/modules", "lib/modules"].map(|place| self.folder.join(place));
        let named = [format!("vmlinuz-{}", self.release), format!("{}/vmlinuz", self.release)];
        candidates
            .iter()
            .flat_map(|folder| named.iter().map(|name| folder.join(name)))
            .find(|path| path.exists())
            .with_context(|| format!("the packages of {} hold no kernel", self.release))
    }

    /// The first file system: the tests, what they run, and modules in the order they are loaded.
    pub fn image(&self, tests: &[Test]) -> Result<PathBuf> {
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
            let place = format!("tests/{}", test.name);
            with_libraries(&test.executable, &tree, &place)?;
            run(Command::new("strip").arg("--strip-debug").arg(tree.join(place)))?;
        }
        // Where the tests look for the object.
        let object = object();
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

fn init_script(modules: &[String], tests: &[Test]) -> Result<String> {
    let mut script = String::from(
        "#!/bin/busybox sh\n/bin/busybox --install -s /bin\nexport PATH=/bin CI=true RUST_BACKTRACE=0\n\
         mount -t proc none /proc\nmount -t sysfs none /sys\nmount -t devtmpfs none /dev\n\
         mount -t bpf none /sys/fs/bpf\nmount -t cgroup2 none /sys/fs/cgroup\nulimit -l unlimited\nip link set lo up\n",
    );
    for module in modules {
        writeln!(script, "insmod /modules/{module}.ko || echo \"module {module} cannot be loaded\"")?;
    }
    let aged: Vec<&str> = tests.iter().filter(|test| test.is_aged()).map(|test| test.name.as_str()).collect();
    write!(
        script,
        "for test in $(tr ' ' '\\n' < /proc/cmdline | sed -n 's/^{WANTED}//p' | tr , ' '); do\n\
         case $test in {}) while [ $(cut -d. -f1 /proc/uptime) -lt {AGE} ]; do sleep 1; done ;; esac\n\
         echo \"{BEGINS}$test\"\n\
         if /tests/$test --nocapture; then echo \"{PASSED}$test\"; else echo \"{FAILED}$test\"; fi\n\
         done\npoweroff -f\n",
        aged.join("|")
    )?;
    Ok(script)
}
