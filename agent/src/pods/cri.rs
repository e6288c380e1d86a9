//! Calls to the container runtime: CRI v1 over its unix socket, one method per call that is made.

use k8s_cri::v1 as cri;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use std::collections::HashMap;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// Verbose sandbox and container statuses exceed tonic's 4 MiB on nodes with many containers.
const MAX_MESSAGE: usize = 16 << 20;
/// For calls that do not wait for a process or an image.
const SHORT: Duration = Duration::from_secs(120);

/// A call to the runtime failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{call}: {}", status.message())]
pub struct CriError {
    /// Which call.
    pub call: &'static str,
    /// What the runtime said; its message is in ours.
    pub status: Box<tonic::Status>,
}

impl CriError {
    /// Is what the call was about not there?
    pub fn is_not_found(&self) -> bool {
        self.status.code() == tonic::Code::NotFound
    }
}

/// The endpoint is not an address.
#[derive(Debug, thiserror::Error)]
#[error("{endpoint:?} is not a container runtime endpoint such as unix:///run/containerd/containerd.sock")]
pub struct BadEndpoint {
    /// What was given.
    pub endpoint: String,
    /// Why.
    #[source]
    pub source: tonic::transport::Error,
}

/// A connection to the runtime; it connects with the first call and again whenever it is lost.
#[derive(Debug, Clone)]
pub struct Cri {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

/// What a command inside a container left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    /// Its exit code.
    pub exit_code: i32,
    /// Standard output and error.
    pub output: Vec<u8>,
}

macro_rules! call {
    ($self:ident . $service:ident . $method:ident ( $request:expr )) => {
        $self
            .$service
            .clone()
            .$method(limited($request, SHORT))
            .await
            .map(tonic::Response::into_inner)
            .map_err(|status| CriError { call: stringify!($method), status: Box::new(status) })
    };
}

impl Cri {
    /// A connection to `unix:///path`.
    pub fn connect(endpoint: &str) -> Result<Self, BadEndpoint> {
        let channel = Endpoint::from_shared(endpoint.to_owned())
            .map_err(|source| BadEndpoint { endpoint: endpoint.to_owned(), source })?
            .connect_timeout(Duration::from_secs(5))
            .connect_lazy();
        Ok(Self {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
            images: ImageServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE),
        })
    }

    /// Name and version of the runtime.
    pub async fn version(&self) -> Result<cri::VersionResponse, CriError> {
        call!(self.runtime.version(cri::VersionRequest { version: "v1".to_owned() }))
    }

    /// Whether runtime and network are ready.
    pub async fn status(&self) -> Result<cri::StatusResponse, CriError> {
        call!(self.runtime.status(cri::StatusRequest { verbose: false }))
    }

    /// Every sandbox, or those with all of `labels`.
    pub async fn sandboxes(&self, labels: HashMap<String, String>) -> Result<Vec<cri::PodSandbox>, CriError> {
        let filter = cri::PodSandboxFilter { label_selector: labels, ..Default::default() };
        let request = cri::ListPodSandboxRequest { filter: Some(filter) };
        Ok(call!(self.runtime.list_pod_sandbox(request))?.items)
    }

    /// Every container, or those with all of `labels`.
    pub async fn containers(&self, labels: HashMap<String, String>) -> Result<Vec<cri::Container>, CriError> {
        let filter = cri::ContainerFilter { label_selector: labels, ..Default::default() };
        let request = cri::ListContainersRequest { filter: Some(filter) };
        Ok(call!(self.runtime.list_containers(request))?.containers)
    }

    /// One sandbox; `None` when it is gone.
    pub async fn sandbox(&self, id: &str) -> Result<Option<cri::PodSandboxStatus>, CriError> {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        let response = call!(self.runtime.pod_sandbox_status(request));
        Ok(gone_is_none(response)?.and_then(|response| response.status))
    }

    /// One container; `None` when it is gone.
    pub async fn container(&self, id: &str) -> Result<Option<cri::ContainerStatus>, CriError> {
        let request = cri::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        let response = call!(self.runtime.container_status(request));
        Ok(gone_is_none(response)?.and_then(|response| response.status))
    }

    /// Makes and starts a sandbox, network included.
    pub async fn run_sandbox(
        &self,
        config: cri::PodSandboxConfig,
        handler: String,
    ) -> Result<String, CriError> {
        let request = cri::RunPodSandboxRequest { config: Some(config), runtime_handler: handler };
        Ok(call!(self.runtime.run_pod_sandbox(request))?.pod_sandbox_id)
    }

    /// Stops a sandbox and takes its network away; fine for one that is stopped or gone.
    pub async fn stop_sandbox(&self, id: &str) -> Result<(), CriError> {
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_fine(call!(self.runtime.stop_pod_sandbox(request)))
    }

    /// Removes a sandbox and its containers; fine for one that is gone.
    pub async fn remove_sandbox(&self, id: &str) -> Result<(), CriError> {
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_fine(call!(self.runtime.remove_pod_sandbox(request)))
    }

    /// Makes a container.
    pub async fn create(
        &self,
        sandbox: &str,
        config: cri::ContainerConfig,
        sandbox_config: cri::PodSandboxConfig,
    ) -> Result<String, CriError> {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        Ok(call!(self.runtime.create_container(request))?.container_id)
    }

    /// Starts a container.
    pub async fn start(&self, id: &str) -> Result<(), CriError> {
        call!(self.runtime.start_container(cri::StartContainerRequest { container_id: id.to_owned() }))
            .map(drop)
    }

    /// SIGTERM, and SIGKILL after `grace`; answers when the container has stopped. Fine for one that is gone.
    pub async fn stop(&self, id: &str, grace: Duration) -> Result<(), CriError> {
        let timeout = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let request = cri::StopContainerRequest { container_id: id.to_owned(), timeout };
        let limit = grace.saturating_add(SHORT);
        let response = self.runtime.clone().stop_container(limited(request, limit)).await;
        gone_is_fine(
            response
                .map_err(|status| CriError { call: "stop_container", status: Box::new(status) })
                .map(drop),
        )
    }

    /// Removes a container; fine for one that is gone.
    pub async fn remove(&self, id: &str) -> Result<(), CriError> {
        let request = cri::RemoveContainerRequest { container_id: id.to_owned() };
        gone_is_fine(call!(self.runtime.remove_container(request)))
    }

    /// Runs a command in a container and waits for it, no longer than `limit`.
    pub async fn exec_sync(
        &self,
        id: &str,
        command: Vec<String>,
        limit: Duration,
    ) -> Result<Executed, CriError> {
        let timeout = i64::try_from(limit.as_secs()).unwrap_or(i64::MAX);
        let request = cri::ExecSyncRequest { container_id: id.to_owned(), cmd: command, timeout };
        let limit = limit.saturating_add(Duration::from_secs(2));
        let response = self.runtime.clone().exec_sync(limited(request, limit)).await;
        let response =
            response.map_err(|status| CriError { call: "exec_sync", status: Box::new(status) })?.into_inner();
        let output = [response.stdout, response.stderr].concat();
        Ok(Executed { exit_code: response.exit_code, output })
    }

    /// The streaming URL of a command to run.
    pub async fn exec(&self, request: cri::ExecRequest) -> Result<String, CriError> {
        Ok(call!(self.runtime.exec(request))?.url)
    }

    /// The streaming URL of a container's main process.
    pub async fn attach(&self, request: cri::AttachRequest) -> Result<String, CriError> {
        Ok(call!(self.runtime.attach(request))?.url)
    }

    /// The streaming URL of ports of a sandbox.
    pub async fn port_forward(&self, request: cri::PortForwardRequest) -> Result<String, CriError> {
        Ok(call!(self.runtime.port_forward(request))?.url)
    }

    /// A new file for a container's log after the old one was renamed.
    pub async fn reopen_log(&self, id: &str) -> Result<(), CriError> {
        let request = cri::ReopenContainerLogRequest { container_id: id.to_owned() };
        call!(self.runtime.reopen_container_log(request)).map(drop)
    }

    /// An image that is present.
    pub async fn image(&self, name: &str) -> Result<Option<cri::Image>, CriError> {
        let image = Some(cri::ImageSpec { image: name.to_owned(), ..Default::default() });
        Ok(call!(self.images.image_status(cri::ImageStatusRequest { image, verbose: false }))?.image)
    }

    /// Every image that is present.
    pub async fn images(&self) -> Result<Vec<cri::Image>, CriError> {
        Ok(call!(self.images.list_images(cri::ListImagesRequest { filter: None }))?.images)
    }

    /// Fetches an image; as long as it takes.
    pub async fn pull(
        &self,
        name: &str,
        auth: Option<cri::AuthConfig>,
        sandbox: cri::PodSandboxConfig,
    ) -> Result<String, CriError> {
        let image = Some(cri::ImageSpec { image: name.to_owned(), ..Default::default() });
        let request = cri::PullImageRequest { image, auth, sandbox_config: Some(sandbox) };
        let response = self.images.clone().pull_image(request).await;
        response
            .map(|response| response.into_inner().image_ref)
            .map_err(|status| CriError { call: "pull_image", status: Box::new(status) })
    }
}

fn limited<T>(message: T, limit: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(limit);
    request
}

fn gone_is_none<T>(response: Result<T, CriError>) -> Result<Option<T>, CriError> {
    match response {
        Ok(response) => Ok(Some(response)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn gone_is_fine<T>(response: Result<T, CriError>) -> Result<(), CriError> {
    gone_is_none(response).map(drop)
}
