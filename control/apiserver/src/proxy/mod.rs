//! Requests handed through to pods, services and nodes: what comes behind `/proxy` in a path.
//!
//! Bodies stream both ways and have no bound; connections that leave HTTP (WebSockets) are joined. The target sees the path
//! behind `/proxy` and, in headers of their own ([`forward`]), the whole of it, where it was asked and by whom. It never sees the
//! client's credentials.

mod backends;
mod location;
mod mount;

use http::header::{HeaderValue, InvalidHeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

pub use self::backends::Backends;
use self::location::Location;
use self::mount::Mount;
use crate::api::Call;
use crate::body::{self, Body, BodyError, Reply};
use crate::kubelets;
use crate::status::{Refusal, Result};

/// What concerns one connection and is not handed on (RFC 9110, section 7.6.1).
const HOP_BY_HOP: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// What is between the client and this server. Encodings are not asked for, as links in documents are rewritten.
const OURS: &[&str] = &["accept-encoding", "authorization", "expect"];

/// Hands the call through, and its answer back.
pub async fn hand_through(call: &Call) -> Result<Reply> {
    let location = location::of(call)?;
    let (mount, behind) = mounted(call);
    if behind.is_empty() && matches!(call.method, Method::GET | Method::HEAD) {
        return redirected(call, &mount);
    }
    let upgrade = call.upgrade.lock().take().filter(|_| is_upgrade(&call.headers));
    let request = request(call, &mount, &behind, upgrade.is_some())?;
    let response = match &location {
        Location::Kubelet(node) => call.api.kubelets.send(node, request).await?,
        Location::Address { scheme, address } => call.api.backends.send(*scheme, *address, request).await?,
    };
    match (response.status(), upgrade) {
        (StatusCode::SWITCHING_PROTOCOLS, Some(near)) => Ok(joined(response, near)),
        (StatusCode::SWITCHING_PROTOCOLS, None) => {
            Err(Refusal::new(502, "InternalError", "the target changed protocols without being asked to"))
        }
        (status, _) if status.is_redirection() && matches!(location, Location::Kubelet(_)) => {
            Err(kubelets::redirected(status))
        }
        _ => mount.seen_from_outside(call, &location, response),
    }
}

/// The path up to `/proxy`, and what comes behind it as the client wrote it, escapes included.
fn mounted(call: &Call) -> (Mount, String) {
    // api/v1/namespaces/{namespace}/pods/{name}/proxy, or without a namespace; two slashes would begin with a host.
    let path = call.uri.path().trim_start_matches('/');
    let segments = if call.row.namespaced { 7 } else { 5 };
    let end = path.match_indices('/').nth(segments - 1).map_or(path.len(), |(at, _)| at);
    (Mount::at(&format!("/{}", &path[..end])), path[end..].to_owned())
}

/// A document's relative links are right only below a path that ends with a slash.
fn redirected(call: &Call, mount: &Mount) -> Result<Reply> {
    let query = call.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let reply = Response::builder()
        .status(StatusCode::MOVED_PERMANENTLY)
        .header(header::LOCATION, format!("{}{query}", mount.outside("/")))
        .body(body::full(""));
    reply.map_err(Refusal::internal)
}

/// What the target is asked.
fn request(call: &Call, mount: &Mount, behind: &str, upgrades: bool) -> Result<Request<Body>> {
    let behind = if behind.is_empty() { "/" } else { behind };
    let query = call.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let target: PathAndQuery = format!("{behind}{query}").parse().map_err(Refusal::internal)?;
    let mut headers = call.headers.clone();
    let kept = upgrades.then(|| headers.get(header::UPGRADE).cloned()).flatten();
    forget_connection(&mut headers);
    OURS.iter().for_each(|name| drop(headers.remove(*name)));
    let impersonation: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    impersonation.iter().for_each(|name| drop(headers.remove(name)));
    if let Some(upgrade) = kept {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, upgrade);
    }
    // HTTP/2 has the host in the address.
    if let (None, Some(host)) = (headers.get(header::HOST), call.uri.authority()) {
        headers.insert(header::HOST, host.as_str().parse().map_err(Refusal::internal)?);
    }
    forward(call, &mount.outside(behind), &mut headers).map_err(Refusal::internal)?;
    let body = call.unread.lock().take().map_or_else(|| body::full(""), crate::unread::Unread::into_body);
    let mut request = Request::builder().method(call.method.clone()).uri(target).body(body);
    if let Ok(request) = &mut request {
        *request.headers_mut() = headers;
    }
    request.map_err(Refusal::internal)
}

/// Says where the target is seen from outside, by which host it was asked, how, and by whom; behind those who handed it through
/// before.
fn forward(call: &Call, path: &str, headers: &mut HeaderMap) -> std::result::Result<(), InvalidHeaderValue> {
    headers.insert("x-forwarded-uri", path.parse()?);
    headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
    if let Some(host) = headers.get(header::HOST).cloned() {
        headers.insert("x-forwarded-host", host);
    }
    if let Some(from) = call.from {
        let name = HeaderName::from_static("x-forwarded-for");
        let mut all: Vec<String> = words(headers, &name).map(str::to_owned).collect();
        all.push(from.to_string());
        headers.insert(name, all.join(", ").parse()?);
    }
    Ok(())
}

/// Removes what concerns one connection.
fn forget_connection(headers: &mut HeaderMap) {
    let named: Vec<String> = words(headers, &header::CONNECTION).map(str::to_lowercase).collect();
    for name in named.iter().map(String::as_str).chain(HOP_BY_HOP.iter().copied()) {
        headers.remove(name);
    }
}

fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
        && words(headers, &header::CONNECTION).any(|word| word.eq_ignore_ascii_case("upgrade"))
}

/// Both sides have left HTTP: what one says the other hears.
fn joined(response: Response<Incoming>, near: OnUpgrade) -> Reply {
    let mut reply = Response::new(body::full(""));
    *reply.status_mut() = response.status();
    *reply.headers_mut() = response.headers().clone();
    kubelets::join(near, hyper::upgrade::on(response));
    reply
}

/// A body as it comes from the target.
fn streamed(body: Incoming) -> Body {
    Body::new(body.map_err(|error| Box::new(error) as BodyError))
}
