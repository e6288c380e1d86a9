//! ConfigMaps, Secrets, tokens, services and RuntimeClasses that pods refer to, from the API server, most of them remembered for a
//! moment.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1 as authentication;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::{Api, ListParams, PostParams};
use parking_lot::Mutex;

use super::env::Referenced;
use super::names::PodKey;

/// How old an answer may be: pods of one Deployment start together and refer to the same objects.
const FRESH: Duration = Duration::from_secs(5);
/// Tokens live an hour unless the pod asks otherwise.
const TOKEN_LIFE: i64 = 3600;

/// The contents of a ConfigMap or Secret.
pub type Data = BTreeMap<String, Vec<u8>>;

/// The API server could not be asked.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {what} from the API server")]
pub struct ObjectError {
    /// What was read.
    pub what: String,
    /// Why not.
    #[source]
    pub source: Box<kube::Error>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    ConfigMap,
    Secret,
}

type ObjectKey = (Kind, String, String);
type TokenKey = (String, String, String);
type Seen<K, V> = Arc<Mutex<HashMap<K, (Instant, V)>>>;

#[derive(Debug, Clone)]
struct Token {
    text: String,
    renew: Timestamp,
}

/// The objects.
#[derive(Clone)]
pub struct Objects {
    client: kube::Client,
    seen: Seen<ObjectKey, Option<Arc<Data>>>,
    tokens: Arc<Mutex<HashMap<TokenKey, Token>>>,
    services: Seen<String, Arc<Vec<core::Service>>>,
}

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Objects").finish_non_exhaustive()
    }
}

impl Objects {
    /// Read through `client`.
    pub fn new(client: kube::Client) -> Self {
        Self { client, seen: Arc::default(), tokens: Arc::default(), services: Arc::default() }
    }

    /// The client they are read through.
    pub fn client(&self) -> &kube::Client {
        &self.client
    }

    /// A ConfigMap; `None` when there is none.
    pub async fn config_map(&self, namespace: &str, name: &str) -> Result<Option<Arc<Data>>, ObjectError> {
        let key = (Kind::ConfigMap, namespace.to_owned(), name.to_owned());
        if let Some(known) = self.fresh(&key) {
            return Ok(known);
        }
        let api: Api<core::ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let found = api
            .get_opt(name)
            .await
            .map_err(|error| failed(format!("configmap {namespace}/{name}"), error))?;
        let data = found.map(|object| {
            let text = object.data.into_iter().flatten().map(|(key, value)| (key, value.into_bytes()));
            let binary = object.binary_data.into_iter().flatten().map(|(key, value)| (key, value.0));
            Arc::new(text.chain(binary).collect())
        });
        self.remember(key, data.clone());
        Ok(data)
    }

    /// A Secret; `None` when there is none.
    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Arc<Data>>, ObjectError> {
        let key = (Kind::Secret, namespace.to_owned(), name.to_owned());
        if let Some(known) = self.fresh(&key) {
            return Ok(known);
        }
        let api: Api<core::Secret> = Api::namespaced(self.client.clone(), namespace);
        let found =
            api.get_opt(name).await.map_err(|error| failed(format!("secret {namespace}/{name}"), error))?;
        let data = found.map(|object| {
            Arc::new(object.data.into_iter().flatten().map(|(key, value)| (key, value.0)).collect())
        });
        self.remember(key, data.clone());
        Ok(data)
    }

    /// A token of the pod's ServiceAccount, bound to the pod; a new one when four fifths of its life are over.
    pub async fn token(
        &self,
        pod: &PodKey,
        account: &str,
        projection: &core::ServiceAccountTokenProjection,
    ) -> Result<String, ObjectError> {
        let audience = projection.audience.clone().unwrap_or_default();
        let life = projection.expiration_seconds.unwrap_or(TOKEN_LIFE);
        let key = (pod.uid.clone(), account.to_owned(), format!("{audience} {life}"));
        let now = Timestamp::now();
        if let Some(known) = self.tokens.lock().get(&key).filter(|token| token.renew > now) {
            return Ok(known.text.clone());
        }
        let request = authentication::TokenRequest {
            spec: Some(authentication::TokenRequestSpec {
                audiences: Some(if audience.is_empty() { Vec::new() } else { vec![audience] }),
                bound_object_ref: Some(authentication::BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: Some(pod.name.clone()),
                    uid: Some(pod.uid.clone()),
                }),
                expiration_seconds: Some(life),
            }),
            ..Default::default()
        };
        let api: Api<core::ServiceAccount> = Api::namespaced(self.client.clone(), &pod.namespace);
        let response =
            api.create_token_request(account, &PostParams::default(), &request).await.map_err(|error| {
                failed(format!("a token of serviceaccount {}/{account}", pod.namespace), error)
            })?;
        let status = response.status.unwrap_or_default();
        let expires = status.expiration_timestamp.map_or(now, |time| time.0);
        let left = expires.duration_since(now);
        let token = Token { text: status.token.unwrap_or_default(), renew: now + left * 4 / 5 };
        let mut tokens = self.tokens.lock();
        tokens.retain(|_, token| token.renew > now);
        tokens.insert(key, token.clone());
        Ok(token.text)
    }

    /// The handler that a RuntimeClass names; `None` when there is no such class. It cannot change, but a class can be made anew.
    pub async fn runtime_handler(&self, class: &str) -> Result<Option<String>, ObjectError> {
        let api: Api<RuntimeClass> = Api::all(self.client.clone());
        let found = api.get_opt(class).await;
        let found = found.map_err(|error| failed(format!("runtimeclass {class}"), error))?;
        Ok(found.map(|class| class.handler))
    }

    /// The services whose addresses a pod finds in its environment.
    pub async fn services(&self, namespace: &str) -> Result<Arc<Vec<core::Service>>, ObjectError> {
        if let Some((when, known)) = self.services.lock().get(namespace)
            && when.elapsed() < FRESH
        {
            return Ok(Arc::clone(known));
        }
        let api: Api<core::Service> = Api::namespaced(self.client.clone(), namespace);
        let list = api
            .list(&ListParams::default())
            .await
            .map_err(|error| failed(format!("services of {namespace}"), error))?;
        let services = Arc::new(list.items);
        let mut known = self.services.lock();
        known.retain(|_, (when, _)| when.elapsed() < FRESH);
        known.insert(namespace.to_owned(), (Instant::now(), Arc::clone(&services)));
        Ok(services)
    }

    /// Everything the environment of `container` refers to.
    pub async fn referenced(
        &self,
        namespace: &str,
        container: &core::Container,
    ) -> Result<Referenced, ObjectError> {
        let mut referenced = Referenced::default();
        let sources = container.env.iter().flatten().filter_map(|var| var.value_from.as_ref());
        let froms = container.env_from.iter().flatten();
        let maps = sources
            .clone()
            .filter_map(|source| source.config_map_key_ref.as_ref().map(|key| key.name.clone()))
            .chain(froms.clone().filter_map(|from| from.config_map_ref.as_ref().map(|map| map.name.clone())));
        for name in maps {
            let data = self.config_map(namespace, &name).await?;
            referenced.config_maps.insert(name, data.map(|data| text(&data)));
        }
        let secrets = sources
            .filter_map(|source| source.secret_key_ref.as_ref().map(|key| key.name.clone()))
            .chain(froms.filter_map(|from| from.secret_ref.as_ref().map(|secret| secret.name.clone())));
        for name in secrets {
            let data = self.secret(namespace, &name).await?;
            referenced.secrets.insert(name, data.map(|data| text(&data)));
        }
        Ok(referenced)
    }

    fn fresh(&self, key: &ObjectKey) -> Option<Option<Arc<Data>>> {
        let seen = self.seen.lock();
        seen.get(key).filter(|(when, _)| when.elapsed() < FRESH).map(|(_, data)| data.clone())
    }

    /// That something is missing is not remembered: it may be what the user creates next.
    fn remember(&self, key: ObjectKey, data: Option<Arc<Data>>) {
        let mut seen = self.seen.lock();
        seen.retain(|_, (when, _)| when.elapsed() < FRESH);
        if data.is_some() {
            seen.insert(key, (Instant::now(), data));
        }
    }
}

fn failed(what: String, error: kube::Error) -> ObjectError {
    ObjectError { what, source: Box::new(error) }
}

fn text(data: &Data) -> BTreeMap<String, String> {
    data.iter().map(|(key, value)| (key.clone(), String::from_utf8_lossy(value).into_owned())).collect()
}
