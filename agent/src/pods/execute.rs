//! Does what was decided for one pod: the only place that changes something in the runtime.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;

use super::cgroups;
use super::container::{self, ConfigError, Prepared};
use super::cri::{Cri, CriError};
use super::decide::Why;
use super::env::{self, EnvError, Sources};
use super::events::Recorder;
use super::hosts;
use super::images::{self, ImageError};
use super::names::{Folders, PodKey};
use super::objects::{ObjectError, Objects};
use super::reach::{Target, Unreached};
use super::resources;
use super::sandbox::{self, NodeFacts};
use super::volumes::{VolumeError, Volumes};

/// Hooks that do not end are not waited for longer than this when nothing else limits them.
const HOOK_LIMIT: Duration = Duration::from_secs(120);

/// What all workers share.
#[derive(Debug, Clone)]
pub struct Executor {
    /// The runtime.
    pub cri: Cri,
    /// Its name, as in `containerd://`.
    pub runtime: String,
    /// What pods refer to.
    pub objects: Objects,
    /// Their volumes.
    pub volumes: Volumes,
    /// What people are told.
    pub recorder: Recorder,
    /// The node.
    pub node: Arc<NodeFacts>,
    /// The node's addresses.
    pub addresses: Arc<Vec<IpAddr>>,
}

/// A container could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Its environment.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// Its volumes.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// Its definition.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The API server could not be asked.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// Files for it could not be made.
    #[error("cannot write {}", path.display())]
    Files {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It could not be made.
    #[error("failed to create container")]
    Create(#[source] CriError),
    /// It could not be started.
    #[error("failed to start container")]
    Run(#[source] CriError),
    /// Its postStart hook failed; it has been killed.
    #[error("PostStartHook failed")]
    Hook(#[source] Unreached),
}

/// A sandbox could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// By the runtime, in its words.
    #[error("{}", .0.status.message())]
    Runtime(CriError),
    /// The API server could not be asked.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The pod names a class that is not there.
    #[error("runtimeclass.node.k8s.io {0:?} not found")]
    NoClass(String),
}

impl StartError {
    /// The waiting reason the container gets.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Image(error) => error.reason(),
            Self::Env(_) | Self::Config(_) | Self::Object(_) | Self::Volume(_) => {
                "CreateContainerConfigError"
            }
            Self::Files { .. } | Self::Create(_) => "CreateContainerError",
            Self::Run(_) => "RunContainerError",
            Self::Hook(_) => "PostStartHookError",
        }
    }
}

/// One start.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
    /// The pod.
    pub pod: &'a core::Pod,
    /// The container.
    pub container: &'a core::Container,
    /// The sandbox.
    pub sandbox: &'a str,
    /// Which sandbox of the pod it is.
    pub sandbox_attempt: u32,
    /// Its addresses.
    pub addresses: &'a [IpAddr],
    /// Which run of the container it is.
    pub attempt: u32,
    /// Where the pod's volumes are.
    pub places: &'a HashMap<String, PathBuf>,
}

impl Executor {
    fn folders(&self) -> &Folders {
        &self.node.folders
    }

    /// Makes a sandbox, by the runtime that the pod's RuntimeClass names.
    pub async fn run_sandbox(&self, pod: &core::Pod, attempt: u32) -> Result<String, SandboxError> {
        let config = sandbox::config(pod, attempt, &self.node);
        if let Err(error) = fs::create_dir_all(&config.log_directory) {
            tracing::error!(dir = config.log_directory, %error, "the pod has no folder for logs");
        }
        let handler = match pod.spec.as_ref().and_then(|spec| spec.runtime_class_name.as_deref()) {
            Some(class) => {
                let handler = self.objects.runtime_handler(class).await?;
                handler.ok_or_else(|| SandboxError::NoClass(class.to_owned()))?
            }
            None => String::new(),
        };
        self.cri.run_sandbox(config, handler).await.map_err(SandboxError::Runtime)
    }

    /// Makes a container, starts it and runs its postStart hook.
    pub async fn start(&self, start: Start<'_>) -> Result<(), StartError> {
        let Start { pod, container, .. } = start;
        let config_of_sandbox = sandbox::config(pod, start.sandbox_attempt, &self.node);
        let image = images::ensure(
            &self.cri,
            &self.objects,
            &self.recorder,
            pod,
            container,
            config_of_sandbox.clone(),
        )
        .await?;
        let prepared = self.prepare(start, image).await?;
        let config = container::config(pod, container, start.attempt, &prepared, &self.node)?;
        self.write_files(start)?;
        let id =
            self.cri.create(start.sandbox, config, config_of_sandbox).await.map_err(StartError::Create)?;
        let say = |reason, message| self.recorder.container(pod, &container.name, false, reason, message);
        say("Created", format!("Container created: {}", container.name));
        self.cri.start(&id).await.map_err(StartError::Run)?;
        say("Started", format!("Container started: {}", container.name));
        let hook = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
        if let Some(hook) = hook
            && let Err(error) = self.hook(hook, container, &id, start.addresses, HOOK_LIMIT).await
        {
            let message = format!("PostStartHook failed: {error}");
            self.recorder.container(pod, &container.name, true, "FailedPostStartHook", message);
            self.cri.stop(&id, Duration::from_secs(2)).await.map_err(StartError::Run)?;
            return Err(StartError::Hook(error));
        }
        Ok(())
    }

    async fn prepare(&self, start: Start<'_>, image: images::Present) -> Result<Prepared, StartError> {
        let Start { pod, container, places, .. } = start;
        let key = PodKey::of(pod);
        let spec = pod.spec.as_ref();
        let referenced = self.objects.referenced(&key.namespace, container).await?;
        let links = spec.is_none_or(|spec| spec.enable_service_links != Some(false));
        let services = if links { self.objects.services(&key.namespace).await? } else { Arc::default() };
        let master = if key.namespace == "default" && links {
            Arc::default()
        } else {
            self.objects.services("default").await?
        };
        let apiserver = master.iter().filter(|s| s.metadata.name.as_deref() == Some("kubernetes"));
        let services = env::service_variables(apiserver.chain(services.iter()));
        let sources = Sources {
            pod,
            referenced: &referenced,
            services: &services,
            pod_addresses: start.addresses,
            node_addresses: &self.addresses,
        };
        let environment = env::environment(container, sources)?;
        let sub_paths = self.volumes.sub_paths(container, places, &environment)?;
        Ok(Prepared {
            image: image.reference,
            environment,
            volumes: places.clone(),
            sub_paths,
            image_user: image.user,
        })
    }

    /// The files that are mounted into every container: `/etc/hosts` and the one for last words.
    fn write_files(&self, start: Start<'_>) -> Result<(), StartError> {
        let key = PodKey::of(start.pod);
        let spec = start.pod.spec.clone().unwrap_or_default();
        let hosts = self.folders().hosts(&key.uid);
        let hostname = sandbox::hostname(start.pod);
        let domain = &self.node.dns.cluster_domain;
        let text = hosts::text(&spec, start.addresses, &hostname, domain, &key.namespace);
        let last_words = self.folders().last_words(&key.uid, &start.container.name, start.attempt);
        let logs = self.folders().log(&key, &start.container.name, start.attempt);
        for (path, bytes, mode) in [(&hosts, text.as_bytes(), 0o644), (&last_words, &[][..], 0o666)] {
            write(path, bytes, mode).map_err(|source| StartError::Files { path: path.clone(), source })?;
        }
        match logs.parent().map(fs::create_dir_all) {
            Some(Err(source)) => Err(StartError::Files { path: logs, source }),
            Some(Ok(())) | None => Ok(()),
        }
    }

    /// Runs a container's preStop hook and stops it; both within `grace`.
    pub async fn kill(
        &self,
        pod: &core::Pod,
        id: &str,
        name: &str,
        grace: Duration,
        (why, addresses, hooked): (&Why, &[IpAddr], bool),
    ) -> Result<(), CriError> {
        let message = match why {
            Why::PodEnds => format!("Stopping container {name}"),
            Why::Unhealthy(reason) => format!("Container {name} {reason}, will be restarted"),
            Why::Changed => format!("Container {name} definition changed, will be restarted"),
            Why::SandboxDied => format!("Stopping container {name}: its sandbox died"),
        };
        if !hooked {
            self.recorder.container(pod, name, false, "Killing", message);
        }
        let mut left = grace;
        let container = pod
            .spec
            .as_ref()
            .and_then(|spec| super::decide::containers(spec).find(|(container, _)| container.name == name));
        if let Some((container, _)) = container
            && let Some(hook) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref())
            && !hooked
        {
            let began = tokio::time::Instant::now();
            if let Err(error) = self.hook(hook, container, id, addresses, grace).await {
                let message = format!("PreStopHook failed: {error}");
                self.recorder.container(pod, name, true, "FailedPreStopHook", message);
            }
            // Two seconds are always left for the process itself.
            left = grace.saturating_sub(began.elapsed()).max(Duration::from_secs(2).min(grace));
        }
        self.cri.stop(id, left).await
    }

    async fn hook(
        &self,
        hook: &core::LifecycleHandler,
        container: &core::Container,
        id: &str,
        addresses: &[IpAddr],
        limit: Duration,
    ) -> Result<(), Unreached> {
        let address = addresses.first().or(self.addresses.first()).copied();
        let target = Target {
            cri: self.cri.clone(),
            id: id.to_owned(),
            container: Arc::new(container.clone()),
            address: address.ok_or_else(|| Unreached("the pod has no address".to_owned()))?,
        };
        let run = async {
            if let Some(action) = &hook.exec {
                target.exec(action, limit).await
            } else if let Some(action) = &hook.http_get {
                target.http(action).await
            } else if let Some(action) = &hook.tcp_socket {
                target.tcp(action).await
            } else if let Some(action) = &hook.sleep {
                tokio::time::sleep(Duration::from_secs(u64::try_from(action.seconds).unwrap_or(0))).await;
                Ok(())
            } else {
                Ok(())
            }
        };
        match tokio::time::timeout(limit, run).await {
            Ok(result) => result,
            Err(_) => Err(Unreached(format!("it did not end within {}s", limit.as_secs()))),
        }
    }

    /// Removes what a pod that has ended leaves: sandboxes, volumes, logs, cgroup.
    pub async fn clean_up(&self, pod: &core::Pod, sandboxes: &[String]) -> Result<(), CleanUpError> {
        let key = PodKey::of(pod);
        for id in sandboxes {
            self.cri.remove_sandbox(id).await?;
        }
        self.remove_files(&key)?;
        for cgroup in resources::cgroups(&self.node.cgroup_parent, &key.uid) {
            cgroups::remove(&cgroup).map_err(|source| CleanUpError::Files { what: cgroup, source })?;
        }
        Ok(())
    }

    /// Removes a pod's folders.
    pub fn remove_files(&self, key: &PodKey) -> Result<(), CleanUpError> {
        let failed =
            |source| CleanUpError::Files { what: self.folders().pod(&key.uid).display().to_string(), source };
        self.volumes.remove(&key.uid).map_err(failed)?;
        match fs::remove_dir_all(self.folders().logs(key)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// Something of an ended pod stays.
#[derive(Debug, thiserror::Error)]
pub enum CleanUpError {
    /// In the runtime.
    #[error(transparent)]
    Cri(#[from] CriError),
    /// On disk.
    #[error("cannot remove {what}")]
    Files {
        /// What.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn write(path: &std::path::Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    // In place: a container that has it mounted sees the change.
    fs::write(path, bytes)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}
