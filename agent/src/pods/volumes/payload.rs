//! The files of configMap, secret, downwardAPI and projected volumes.

use std::collections::BTreeMap;
use std::path::{Component, Path};
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;

use super::VolumeError;
use crate::pods::env::{self, Referenced, Sources};
use crate::pods::names::PodKey;
use crate::pods::objects::{Data, ObjectError, Objects};

/// A file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    pub(super) bytes: Vec<u8>,
    pub(super) mode: u32,
}

/// The files of a volume by their path in it.
pub(super) type Payload = BTreeMap<String, File>;

const DEFAULT_MODE: i32 = 0o644;

/// Fetches what `volume` is made from.
pub(super) async fn collect(
    objects: &Objects,
    pod: &core::Pod,
    key: &PodKey,
    volume: &core::Volume,
) -> Result<Payload, VolumeError> {
    let collector = Collector { objects, pod, key, volume: &volume.name };
    if let Some(source) = &volume.config_map {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        return collector.config_map(&source.name, source.items.as_deref(), source.optional, mode).await;
    }
    if let Some(source) = &volume.secret {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let name = source.secret_name.clone().unwrap_or_default();
        return collector.secret(&name, source.items.as_deref(), source.optional, mode).await;
    }
    if let Some(source) = &volume.downward_api {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        return collector.downward(source.items.as_deref().unwrap_or_default(), mode);
    }
    if let Some(source) = &volume.projected {
        return collector.projected(source).await;
    }
    Err(VolumeError::Unsupported { volume: volume.name.clone() })
}

struct Collector<'a> {
    objects: &'a Objects,
    pod: &'a core::Pod,
    key: &'a PodKey,
    volume: &'a str,
}

impl Collector<'_> {
    fn api(&self, source: ObjectError) -> VolumeError {
        VolumeError::Api { volume: self.volume.to_owned(), source }
    }

    async fn config_map(
        &self,
        name: &str,
        items: Option<&[core::KeyToPath]>,
        optional: Option<bool>,
        mode: i32,
    ) -> Result<Payload, VolumeError> {
        let data =
            self.objects.config_map(&self.key.namespace, name).await.map_err(|error| self.api(error))?;
        self.select(("configmap", name), data, items, (optional == Some(true), mode))
    }

    async fn secret(
        &self,
        name: &str,
        items: Option<&[core::KeyToPath]>,
        optional: Option<bool>,
        mode: i32,
    ) -> Result<Payload, VolumeError> {
        let data = self.objects.secret(&self.key.namespace, name).await.map_err(|error| self.api(error))?;
        self.select(("secret", name), data, items, (optional == Some(true), mode))
    }

    fn select(
        &self,
        (kind, name): (&'static str, &str),
        data: Option<Arc<Data>>,
        items: Option<&[core::KeyToPath]>,
        (optional, mode): (bool, i32),
    ) -> Result<Payload, VolumeError> {
        let Some(data) = data else {
            return if optional {
                Ok(Payload::new())
            } else {
                Err(VolumeError::NoObject { volume: self.volume.to_owned(), kind, name: name.to_owned() })
            };
        };
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            return Ok(data.iter().map(|(key, bytes)| (key.clone(), file(bytes.clone(), mode))).collect());
        };
        let mut payload = Payload::new();
        for item in items {
            match data.get(&item.key) {
                Some(bytes) => {
                    let mode = item.mode.unwrap_or(mode);
                    payload.insert(self.path(&item.path)?, file(bytes.clone(), mode));
                }
                None if optional => {}
                None => {
                    return Err(VolumeError::NoKey {
                        volume: self.volume.to_owned(),
                        name: name.to_owned(),
                        key: item.key.clone(),
                    });
                }
            }
        }
        Ok(payload)
    }

    fn downward(&self, items: &[core::DownwardAPIVolumeFile], mode: i32) -> Result<Payload, VolumeError> {
        let sources = Sources {
            pod: self.pod,
            referenced: &Referenced::default(),
            services: &[],
            pod_addresses: &[],
            node_addresses: &[],
        };
        let mut payload = Payload::new();
        for item in items {
            let field = item.field_ref.as_ref().map(|field| field.field_path.as_str());
            let of_container = item.resource_field_ref.as_ref().and_then(|selector| {
                let spec = self.pod.spec.as_ref()?;
                let container =
                    spec.containers.iter().find(|c| Some(&c.name) == selector.container_name.as_ref())?;
                env::resource(selector, container)
            });
            let text = match field {
                Some(path) => env::field(path, sources),
                None => of_container,
            };
            let Some(text) = text else {
                let path = field.unwrap_or("resourceFieldRef").to_owned();
                return Err(VolumeError::BadPath { volume: self.volume.to_owned(), path });
            };
            payload.insert(self.path(&item.path)?, file(text.into_bytes(), item.mode.unwrap_or(mode)));
        }
        Ok(payload)
    }

    async fn projected(&self, source: &core::ProjectedVolumeSource) -> Result<Payload, VolumeError> {
        let mode = source.default_mode.unwrap_or(DEFAULT_MODE);
        let mut payload = Payload::new();
        for part in source.sources.iter().flatten() {
            if let Some(map) = &part.config_map {
                payload.extend(self.config_map(&map.name, map.items.as_deref(), map.optional, mode).await?);
            }
            if let Some(secret) = &part.secret {
                payload
                    .extend(self.secret(&secret.name, secret.items.as_deref(), secret.optional, mode).await?);
            }
            if let Some(downward) = &part.downward_api {
                payload.extend(self.downward(downward.items.as_deref().unwrap_or_default(), mode)?);
            }
            if let Some(token) = &part.service_account_token {
                let spec = self.pod.spec.as_ref();
                let account = spec.and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
                let text =
                    self.objects.token(self.key, account, token).await.map_err(|error| self.api(error))?;
                payload.insert(self.path(&token.path)?, file(text.into_bytes(), mode));
            }
            if part.cluster_trust_bundle.is_some() || part.pod_certificate.is_some() {
                return Err(VolumeError::Unsupported { volume: self.volume.to_owned() });
            }
        }
        Ok(payload)
    }

    fn path(&self, path: &str) -> Result<String, VolumeError> {
        let mut parts = Path::new(path).components();
        let inside =
            !path.is_empty() && !path.starts_with("..") && parts.all(|p| matches!(p, Component::Normal(_)));
        if inside {
            Ok(path.to_owned())
        } else {
            Err(VolumeError::BadPath { volume: self.volume.to_owned(), path: path.to_owned() })
        }
    }
}

fn file(bytes: Vec<u8>, mode: i32) -> File {
    File { bytes, mode: u32::try_from(mode).unwrap_or(0o644) & 0o777 }
}
