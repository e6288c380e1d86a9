//! The way to the API server: a kubeconfig, or the service account of the pod the agent runs in.

use std::path::Path;

use anyhow::{Context, Result, bail};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::config::Access;

/// A client with the credentials the command line names.
pub(crate) async fn connect(access: &Access) -> Result<kube::Client> {
    let settings = match &access.kubeconfig {
        Some(path) => from_file(path).await?,
        None => of_service_account(access, |name| std::env::var(name).ok())?,
    };
    kube::Client::try_from(settings).context("make the API client")
}

async fn from_file(path: &Path) -> Result<kube::Config> {
    let shown = path.display();
    let kubeconfig = Kubeconfig::read_from(path).with_context(|| format!("read {shown}"))?;
    kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("{shown} is not usable"))
}

/// The token is named, not read: it is renewed once an hour, and the client reads it again.
fn of_service_account(access: &Access, environment: impl Fn(&str) -> Option<String>) -> Result<kube::Config> {
    let folder = &access.service_account_dir;
    let (token, authority) = (folder.join("token"), folder.join("ca.crt"));
    if !token.exists() {
        bail!("{} is not there: give --kubeconfig, or run as a pod with a service account", token.display());
    }
    let address = match &access.api_server {
        Some(address) => address.clone(),
        None => service(environment)?,
    };
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(&authority).and_then(Iterator::collect);
    let certificates = certificates.with_context(|| format!("read {}", authority.display()))?;
    let mut settings = kube::Config::new(address);
    settings.root_cert = Some(certificates.into_iter().map(|certificate| certificate.to_vec()).collect());
    settings.auth_info =
        AuthInfo { token_file: Some(token.to_string_lossy().into_owned()), ..AuthInfo::default() };
    Ok(settings)
}

/// What every pod is told about the service of the API server.
fn service(environment: impl Fn(&str) -> Option<String>) -> Result<http::Uri> {
    let (host, port) = ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT");
    let (Some(host), Some(port)) = (environment(host), environment(port)) else {
        bail!("neither --api-server nor {host} and {port} say where the API server is");
    };
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    format!("https://{host}:{port}").parse().with_context(|| format!("{host}:{port} is no address"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::{Cli, Command};

    fn configured(folder: &Path, more: &[&str]) -> Access {
        let folder = folder.to_string_lossy().into_owned();
        let base = [
            "hawser-agent",
            "run",
            "--node-name=n1",
            "--node-ip=192.0.2.1",
            "--service-account-dir",
            &folder,
        ];
        match Cli::try_parse_from(base.iter().chain(more)).unwrap().command {
            Command::Run(run) => run.access,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_service_account_is_used_where_the_command_line_or_the_environment_say() {
        let folder = tempfile::tempdir().unwrap();
        let told = |name: &str| match name {
            "KUBERNETES_SERVICE_HOST" => Some("fd00:96::1".to_owned()),
            "KUBERNETES_SERVICE_PORT" => Some("443".to_owned()),
            _ => None,
        };
        let refused = of_service_account(&configured(folder.path(), &[]), told).unwrap_err();
        assert!(refused.to_string().contains("--kubeconfig"), "{refused}");
        let key = rcgen::KeyPair::generate().unwrap();
        let authority = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        std::fs::write(folder.path().join("token"), "t").unwrap();
        std::fs::write(folder.path().join("ca.crt"), authority.pem()).unwrap();
        let settings = of_service_account(&configured(folder.path(), &[]), told).unwrap();
        assert_eq!(settings.cluster_url.to_string(), "https://[fd00:96::1]:443/");
        assert_eq!(settings.root_cert, Some(vec![authority.der().to_vec()]));
        assert!(settings.auth_info.token_file.unwrap().ends_with("/token"));
        let named = configured(folder.path(), &["--api-server=https://192.0.2.10:6443"]);
        let settings = of_service_account(&named, |_| None).unwrap();
        assert_eq!(settings.cluster_url.to_string(), "https://192.0.2.10:6443/");
        let lost = of_service_account(&configured(folder.path(), &[]), |_| None).unwrap_err();
        assert!(lost.to_string().contains("--api-server"), "{lost}");
    }
}
