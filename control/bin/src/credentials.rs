//! Credentials of a node: a kubeconfig, and a certificate for its kubelet API.

use anyhow::{Context, Result, bail};
use apiserver::pki::{Pki, write_secret};

use crate::cli::CredentialOptions;

/// Writes `kubeconfig`, `kubelet.crt`, `kubelet.key` and `ca.crt`.
pub fn write(options: &CredentialOptions) -> Result<()> {
    let authority = options.data_dir.join("pki/ca.crt");
    if !authority.exists() {
        bail!(
            "{} is missing: start hawser-control once, it makes the cluster's authority",
            authority.display()
        );
    }
    if options.node.is_empty() || options.node.contains(['/', ':', ' ']) {
        bail!("{:?} cannot be the name of a node", options.node);
    }
    let pki = Pki::open(&options.data_dir)?;
    let server = match &options.server {
        Some(server) => server.clone(),
        None => admin_server(options)?,
    };
    let out = &options.out;
    std::fs::create_dir_all(out).with_context(|| format!("create {}", out.display()))?;
    let user = format!("system:node:{}", options.node);
    let client = pki.client(&user, "system:nodes")?;
    let serving = pki.serving(&user, &["system:nodes"], &[&options.node], &options.address)?;
    write_secret(&out.join("kubeconfig"), &pki.kubeconfig(&server, &user, &client))?;
    write_secret(&out.join("kubelet.key"), &serving.key)?;
    write_secret(&out.join("kubelet.crt"), &serving.certificate)?;
    write_secret(&out.join("ca.crt"), &pki.ca_pem)?;
    Ok(())
}

fn admin_server(options: &CredentialOptions) -> Result<String> {
    let path = options.data_dir.join("admin.kubeconfig");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let server = text.lines().find_map(|line| line.trim().strip_prefix("server: "));
    server.map(str::to_owned).with_context(|| format!("{} names no server", path.display()))
}
