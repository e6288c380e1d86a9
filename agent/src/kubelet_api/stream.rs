//! exec, attach and port-forward: asks the runtime for a stream and joins the caller's with it.

use std::sync::Arc;

use http::{Request, Response, StatusCode, header};
use hyper::body::Incoming;
use k8s_cri::v1 as cri;

use super::route::{Place, Streams};
use super::websocket::{self, Channels};
use super::{Body, Context, Refusal, logs, relay};
use crate::pods::names::PodKey;
use crate::pods::observed::Observer;

pub(super) async fn exec(
    context: &Arc<Context>,
    asked: Streams,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let id = running(context, &asked.place).await?;
    let url = context
        .executor
        .cri
        .exec(cri::ExecRequest {
            container_id: id,
            cmd: asked.command.clone(),
            tty: asked.tty,
            stdin: asked.stdin,
            stdout: asked.stdout,
            stderr: asked.stderr,
        })
        .await?;
    join(request, &url, &asked).await
}

pub(super) async fn attach(
    context: &Arc<Context>,
    asked: Streams,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let id = running(context, &asked.place).await?;
    let url = context
        .executor
        .cri
        .attach(cri::AttachRequest {
            container_id: id,
            tty: asked.tty,
            stdin: asked.stdin,
            stdout: asked.stdout,
            stderr: asked.stderr,
        })
        .await?;
    join(request, &url, &asked).await
}

pub(super) async fn port_forward(
    context: &Arc<Context>,
    asked: &Place,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let pod = context.registry.pod(&asked.namespace, &asked.pod).ok_or_else(|| {
        let message = format!("pod {}/{} is not on this node", asked.namespace, asked.pod);
        Refusal::new(StatusCode::NOT_FOUND, message)
    })?;
    let observed = Observer::default().observe(&context.executor.cri, &PodKey::of(&pod)).await?;
    let sandbox = observed
        .sandbox()
        .ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, format!("pod {} is not running", asked.pod)))?;
    if upgrade_of(&request).as_deref() != Some("spdy/3.1") {
        let message = "port-forward needs an upgrade to SPDY/3.1";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
    }
    let url = context
        .executor
        .cri
        .port_forward(cri::PortForwardRequest { pod_sandbox_id: sandbox.id.clone(), port: Vec::new() })
        .await?;
    relay::raw(request, &url).await
}

async fn join(request: Request<Incoming>, url: &str, asked: &Streams) -> Result<Response<Body>, Refusal> {
    match upgrade_of(&request).as_deref() {
        Some("websocket") => {
            let channels =
                Channels { stdin: asked.stdin, stdout: asked.stdout, stderr: asked.stderr, tty: asked.tty };
            websocket::join(request, url, channels).await
        }
        Some("spdy/3.1") => relay::raw(request, url).await,
        _ => Err(Refusal::new(StatusCode::BAD_REQUEST, "an upgrade to WebSocket or SPDY/3.1 is needed")),
    }
}

fn upgrade_of(request: &Request<Incoming>) -> Option<String> {
    let upgrade = request.headers().get(header::UPGRADE)?;
    upgrade.to_str().ok().map(str::to_lowercase)
}

async fn running(context: &Context, place: &Place) -> Result<String, Refusal> {
    let (container, _) = logs::find(context, place, false).await?;
    if container.is_running() {
        Ok(container.id)
    } else {
        let message = format!("container {} of pod {} is not running", place.container, place.pod);
        Err(Refusal::new(StatusCode::BAD_REQUEST, message))
    }
}
