//! An etcd for the control plane: one member on loopback that speaks to nobody without a certificate of its authority.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};

use crate::daemon::Daemon;
use crate::layout::Layout;
use crate::place::Place;

const PATIENCE: Duration = Duration::from_secs(30);

/// Certificates, keys and data below one folder.
struct Files {
    folder: PathBuf,
}

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Starts `program` for the cluster and returns what `hawser-control run` is told.
pub(crate) fn start(layout: &Layout, daemon: &Daemon, program: &Path) -> Result<Vec<String>> {
    let files = Files { folder: layout.etcd() };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&files.folder)
        .with_context(|| format!("create {}", files.folder.display()))?;
    if !files.path("client.key").exists() {
        certify(&files).context("make etcd's certificates")?;
    }
    let (client, peer) = layout.etcd_ports();
    daemon.start(command(program, &files, client, peer), &Place::host())?;
    let began = Instant::now();
    while TcpStream::connect(("127.0.0.1", client)).is_err() {
        daemon.check()?;
        if began.elapsed() > PATIENCE {
            bail!("etcd does not listen; see {}", daemon.log.display());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let flags =
        [("--etcd-cafile", "ca.crt"), ("--etcd-certfile", "client.crt"), ("--etcd-keyfile", "client.key")];
    let servers = ["--etcd-servers".to_owned(), format!("https://127.0.0.1:{client}")];
    let files =
        flags.into_iter().flat_map(|(flag, file)| [flag.to_owned(), files.path(file).display().to_string()]);
    Ok(servers.into_iter().chain(files).collect())
}

fn command(program: &Path, files: &Files, client: u16, peer: u16) -> Command {
    let mut command = Command::new(program);
    command.arg("--data-dir").arg(files.path("data"));
    let (client, peer) = (format!("https://127.0.0.1:{client}"), format!("https://127.0.0.1:{peer}"));
    for (flag, value) in [
        ("--listen-client-urls", &client),
        ("--advertise-client-urls", &client),
        ("--listen-peer-urls", &peer),
        ("--initial-advertise-peer-urls", &peer),
        ("--initial-cluster", &format!("default={peer}")),
    ] {
        command.args([flag, value]);
    }
    for side in ["", "peer-"] {
        command.arg(format!("--{side}client-cert-auth"));
        for (flag, file) in
            [("trusted-ca-file", "ca.crt"), ("cert-file", "server.crt"), ("key-file", "server.key")]
        {
            command.arg(format!("--{side}{flag}")).arg(files.path(file));
        }
    }
    command
}

/// An authority whose key is forgotten at once, and what it signs: etcd's certificate and its client's.
fn certify(files: &Files) -> Result<()> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "hawser-local-etcd");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    private(&files.path("ca.crt"), &authority.pem())?;
    // etcd is also a client, of its own peer port.
    let both = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    for (name, usages) in [("server", both), ("client", vec![ExtendedKeyUsagePurpose::ClientAuth])] {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])?;
        params.extended_key_usages = usages;
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate()?;
        private(&files.path(&format!("{name}.crt")), &params.signed_by(&key, &authority)?.pem())?;
        private(&files.path(&format!("{name}.key")), &key.serialize_pem())?;
    }
    Ok(())
}

fn private(path: &Path, text: &str) -> Result<()> {
    let file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("write {}", path.display()))
}
