//! ServiceAccount tokens: signed by this server, bound to an account and usually to a pod.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::User;
use super::legacy_token::Used;
use crate::object::{Objects, key};
use crate::resources::known;
use crate::tree::text;

/// Name of the issuer, and the audience of tokens that name none.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Why the signing key cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the key that signs service account tokens is not usable")]
pub struct KeyError(#[from] jsonwebtoken::errors::Error);

/// Signs and verifies tokens.
pub struct Tokens {
    signing: EncodingKey,
    verifying: DecodingKey,
    key_id: String,
    /// The public key, for `/openid/v1/jwks`.
    pub public_pem: String,
    pub used: Used,
}

/// An object a token is bound to.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Bound {
    pub name: String,
    #[serde(default)]
    pub uid: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    aud: Vec<String>,
    exp: i64,
    iat: i64,
    nbf: i64,
    iss: String,
    jti: String,
    sub: String,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Private,
}

#[derive(Debug, Serialize, Deserialize)]
struct Private {
    namespace: String,
    serviceaccount: Bound,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pod: Option<Bound>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    node: Option<Bound>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    secret: Option<Bound>,
}

/// What a token is to say.
#[derive(Debug)]
pub struct Request {
    pub namespace: String,
    pub account: Bound,
    pub pod: Option<Bound>,
    pub node: Option<Bound>,
    pub secret: Option<Bound>,
    pub audiences: Vec<String>,
    /// Seconds since the epoch.
    pub now: i64,
    pub seconds: i64,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Tokens").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

impl Tokens {
    /// Signs with an EC private key (PKCS#8 PEM) and verifies with its public half.
    pub fn new(private_pem: &str, public_pem: &str) -> Result<Self, KeyError> {
        use base64::Engine;
        use sha2::Digest;
        let digest = sha2::Sha256::digest(public_pem.as_bytes());
        Ok(Self {
            signing: EncodingKey::from_ec_pem(private_pem.as_bytes())?,
            verifying: DecodingKey::from_ec_pem(public_pem.as_bytes())?,
            key_id: base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(digest),
            public_pem: public_pem.to_owned(),
            used: Used::default(),
        })
    }

    /// A signed token.
    pub fn sign(&self, request: Request) -> Result<String, KeyError> {
        let claims = Claims {
            aud: request.audiences,
            exp: request.now + request.seconds,
            iat: request.now,
            nbf: request.now,
            iss: ISSUER.to_owned(),
            jti: uuid::Uuid::new_v4().to_string(),
            sub: format!("system:serviceaccount:{}:{}", request.namespace, request.account.name),
            kubernetes: Private {
                namespace: request.namespace,
                serviceaccount: request.account,
                pod: request.pod,
                node: request.node,
                secret: request.secret,
            },
        };
        self.encode(&claims)
    }

    /// Signs any claims.
    pub(super) fn encode(&self, claims: &impl Serialize) -> Result<String, KeyError> {
        let header = Header { kid: Some(self.key_id.clone()), ..Header::new(Algorithm::ES256) };
        Ok(jsonwebtoken::encode(&header, claims, &self.signing)?)
    }

    /// The claims of a token that was signed here and is valid.
    pub(super) fn decode<T: DeserializeOwned>(&self, token: &str, validation: &Validation) -> Option<T> {
        let decoded = jsonwebtoken::decode::<T>(token, &self.verifying, validation);
        decoded.inspect_err(|error| tracing::debug!(%error, "refused a token")).ok().map(|data| data.claims)
    }

    /// The account of a valid token whose account and bound objects still exist, and the audiences that were asked for
    /// and are in it. Without audiences this server's own is required.
    pub fn verify(
        &self,
        token: &str,
        audiences: &[String],
        objects: &Objects,
        now: Timestamp,
    ) -> Option<(User, Vec<String>)> {
        let own = [ISSUER.to_owned()];
        let wanted = if audiences.is_empty() { &own[..] } else { audiences };
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(wanted);
        validation.leeway = 0;
        let claims: Claims = self.decode(token, &validation)?;
        let private = &claims.kubernetes;
        let namespace = private.namespace.as_str();
        let exists =
            |plural: &str, namespace: &str, bound: &Bound| exists(objects, plural, namespace, bound, now);
        let alive = exists("serviceaccounts", namespace, &private.serviceaccount)
            && private.pod.as_ref().is_none_or(|pod| exists("pods", namespace, pod))
            // The node of a pod's token only tells where the pod runs.
            && (private.pod.is_some() || private.node.as_ref().is_none_or(|node| exists("nodes", "", node)))
            && private.secret.as_ref().is_none_or(|secret| exists("secrets", namespace, secret));
        if !alive {
            return None;
        }
        let mut user =
            User::service_account(namespace, &private.serviceaccount.name, &private.serviceaccount.uid);
        user.extra = extra(&claims);
        let common = claims.aud.into_iter().filter(|audience| wanted.contains(audience)).collect();
        Some((user, common))
    }

    /// The public key as a JSON web key set.
    pub fn jwks(&self) -> serde_json::Value {
        use base64::Engine;
        let body: String = self.public_pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let der = base64::engine::general_purpose::STANDARD.decode(body).unwrap_or_default();
        // A P-256 SubjectPublicKeyInfo ends with the uncompressed point: 4, then 32 bytes each of x and y.
        let point = der.get(der.len().saturating_sub(64)..).unwrap_or_default();
        let part = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
        let (x, y) = point.split_at(point.len() / 2);
        serde_json::json!({ "keys": [{ "use": "sig", "kty": "EC", "kid": self.key_id, "crv": "P-256",
            "alg": "ES256", "x": part(x), "y": part(y) }] })
    }
}

/// Whether the object is there, is the same, and was not to be gone already.
fn exists(objects: &Objects, plural: &str, namespace: &str, bound: &Bound, now: Timestamp) -> bool {
    let entry = objects.get(&key(known("", plural), namespace, &bound.name));
    entry.is_some_and(|entry| {
        (bound.uid.is_empty() || *entry.header.uid == *bound.uid) && !is_overdue(&entry.value.bytes(), now)
    })
}

/// For so long after its deletion was to be over an object that something still holds counts as there.
const HELD: SignedDuration = SignedDuration::from_secs(60);

/// Whether the object was to be gone a while ago. Nearly none is, and most need not be read for that.
fn is_overdue(value: &[u8], now: Timestamp) -> bool {
    if memchr::memmem::find(value, b"\"deletionTimestamp\"").is_none() {
        return false;
    }
    let object: serde_json::Value = serde_json::from_slice(value).unwrap_or_default();
    let end = text(&object, &["metadata", "deletionTimestamp"]).parse::<Timestamp>();
    end.is_ok_and(|end| now.duration_since(end) > HELD)
}

fn extra(claims: &Claims) -> BTreeMap<String, Vec<String>> {
    let mut extra = BTreeMap::new();
    let mut add = |name: &str, value: &str| {
        if !value.is_empty() {
            extra.insert(format!("authentication.kubernetes.io/{name}"), vec![value.to_owned()]);
        }
    };
    add("credential-id", &format!("JTI={}", claims.jti));
    for (kind, bound) in [("pod", &claims.kubernetes.pod), ("node", &claims.kubernetes.node)] {
        if let Some(bound) = bound {
            add(&format!("{kind}-name"), &bound.name);
            add(&format!("{kind}-uid"), &bound.uid);
        }
    }
    extra
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_counts_until_a_minute_after_it_was_to_be_gone() {
        let pod = br#"{"metadata":{"name":"a","deletionTimestamp":"2026-01-01T00:00:30Z"}}"#;
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert!(!is_overdue(pod, at("2026-01-01T00:00:00Z")));
        assert!(!is_overdue(pod, at("2026-01-01T00:01:30Z")));
        assert!(is_overdue(pod, at("2026-01-01T00:01:31Z")));
        assert!(!is_overdue(br#"{"metadata":{"name":"a"}}"#, at("2026-01-01T00:01:31Z")));
        let label = br#"{"metadata":{"name":"a","labels":{"deletionTimestamp":"2026-01-01T00:00:00Z"}}}"#;
        assert!(!is_overdue(label, at("2026-01-02T00:00:00Z")));
    }
}
