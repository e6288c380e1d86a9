//! Tokens of service accounts that never end by themselves: each is valid while a Secret holds it, and tells that Secret the day
//! of its last use.
//!
//! Kubernetes: "Manually create a long-lived API token for a ServiceAccount", `pkg/serviceaccount/legacy.go`.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, Validation};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::Txn;
use tokio::sync::Notify;

use super::User;
use super::token::{Bound, KeyError, Tokens};
use crate::admission::account_token::{ACCOUNT, TYPE, UID};
use crate::api::Api;
use crate::object::{self, Objects, Stored, key};
use crate::resources::known;
use crate::tree::{at, set, text};

/// Who has issued them, from before issuers had addresses.
const ISSUER: &str = "kubernetes/serviceaccount";
/// The day on which the token was last used, `2026-01-31`.
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
/// The day since when the token counts no more.
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    uid: String,
    sub: String,
}

fn subject(namespace: &str, account: &str) -> String {
    format!("system:serviceaccount:{namespace}:{account}")
}

/// The token of an account that the Secret of this name is to hold.
pub fn sign(tokens: &Tokens, namespace: &str, secret: &str, account: Bound) -> Result<String, KeyError> {
    tokens.encode(&Claims {
        iss: ISSUER.to_owned(),
        sub: subject(namespace, &account.name),
        namespace: namespace.to_owned(),
        secret: secret.to_owned(),
        account: account.name,
        uid: account.uid,
    })
}

/// Whether a token says that it is of this kind; true or not.
pub fn is_one(token: &str) -> bool {
    let claims = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let claims = claims.and_then(|claims| serde_json::from_slice::<Value>(&claims).ok());
    claims.is_some_and(|claims| text(&claims, &["iss"]) == ISSUER)
}

/// The account of a token that a Secret holds.
pub fn verify(token: &str, tokens: &Tokens, objects: &Objects, now: Timestamp) -> Option<User> {
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_issuer(&[ISSUER]);
    validation.set_required_spec_claims(&["iss", "sub"]);
    validation.validate_exp = false;
    validation.validate_aud = false;
    let claims: Claims = tokens.decode(token, &validation)?;
    let Claims { namespace, account, uid, .. } = &claims;
    let key = key(known("", "secrets"), namespace, &claims.secret);
    let entry = objects.get(&key);
    let found = holder(&claims, token, entry.as_deref().map(object::decode), objects);
    let secret = found.inspect_err(|why| tracing::debug!(key, why, "refused a token")).ok()?;
    if is_news(&secret, now) {
        tokens.used.tell(key);
    }
    if !label(&secret, INVALID_SINCE).is_empty() {
        tracing::debug!(namespace, account, "refused a token that counts no more");
        return None;
    }
    Some(User::service_account(namespace, account, uid))
}

/// The Secret, if it still holds the token of an account that is still there.
fn holder(
    claims: &Claims,
    token: &str,
    secret: Option<Value>,
    objects: &Objects,
) -> Result<Value, &'static str> {
    if claims.sub != subject(&claims.namespace, &claims.account) {
        return Err("its subject is another than its account");
    }
    let is_going = |object: &Value| !at(object, &["metadata", "deletionTimestamp"]).is_null();
    let secret = secret.filter(|secret| !is_going(secret)).ok_or("its Secret is gone")?;
    if text(&secret, &["data", "token"]) != STANDARD.encode(token) {
        return Err("its Secret holds another");
    }
    let account: Option<Stored> =
        objects.get(&key(known("", "serviceaccounts"), &claims.namespace, &claims.account));
    let account = account.map(|entry| object::decode(&entry)).filter(|account| !is_going(account));
    match account.ok_or("its account is gone")? {
        account if text(&account, &["metadata", "uid"]) == claims.uid => Ok(secret),
        _ => Err("its account is another of the same name"),
    }
}

fn label<'a>(secret: &'a Value, name: &str) -> &'a str {
    text(secret, &["metadata", "labels", name])
}

fn day(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d").to_string()
}

/// Whether the Secret has not been told yet. A server whose clock is ahead may have told it of tomorrow.
fn is_news(secret: &Value, now: Timestamp) -> bool {
    let tomorrow = now.checked_add(SignedDuration::from_hours(24)).unwrap_or(now);
    let told = label(secret, LAST_USED);
    told != day(now) && told != day(tomorrow)
}

/// Keys of Secrets whose tokens were used, and that are to be told.
#[derive(Debug, Default)]
pub struct Used {
    keys: Mutex<BTreeSet<String>>,
    news: Notify,
}

impl Used {
    fn tell(&self, key: String) {
        self.keys.lock().insert(key);
        self.news.notify_one();
    }
}

/// Tells Secrets of the use of their tokens until the server stops.
pub async fn run(api: Arc<Api>) {
    loop {
        tokio::select! {
            () = api.tokens.used.news.notified() => {}
            () = api.stopping.cancelled() => return,
        }
        let keys = std::mem::take(&mut *api.tokens.used.keys.lock());
        for key in keys {
            mark(&api, &key, Timestamp::now()).await;
        }
    }
}

/// Writes the day into a label. Whoever wrote the Secret meanwhile goes first: the next use tells it again.
async fn mark(api: &Api, key: &str, now: Timestamp) {
    let Some(entry) = api.objects.get(key) else { return };
    let mut secret = object::decode(&entry);
    if !is_news(&secret, now) {
        return;
    }
    set(&mut secret, &["metadata", "labels", LAST_USED], day(now));
    let txn = Txn::update(key, entry.mod_revision, object::encode(&secret));
    if let Err(error) = api.txn(txn).await {
        tracing::debug!(%error, key, "the use of a token is not written down");
    }
}

/// What a Secret is to hold that has no token yet, if it is for one and its account is there.
pub fn wanted(tokens: &Tokens, objects: &Objects, secret: &Value) -> Result<Option<String>, KeyError> {
    let said = |name: &str| text(secret, &["metadata", "annotations", name]);
    let named = |field: &str| text(secret, &["metadata", field]);
    if text(secret, &["type"]) != TYPE || !text(secret, &["data", "token"]).is_empty() || said(UID).is_empty()
    {
        return Ok(None);
    }
    let account = objects.get(&key(known("", "serviceaccounts"), named("namespace"), said(ACCOUNT)));
    let account = account.filter(|account| *account.header.uid == *said(UID));
    account
        .map(|account| {
            let bound = Bound { name: said(ACCOUNT).to_owned(), uid: account.header.uid.to_string() };
            sign(tokens, named("namespace"), named("name"), bound)
        })
        .transpose()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_secret_is_told_once_a_day_of_the_use_of_its_token() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        for (told, want) in [
            ("", true),
            ("2026-01-30", true),
            ("2026-01-31", false),
            ("2026-02-01", false),
            ("2026-02-02", true),
        ] {
            let secret = json!({"metadata": {"labels": {LAST_USED: told}}});
            assert_eq!(is_news(&secret, now), want, "{told}");
        }
        assert!(is_news(&json!({"metadata": {}}), now));
    }

    #[test]
    fn a_token_tells_of_which_kind_it_is() {
        let token = |claims: &str| format!("x.{}.y", URL_SAFE_NO_PAD.encode(claims));
        assert!(is_one(&token(r#"{"iss": "kubernetes/serviceaccount"}"#)));
        for other in
            [token(r#"{"iss": "https://kubernetes.default.svc"}"#), token("{}"), "a.b".into(), "x".into()]
        {
            assert!(!is_one(&other), "{other}");
        }
    }
}
