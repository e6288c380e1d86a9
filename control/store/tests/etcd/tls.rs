//! TLS to etcd: both sides prove who they are.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use store::{EtcdTls, Options, Store};

use super::etcd_server::{self, Etcd};
use super::{ROOT, open, put, text};

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "etcd-ca");
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Certificate and key in PEM.
fn signed(authority: &CertifiedIssuer<'static, KeyPair>, usage: ExtendedKeyUsagePurpose) -> (String, String) {
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    params.extended_key_usages = vec![usage];
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, authority).unwrap().pem(), key.serialize_pem())
}

fn write(folder: &Path, authority: &CertifiedIssuer<'static, KeyPair>) {
    let (certificate, key) = signed(authority, ExtendedKeyUsagePurpose::ServerAuth);
    for (name, text) in [("ca.crt", authority.pem()), ("server.crt", certificate), ("server.key", key)] {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

#[tokio::test]
async fn etcd_and_the_store_prove_to_each_other_who_they_are() {
    if !etcd_server::available() {
        return;
    }
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let authority = authority();
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &authority);
    let identity = signed(&authority, ExtendedKeyUsagePurpose::ClientAuth);
    let tls = EtcdTls { authorities: authority.pem(), identity: Some(identity) };
    let etcd = Etcd::with(1, Some((folder.path(), tls.clone())), &[]);
    let options = etcd.options(ROOT);
    let store = open(&options).await;
    store.txn(put("/registry/a/x", "secret")).await.unwrap();
    assert_eq!(text(&store, "/registry/a/x").unwrap(), "secret");

    for (case, wrong) in [
        ("no certificate", EtcdTls { identity: None, ..tls.clone() }),
        ("another authority", EtcdTls { authorities: self::authority().pem(), ..tls.clone() }),
    ] {
        let mut options = options.clone();
        options.tls = Some(wrong);
        let opened: Result<Store<()>, _> = Store::open_etcd(&options, Options::default(), |_, _| ()).await;
        assert!(opened.is_err(), "{case} was enough");
    }
}
