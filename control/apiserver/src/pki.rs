//! The cluster's own certificate authority: made on first start, and the certificates it signs.
//!
//! The CA and the key that signs tokens stay for the life of the cluster. Everything else is signed anew at each start,
//! long before it expires.

use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

/// Why the PKI cannot be read or made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("{action} {path}")]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("a certificate or key cannot be made or read")]
    Certificate(#[from] rcgen::Error),
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Pair")
    }
}

/// The authority in `<data>/pki`.
pub struct Pki {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    /// The CA's certificate.
    pub ca_pem: String,
}

impl std::fmt::Debug for Pki {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Pki").field("folder", &self.folder).finish_non_exhaustive()
    }
}

const CA_YEARS: i16 = 10;
const LEAF_YEARS: i16 = 1;

impl Pki {
    /// Reads the authority below `data`, making it on first use.
    pub fn open(data: &Path) -> Result<Self, PkiError> {
        let folder = data.join("pki");
        std::fs::create_dir_all(&folder).map_err(|source| PkiError::File {
            action: "create the folder",
            path: folder.clone(),
            source,
        })?;
        let (certificate, key) = (folder.join("ca.crt"), folder.join("ca.key"));
        if !certificate.exists() || !key.exists() {
            let pair = make_authority()?;
            // The key first: a certificate without its key would look like a finished authority.
            write_secret(&key, &pair.key)?;
            write_secret(&certificate, &pair.certificate)?;
        }
        let ca_pem = read(&certificate)?;
        let signing = KeyPair::from_pem(&read(&key)?)?;
        let issuer = Issuer::from_ca_cert_pem(&ca_pem, signing)?;
        Ok(Self { folder, issuer, ca_pem })
    }

    /// The API server's certificate for these addresses and the names of the `kubernetes` Service, also written to
    /// `pki/apiserver.crt`.
    pub fn apiserver(&self, addresses: &[IpAddr]) -> Result<Pair, PkiError> {
        let names = [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ];
        let pair = self.serving("kube-apiserver", &[], &names, addresses)?;
        write_anew(&self.folder.join("apiserver.key"), &pair.key)?;
        write_anew(&self.folder.join("apiserver.crt"), &pair.certificate)?;
        Ok(pair)
    }

    /// The certificate with which the API server speaks to nodes.
    pub fn kubelet_client(&self) -> Result<Pair, PkiError> {
        let pair = self.client("kube-apiserver-kubelet-client", "system:masters")?;
        write_anew(&self.folder.join("kubelet-client.key"), &pair.key)?;
        write_anew(&self.folder.join("kubelet-client.crt"), &pair.certificate)?;
        Ok(pair)
    }

    /// A server certificate.
    pub fn serving(
        &self,
        name: &str,
        groups: &[&str],
        names: &[&str],
        addresses: &[IpAddr],
    ) -> Result<Pair, PkiError> {
        let mut params = subject(name, groups.first().copied())?;
        for name in names {
            params.subject_alt_names.push(SanType::DnsName((*name).try_into()?));
        }
        params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    /// A client certificate of a user in one group. (rcgen writes only one organisation.)
    pub fn client(&self, user: &str, group: &str) -> Result<Pair, PkiError> {
        let mut params = subject(user, Some(group))?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    fn sign(&self, mut params: CertificateParams) -> Result<Pair, PkiError> {
        validity(&mut params, LEAF_YEARS);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// Private and public PEM of the key that signs service account tokens.
    pub fn token_key(&self) -> Result<(String, String), PkiError> {
        let path = self.folder.join("sa.key");
        if !path.exists() {
            write_secret(&path, &KeyPair::generate()?.serialize_pem())?;
        }
        let private = read(&path)?;
        let public = KeyPair::from_pem(&private)?.public_key_pem();
        Ok((private, public))
    }

    /// A kubeconfig with an embedded client certificate.
    pub fn kubeconfig(&self, server: &str, user: &str, pair: &Pair) -> String {
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: hawser\n  cluster:\n    server: {server}\n    \
             certificate-authority-data: {}\nusers:\n- name: {user}\n  user:\n    client-certificate-data: {}\n    \
             client-key-data: {}\ncontexts:\n- name: hawser\n  context:\n    cluster: hawser\n    user: {user}\n\
             current-context: hawser\n",
            encode(&self.ca_pem),
            encode(&pair.certificate),
            encode(&pair.key),
        )
    }
}

fn make_authority() -> Result<Pair, PkiError> {
    let mut params = subject("hawser-ca", None)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    validity(&mut params, CA_YEARS);
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

fn subject(name: &str, group: Option<&str>) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

/// From yesterday, so that a clock that is a little behind does not refuse a new certificate.
fn validity(params: &mut CertificateParams, years: i16) {
    let date = |date: jiff::civil::Date| {
        let (month, day) = (date.month().unsigned_abs(), date.day().unsigned_abs());
        rcgen::date_time_ymd(i32::from(date.year()), month, day)
    };
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let end = today.saturating_add(jiff::Span::new().years(years));
    params.not_before = date(today.yesterday().unwrap_or(today));
    params.not_after = date(end);
}

fn read(path: &Path) -> Result<String, PkiError> {
    std::fs::read_to_string(path).map_err(|source| PkiError::File {
        action: "read",
        path: path.to_owned(),
        source,
    })
}

/// Writes a file only its owner may read; readers see the old content or the new, never half. It is on disk then.
pub fn write_secret(path: &Path, text: &str) -> Result<(), PkiError> {
    write(path, text, File::sync_all)
}

/// The same for what each start writes anew, and so need not outlive the machine.
pub fn write_anew(path: &Path, text: &str) -> Result<(), PkiError> {
    write(path, text, |_| Ok(()))
}

fn write(path: &Path, text: &str, sync: impl FnOnce(&File) -> std::io::Result<()>) -> Result<(), PkiError> {
    let failed = |source| PkiError::File { action: "write", path: path.to_owned(), source };
    let temporary = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| sync(&file)).map_err(failed)?;
    std::fs::rename(&temporary, path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_authority_is_made_once_and_keys_are_private() {
        let folder = tempfile::tempdir().unwrap();
        let first = Pki::open(folder.path()).unwrap();
        let second = Pki::open(folder.path()).unwrap();
        assert_eq!(first.ca_pem, second.ca_pem);
        first.token_key().unwrap();
        first.apiserver(&["127.0.0.1".parse().unwrap()]).unwrap();
        for file in std::fs::read_dir(folder.path().join("pki")).unwrap() {
            let mode = file.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_client_certificate_says_who_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let pair = Pki::open(folder.path()).unwrap().client("system:node:a", "system:nodes").unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(pair.certificate.as_bytes()).unwrap();
        let user = crate::auth::authenticate::from_certificate(&pem.contents).unwrap();
        assert_eq!(user, crate::auth::User::new("system:node:a", &["system:nodes"]));
    }
}
