//! Real etcd processes for tests: one member or a cluster, on loopback ports, with data in a temporary folder.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use store::{Codec, EtcdOptions, EtcdTls};

/// Where `cargo xtask test` unpacks etcd; `HAWSER_ETCD` names another one.
fn program() -> Option<PathBuf> {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/etcd/usr/bin/etcd");
    let given = std::env::var_os("HAWSER_ETCD").map(PathBuf::from);
    given.or_else(|| unpacked.exists().then_some(unpacked))
}

/// Whether there is an etcd; says so when there is none, and fails in CI.
pub fn available() -> bool {
    let found = program().is_some();
    if !found {
        assert!(std::env::var_os("CI").is_none(), "CI must have etcd: `cargo xtask test` unpacks it");
        println!("skipped: there is no etcd; `cargo xtask test` unpacks one, HAWSER_ETCD names one");
    }
    found
}

/// A cluster of etcd. Dropping it kills its members.
pub struct Etcd {
    members: Vec<Member>,
    folder: tempfile::TempDir,
    tls: Option<EtcdTls>,
    more: Vec<String>,
}

struct Member {
    name: String,
    client: u16,
    peer: u16,
    process: Option<Child>,
}

impl Member {
    fn new(number: usize, client: u16, peer: u16) -> Self {
        Self { name: format!("m{number}"), client, peer, process: None }
    }

    /// Returns when it listens, on a busy machine later than a store has patience, or when it has ended.
    fn listens(&mut self) -> bool {
        for _ in 0..1200 {
            if self.process.as_mut().is_none_or(|process| process.try_wait().unwrap().is_some()) {
                return false;
            }
            if std::net::TcpStream::connect(("127.0.0.1", self.client)).is_ok() {
                return true;
            }
            std::thread::sleep(std::time::Duration::from_millis(25));
        }
        panic!("etcd does not listen after 30 s");
    }
}

impl Etcd {
    /// One member, plain HTTP.
    pub fn start() -> Self {
        Self::with(1, None, &[])
    }

    /// Members of one cluster. `tls` names a folder with `ca.crt`, `server.crt`, `server.key`, and what clients need.
    pub fn with(members: usize, tls: Option<(&Path, EtcdTls)>, more: &[&str]) -> Self {
        let mut more: Vec<String> = more.iter().map(|flag| (*flag).to_owned()).collect();
        let mut client_tls = None;
        if let Some((folder, tls)) = tls {
            for (flag, file) in
                [("--cert-file", "server.crt"), ("--key-file", "server.key"), ("--trusted-ca-file", "ca.crt")]
            {
                more.push(format!("{flag}={}", folder.join(file).display()));
            }
            more.push("--client-cert-auth".to_owned());
            client_tls = Some(tls);
        }
        let folder = tempfile::tempdir().unwrap();
        let mut etcd = Self { members: Vec::new(), folder, tls: client_tls, more };
        for _ in 0..5 {
            let ports = free_ports(members * 2);
            etcd.members = (0..members).map(|n| Member::new(n, ports[2 * n], ports[2 * n + 1])).collect();
            (0..members).for_each(|member| etcd.start_member(member));
            if etcd.members.iter_mut().all(Member::listens) {
                return etcd;
            }
            // Somebody else has taken one of the ports meanwhile.
            (0..members).for_each(|member| etcd.kill(member));
            etcd.folder = tempfile::tempdir().unwrap();
        }
        panic!("etcd ends at its start, five times, on ports that were free")
    }

    /// How a store reaches it.
    pub fn options(&self, root: &str) -> EtcdOptions {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        EtcdOptions {
            endpoints: self.members.iter().map(|m| format!("{scheme}://127.0.0.1:{}", m.client)).collect(),
            tls: self.tls.clone(),
            root: root.to_owned(),
            codec: Codec::PLAIN,
        }
    }

    /// kill -9.
    pub fn kill(&mut self, member: usize) {
        if let Some(mut process) = self.members[member].process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Starts a member, with the data it had.
    pub fn start_member(&mut self, member: usize) {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let cluster: Vec<String> =
            self.members.iter().map(|m| format!("{}=http://127.0.0.1:{}", m.name, m.peer)).collect();
        let one = &self.members[member];
        let log = std::fs::File::create(self.folder.path().join(format!("{}.log", one.name))).unwrap();
        // A test that is killed takes its members along.
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program().expect("the caller asked whether there is one"))
            .args(["--name", &one.name])
            .arg("--data-dir")
            .arg(self.folder.path().join(&one.name))
            .args(["--listen-client-urls", &format!("{scheme}://127.0.0.1:{}", one.client)])
            .args(["--advertise-client-urls", &format!("{scheme}://127.0.0.1:{}", one.client)])
            .args(["--listen-peer-urls", &format!("http://127.0.0.1:{}", one.peer)])
            .args(["--initial-advertise-peer-urls", &format!("http://127.0.0.1:{}", one.peer)])
            .args(["--initial-cluster", &cluster.join(",")])
            .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
            .args(&self.more)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.members[member].process = Some(process);
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        (0..self.members.len()).for_each(|member| self.kill(member));
    }
}

/// Ports that were free a moment ago, all different, of those that systems do not give to clients.
fn free_ports(count: usize) -> Vec<u16> {
    let mut held: Vec<TcpListener> = Vec::new();
    while held.len() < count {
        held.extend(TcpListener::bind(("127.0.0.1", rand::random_range(12_000..32_000))));
    }
    held.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}
