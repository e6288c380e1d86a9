//! The API as tests and the demonstration use it: our own client, without kubectl.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use kube::{Client, Config, discovery};
use serde::Deserialize;

/// A client with a few verbs that wait.
#[derive(Clone)]
pub struct Api {
    pub client: Client,
}

/// Reads the kubeconfig and makes a client of it; does not connect yet.
pub async fn connect(kubeconfig: &Path) -> Result<Api> {
    // A second provider in the process would be refused; the first one stays.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    let read = Kubeconfig::read_from(kubeconfig).with_context(|| format!("read {}", kubeconfig.display()))?;
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
    Ok(Api { client: Client::try_from(config)? })
}

impl Api {
    /// GET of a path, as text.
    pub async fn text(&self, path: &str) -> Result<String> {
        let request = http::Request::get(path).body(Vec::new())?;
        Ok(self.client.request_text(request).await?)
    }

    /// Server-side apply of every document of a YAML text.
    pub async fn apply(&self, yaml: &str) -> Result<()> {
        for document in yaml.split("\n---").filter(|document| !document.trim().is_empty()) {
            let object: DynamicObject = serde_saphyr::from_str(document).context("read a YAML document")?;
            let types = object.types.clone().context("a document has no kind")?;
            let gvk = GroupVersionKind::try_from(&types)?;
            let (resource, capabilities) = discovery::pinned_kind(&self.client, &gvk).await?;
            let name = object.metadata.name.clone().context("a document has no name")?;
            let namespace = object.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned());
            let api: kube::Api<DynamicObject> = match capabilities.scope {
                discovery::Scope::Cluster => kube::Api::all_with(self.client.clone(), &resource),
                discovery::Scope::Namespaced => {
                    kube::Api::namespaced_with(self.client.clone(), &namespace, &resource)
                }
            };
            let parameters = PatchParams::apply("hawser-up").force();
            api.patch(&name, &parameters, &Patch::Apply(&object))
                .await
                .with_context(|| format!("apply {} {name}", types.kind))?;
        }
        Ok(())
    }

    /// Asks again until `ready` likes the object at `path`, or `patience` is over.
    pub async fn eventually<T: for<'de> Deserialize<'de>>(
        &self,
        path: &str,
        patience: Duration,
        mut ready: impl FnMut(&T) -> bool,
    ) -> Result<T> {
        let deadline = Instant::now() + patience;
        loop {
            let last = match self.text(path).await {
                Ok(text) => {
                    let object: T = serde_json::from_str(&text).with_context(|| format!("read {path}"))?;
                    if ready(&object) {
                        return Ok(object);
                    }
                    text
                }
                Err(error) => format!("{error:#}"),
            };
            if Instant::now() > deadline {
                bail!("after {patience:?} {path} is still not as it should be: {last}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
