//! Programs of Kubernetes' own, unmodified, against our API server: client-go, in a program of ours, and kubectl.
//!
//! Debian's unstable suite has them in the version our API is of. They are unpacked into `tools/clients` with the compiler
//! they want; nothing is installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::apt::Apt;
use crate::etcd;
use crate::process::{cargo, output, root, run};

/// The suite that has Kubernetes 1.36.
const SUITE: &str = "sid";
/// The library of Kubernetes' own server of custom resources, which comes with all it needs; client-go is part of that.
const LIBRARY: &str = "golang-k8s-apiextensions-apiserver-dev";
/// What comes by itself: the compiler, kubectl, etcd.
const PROGRAMS: &[&str] = &["golang-1.26-go", "golang-1.26-src", "kubectl", "etcd-server"];
/// The program that is made of the library.
const TWIN: &str = "k8s.io/apiextensions-apiserver";
/// Where the compiler lies in its package.
const GO: &str = "usr/lib/go-1.26";
/// Where libraries lie in theirs.
const LIBRARIES: &str = "usr/share/gocode";
/// Objects that Kubernetes publishes in every form, in the package of its types.
const PUBLISHED: &str = "src/k8s.io/api/testdata/HEAD";
/// The program's source.
const SOURCE: &str = "control/apiserver/tests/clients";

/// Builds the program and runs it over the embedded store, over Debian's etcd and over the newer one.
pub fn run_all(only: Option<&str>) -> Result<()> {
    let folder = unpacked()?;
    let program = built(&folder)?;
    etcd::ready()?;
    run(cargo()
        .args(["test", "--quiet", "--package", "apiserver", "--lib", "published"])
        .env("HAWSER_PUBLISHED", folder.join(LIBRARIES).join(PUBLISHED)))?;
    run(cargo().args(["build", "--package", "control"]))?;
    for etcd in [None, Some(etcd::program()), Some(folder.join("usr/bin/etcd"))] {
        let mut clients = Command::new(&program);
        clients.arg("-control").arg(root().join("target/debug/hawser-control"));
        clients.arg("-kubectl").arg(folder.join("usr/bin/kubectl"));
        clients.arg("-twin").arg(root().join("target/clients/twin"));
        clients.arg("-twin-etcd").arg(folder.join("usr/bin/etcd"));
        if let Some(etcd) = &etcd {
            clients.arg("-etcd").arg(etcd);
        }
        if let Some(only) = only {
            clients.args(["-run", only]);
        }
        println!("\n== clients over {}", store_name(etcd.as_deref())?);
        run(&mut clients)?;
    }
    Ok(())
}

fn store_name(etcd: Option<&Path>) -> Result<String> {
    let Some(etcd) = etcd else { return Ok("the embedded store".to_owned()) };
    let version = output(Command::new(etcd).arg("--version"))?;
    Ok(version.lines().next().context("etcd names its version")?.to_owned())
}

/// The folder with everything that is not ours.
fn unpacked() -> Result<PathBuf> {
    let folder = root().join("tools/clients");
    if folder.join("complete").exists() {
        return Ok(folder);
    }
    println!("clients: unpack Go, client-go, kubectl and an API server of Debian {SUITE} into tools/clients");
    let apt = Apt::new(root().join("target/clients/apt"), &[SUITE])?;
    let is_library = |name: &str| name.starts_with("golang-") && name.ends_with("-dev");
    let mut packages = apt.closure(LIBRARY, is_library)?;
    ensure!(packages.contains(LIBRARY), "Debian {SUITE} has no {LIBRARY} on this mirror");
    packages.extend(PROGRAMS.iter().map(|&name| name.to_owned()));
    apt.unpack(&packages.into_iter().collect::<Vec<_>>(), &folder)?;
    Ok(folder)
}

/// Compiles the program against the unpacked libraries, and them.
fn built(folder: &Path) -> Result<PathBuf> {
    let program = root().join("target/clients/clients");
    let format = folder.join(GO).join("bin/gofmt");
    let unformatted = output(Command::new(format).args(["-l", "."]).current_dir(root().join(SOURCE)))?;
    ensure!(unformatted.is_empty(), "gofmt would change, in {SOURCE}:\n{unformatted}");
    let twin = root().join("target/clients/twin");
    run(go(folder, "build").arg("-o").arg(twin).arg(TWIN))?;
    run(go(folder, "vet").arg(".").current_dir(root().join(SOURCE)))?;
    run(go(folder, "build").arg("-o").arg(&program).arg(".").current_dir(root().join(SOURCE)))?;
    Ok(program)
}

fn go(folder: &Path, task: &str) -> Command {
    let mut go = Command::new(folder.join(GO).join("bin/go"));
    go.arg(task);
    if task == "build" {
        go.args(["-trimpath", "-p", "2"]);
    }
    // Debian's libraries lie as Go had them before modules.
    go.env("GO111MODULE", "off")
        .env("GOROOT", folder.join(GO))
        .env("GOPATH", folder.join(LIBRARIES))
        .env("GOCACHE", root().join("target/clients/cache"))
        .env("GOTOOLCHAIN", "local")
        .env("CGO_ENABLED", "0");
    go
}
