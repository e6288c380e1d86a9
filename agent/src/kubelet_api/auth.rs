//! Who calls, and whether they may: the API server always, others when the API server says so.

use http::Method;
use k8s_openapi::api::authorization::v1 as authorization;
use kube::api::{Api, PostParams};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Context;
use super::route::Asked;

/// Whoever is in this group may do everything.
const MASTERS: &str = "system:masters";
/// The API server's own name towards nodes.
const API_SERVER: &str = "kube-apiserver-kubelet-client";

/// The subject of a client certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) user: String,
    pub(super) groups: Vec<String>,
}

impl Caller {
    /// Out of a chain that TLS has verified.
    pub(super) fn of(chain: Option<&[CertificateDer<'_>]>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(chain?.first()?).ok()?;
        let subject = certificate.subject();
        let user = subject.iter_common_name().find_map(|name| name.as_str().ok())?.to_owned();
        let groups = subject.iter_organization().filter_map(|name| name.as_str().ok()).map(str::to_owned);
        Some(Self { user, groups: groups.collect() })
    }

    fn is_master(&self) -> bool {
        self.user == API_SERVER || self.groups.iter().any(|group| group == MASTERS)
    }
}

/// May `caller` do what was asked?
pub(super) async fn permits(
    context: &Context,
    caller: &Caller,
    method: &Method,
    asked: &Asked,
) -> Result<bool, kube::Error> {
    if caller.is_master() || matches!(asked, Asked::Healthz) {
        return Ok(true);
    }
    let attributes = authorization::ResourceAttributes {
        name: Some(context.node.clone()),
        resource: Some("nodes".to_owned()),
        subresource: Some(asked.subresource().to_owned()),
        verb: Some(if method == Method::GET { "get" } else { "create" }.to_owned()),
        version: Some("v1".to_owned()),
        ..Default::default()
    };
    let review = authorization::SubjectAccessReview {
        spec: authorization::SubjectAccessReviewSpec {
            groups: Some(caller.groups.iter().cloned().chain(["system:authenticated".to_owned()]).collect()),
            resource_attributes: Some(attributes),
            user: Some(caller.user.clone()),
            ..Default::default()
        },
        ..Default::default()
    };
    let api: Api<authorization::SubjectAccessReview> = Api::all(context.client.clone());
    let answer = api.create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}
