//! The store of this server, as it was asked for, and the form objects have in etcd.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use store::{Codec, CodecError, EtcdOptions, EtcdTls, Options, Store};

use crate::object::{self, Objects, ROOT};
use crate::protobuf;
use crate::resources::{Row, stored};
use crate::tree::text;

/// Where objects are kept.
#[derive(Debug, Clone)]
pub enum Storage {
    /// In one file of the data folder, by this process alone.
    Embedded,
    /// In etcd, which other servers may use too.
    Etcd(EtcdAccess),
    /// Nowhere: they are gone with the process. For tests.
    Memory,
}

/// How etcd is reached.
#[derive(Debug, Clone)]
pub struct EtcdAccess {
    /// URLs of the members of one cluster.
    pub servers: Vec<String>,
    /// PEM file of the authorities that sign etcd's certificates; plain connections without.
    pub ca_file: Option<PathBuf>,
    /// PEM files of this client's certificate and key.
    pub client_files: Option<(PathBuf, PathBuf)>,
}

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("{} cannot be read", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{0} cannot be made private")]
    Private(PathBuf, #[source] std::io::Error),
    #[error(
        "etcd is reached by TLS, and no authority that signed its certificates was given (--etcd-cafile)"
    )]
    NoAuthority,
    #[error("the store cannot be opened")]
    Open(#[from] store::OpenError),
}

/// The file of the embedded store.
pub fn file(data: &Path) -> PathBuf {
    data.join("store.redb")
}

/// The keys of definitions. Those are large, and read when their kinds come to be and seldom after that.
const DEFINITIONS: &str = "/registry/apiextensions.k8s.io/customresourcedefinitions/";

/// Opens the store; `data` is the folder of the embedded one.
pub(crate) async fn open(storage: &Storage, data: &Path) -> Result<Objects, StorageError> {
    let options = Options { packed: Some(DEFINITIONS), ..Options::default() };
    let store = match storage {
        Storage::Memory => Store::in_memory(options, object::header)?,
        Storage::Embedded => {
            let path = file(data);
            let store = Store::open(&path, options, object::header)?;
            // The folder may have been made by somebody else, with other rights.
            let private = std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600));
            private.map_err(|source| StorageError::Private(path, source))?;
            store
        }
        Storage::Etcd(access) => Store::open_etcd(&access.options()?, options, object::header).await?,
    };
    Ok(store.marked_by(object::node))
}

impl EtcdAccess {
    /// With the files read.
    pub fn options(&self) -> Result<EtcdOptions, StorageError> {
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path).map_err(|source| StorageError::File { path: path.clone(), source })
        };
        let identity = match &self.client_files {
            Some((certificate, key)) => Some((read(certificate)?, read(key)?)),
            None => None,
        };
        let tls = match &self.ca_file {
            Some(path) => Some(EtcdTls { authorities: read(path)?, identity }),
            None if identity.is_some() || self.servers.iter().any(|url| url.starts_with("https:")) => {
                return Err(StorageError::NoAuthority);
            }
            None => None,
        };
        Ok(EtcdOptions {
            endpoints: self.servers.clone(),
            tls,
            root: ROOT.to_owned(),
            codec: Codec { encode: |_, value| value.clone(), decode: from_etcd },
        })
    }
}

/// Brings what may have been written by kube-apiserver, as protobuf or as JSON in its order, into our form.
fn from_etcd(key: &str, value: Bytes) -> Result<Bytes, CodecError> {
    let row = object::storage(key).and_then(stored);
    let written = |version: &str| row.map(|row| row.in_version(version).unwrap_or(row));
    if protobuf::is(&value) {
        let row = written(&protobuf::api_version(&value)?);
        let found = row.and_then(|row| Some((row, row.node().object()?)));
        let (row, kind) = found.ok_or("it is protobuf of a kind that is not served")?;
        let mut tree = protobuf::decode(&kind.name, &value)?;
        row.store(&mut tree);
        row.stored_as().fill_in(&mut tree);
        return Ok(object::encode(&tree));
    }
    let ours =
        |row: &Row| value.starts_with(format!("{{\"apiVersion\":\"{}\",", row.api_version()).as_bytes());
    if object::is_in_order(&value) && row.is_none_or(ours) {
        return Ok(value);
    }
    let mut tree = serde_json::from_slice(&value)?;
    if let Some(row) = written(text(&tree, &["apiVersion"])) {
        row.store(&mut tree);
    }
    Ok(object::encode(&tree))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn definitions_are_kept_where_their_keys_are() {
        assert_eq!(object::prefix(crate::definitions::row(), ""), DEFINITIONS);
    }

    fn read(key: &str, value: &[u8]) -> Value {
        let value = from_etcd(key, Bytes::copy_from_slice(value)).unwrap();
        assert!(object::is_in_order(&value), "{value:?}");
        serde_json::from_slice(&value).unwrap()
    }

    #[test]
    fn json_in_another_order_is_brought_into_ours() {
        let tree = json!({"a": {"metadata": {"x": "y"}}, "apiVersion": "example.com/v1", "kind": "Thing",
                          "metadata": {"name": "n"}});
        let found = read("/registry/example.com/things/default/n", tree.to_string().as_bytes());
        assert_eq!(found, tree);
    }

    #[test]
    fn protobuf_is_read_by_the_kind_of_its_key() {
        // A ConfigMap: metadata {name: "n", namespace: "d"}, data {"k": "v"}.
        let raw = b"\x0a\x0a\x0a\x01n\x12\x00\x1a\x01d\x22\x00\x12\x06\x0a\x01k\x12\x01v";
        let kind = b"\x0a\x0f\x0a\x02v1\x12\x09ConfigMap";
        let value = [&b"k8s\0"[..], kind, b"\x12", &[u8::try_from(raw.len()).unwrap()], raw].concat();
        let found = read("/registry/configmaps/d/n", &value);
        let want = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "n", "namespace": "d"},
                          "data": {"k": "v"}});
        assert_eq!(found, want);
        assert!(from_etcd("/registry/unheard/of", Bytes::from(value)).is_err());
    }

    #[test]
    fn an_older_version_is_read_as_the_one_that_is_stored() {
        let key = "/registry/horizontalpodautoscalers/d/n";
        // Of autoscaling/v1: metadata {name: "n", namespace: "d"}, spec {maxReplicas: 3, targetCPUUtilizationPercentage: 50}.
        let raw = b"\x0a\x0a\x0a\x01n\x12\x00\x1a\x01d\x22\x00\x12\x04\x18\x03\x20\x32";
        let kind = b"\x0a\x29\x0a\x0eautoscaling/v1\x12\x17HorizontalPodAutoscaler";
        let value = [&b"k8s\0"[..], kind, b"\x12", &[u8::try_from(raw.len()).unwrap()], raw].concat();
        let text = json!({"kind": "HorizontalPodAutoscaler", "apiVersion": "autoscaling/v1", "metadata": {"name": "n", "namespace": "d"},
                          "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50}});
        let target = json!({"type": "Utilization", "averageUtilization": 50});
        for value in [value, text.to_string().into_bytes()] {
            let found = read(key, &value);
            assert_eq!(found["apiVersion"], "autoscaling/v2");
            assert_eq!(
                found["spec"]["metrics"],
                json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}])
            );
        }
    }

    #[test]
    fn tls_to_etcd_needs_an_authority() {
        let access =
            |server: &str| EtcdAccess { servers: vec![server.to_owned()], ca_file: None, client_files: None };
        assert!(access("http://127.0.0.1:2379").options().is_ok());
        let refused = access("https://127.0.0.1:2379").options();
        assert!(matches!(refused, Err(StorageError::NoAuthority)), "{refused:?}");
    }

    #[test]
    fn what_is_neither_is_an_error() {
        assert!(from_etcd("/registry/pods/a/b", Bytes::from_static(b"\xff\x00")).is_err());
    }
}
