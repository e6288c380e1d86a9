//! Images: present or fetched, as the pull policy says.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1 as core;
use serde::Deserialize;

use super::cri::{Cri, CriError};
use super::events::Recorder;
use super::names::PodKey;
use super::objects::{ObjectError, Objects};

/// An image that can be run.
#[derive(Debug, Clone)]
pub struct Present {
    /// What containers are made from.
    pub reference: String,
    /// The image's own user, when it has a number.
    pub user: Option<i64>,
}

/// An image cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It is not here and must not be fetched.
    #[error("Container image {image:?} is not present with pull policy of Never")]
    NeverPull {
        /// Which.
        image: String,
    },
    /// It could not be fetched.
    #[error("Failed to pull image {image:?}")]
    Pull {
        /// Which.
        image: String,
        /// Why.
        #[source]
        source: CriError,
    },
    /// The runtime could not be asked.
    #[error("Failed to inspect image {image:?}")]
    Inspect {
        /// Which.
        image: String,
        /// Why.
        #[source]
        source: CriError,
    },
    /// The credentials could not be read.
    #[error(transparent)]
    Secret(#[from] ObjectError),
}

impl ImageError {
    /// The waiting reason a container gets.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NeverPull { .. } => "ErrImageNeverPull",
            Self::Pull { .. } | Self::Secret(_) => "ErrImagePull",
            Self::Inspect { .. } => "ImageInspectError",
        }
    }
}

/// Makes sure that the image of `container` is here.
pub async fn ensure(
    cri: &Cri,
    objects: &Objects,
    recorder: &Recorder,
    pod: &core::Pod,
    container: &core::Container,
    sandbox: cri::PodSandboxConfig,
) -> Result<Present, ImageError> {
    let image = container.image.clone().unwrap_or_default();
    let present =
        cri.image(&image).await.map_err(|source| ImageError::Inspect { image: image.clone(), source })?;
    let say = |reason, message| recorder.container(pod, &container.name, false, reason, message);
    match (policy(container, &image), present) {
        ("IfNotPresent" | "Never", Some(found)) => {
            say("Pulled", format!("Container image {image:?} already present on machine"));
            return Ok(usable(found));
        }
        ("Never", None) => return Err(ImageError::NeverPull { image }),
        _ => {}
    }
    say("Pulling", format!("Pulling image {image:?}"));
    let auth = credentials(objects, pod, &image).await?;
    let began = std::time::Instant::now();
    cri.pull(&image, auth, sandbox)
        .await
        .map_err(|source| ImageError::Pull { image: image.clone(), source })?;
    say("Pulled", format!("Successfully pulled image {image:?} in {:?}", began.elapsed()));
    let found =
        cri.image(&image).await.map_err(|source| ImageError::Inspect { image: image.clone(), source })?;
    Ok(found.map_or(Present { reference: image, user: None }, usable))
}

fn usable(image: cri::Image) -> Present {
    let user = image.uid.map(|uid| uid.value);
    Present { reference: image.id, user: user.or_else(|| image.username.parse().ok()) }
}

/// The policy when none is set depends on the tag.
fn policy<'a>(container: &'a core::Container, image: &str) -> &'a str {
    let latest = {
        let last = image.rsplit('/').next().unwrap_or(image);
        !image.contains('@') && last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
    };
    match container.image_pull_policy.as_deref() {
        Some(policy) if !policy.is_empty() => policy,
        _ if latest => "Always",
        _ => "IfNotPresent",
    }
}

#[derive(Debug, Default, Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: std::collections::BTreeMap<String, DockerAuth>,
}

#[derive(Debug, Default, Deserialize)]
struct DockerAuth {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

async fn credentials(
    objects: &Objects,
    pod: &core::Pod,
    image: &str,
) -> Result<Option<cri::AuthConfig>, ObjectError> {
    let registry = registry(image);
    let namespace = PodKey::of(pod).namespace;
    for secret in pod.spec.iter().flat_map(|spec| spec.image_pull_secrets.iter().flatten()) {
        let Some(data) = objects.secret(&namespace, &secret.name).await? else { continue };
        let Some(bytes) = data.get(".dockerconfigjson") else { continue };
        let config: DockerConfig = serde_json::from_slice(bytes).unwrap_or_default();
        if let Some(auth) =
            config.auths.get(&registry).or_else(|| config.auths.get(&format!("https://{registry}")))
        {
            return Ok(Some(auth_config(auth)));
        }
    }
    Ok(None)
}

fn auth_config(auth: &DockerAuth) -> cri::AuthConfig {
    let decoded = STANDARD.decode(&auth.auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let (username, password) = match decoded.as_deref().and_then(|text| text.split_once(':')) {
        Some((user, password)) => (user.to_owned(), password.to_owned()),
        None => (auth.username.clone(), auth.password.clone()),
    };
    cri::AuthConfig { username, password, ..Default::default() }
}

fn registry(image: &str) -> String {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host.to_owned(),
        _ => "index.docker.io".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_policy_the_tag_decides() {
        for (image, asked, want) in [
            ("a", None, "Always"),
            ("a:latest", None, "Always"),
            ("a:1", None, "IfNotPresent"),
            ("host:5000/a", None, "Always"),
            ("host:5000/a:1", None, "IfNotPresent"),
            ("a@sha256:00", None, "IfNotPresent"),
            ("a:1", Some("Always"), "Always"),
        ] {
            let container =
                core::Container { image_pull_policy: asked.map(str::to_owned), ..Default::default() };
            assert_eq!(policy(&container, image), want, "{image}");
        }
    }
}
