//! Bootstrap tokens: with one, a machine that is no node yet asks to become one.
//!
//! `abcdef.0123456789abcdef` is whom the Secret `bootstrap-token-abcdef` of `kube-system` says, as long as it says so
//! (Kubernetes: "Authenticating with Bootstrap Tokens", `k8s.io/cluster-bootstrap/token/api`).

use base64::Engine;
use jiff::Timestamp;
use serde_json::Value;

use super::User;
use crate::object::{self, Objects, key};
use crate::resources::known;
use crate::tree::{at, text};

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
/// Every owner of a token is in this group; others it names begin with it and a colon.
const GROUP: &str = "system:bootstrappers";

/// Whose the token is at `now`; `None` for everything that is no valid token.
pub fn verify(token: &str, objects: &Objects, now: Timestamp) -> Option<User> {
    let (id, secret) = token.split_once('.')?;
    if !is_word(id, 6) || !is_word(secret, 16) {
        return None;
    }
    let entry = objects.get(&key(known("", "secrets"), NAMESPACE, &format!("bootstrap-token-{id}")))?;
    let found = owner(&object::decode(&entry), id, secret, now);
    found.map_err(|why| tracing::debug!(id, why, "refused a bootstrap token")).ok()
}

fn is_word(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
}

/// Whom the Secret says, or why it does not.
fn owner(object: &Value, id: &str, secret: &str, now: Timestamp) -> Result<User, &'static str> {
    if text(object, &["type"]) != TYPE {
        return Err("the Secret is of another type");
    }
    if !at(object, &["metadata", "deletionTimestamp"]).is_null() {
        return Err("the Secret is being deleted");
    }
    let stored = value(object, "token-secret");
    if stored.is_empty() || !equal(stored.as_bytes(), secret.as_bytes()) || value(object, "token-id") != id {
        return Err("it is not the token in the Secret");
    }
    let expiration = value(object, "expiration");
    if !expiration.is_empty() && expiration.parse::<Timestamp>().map_or(true, |end| end <= now) {
        return Err("it has expired, or its expiration is no time");
    }
    if value(object, "usage-bootstrap-authentication") != "true" {
        return Err("it is not for authentication");
    }
    let extra = value(object, "auth-extra-groups");
    let mut groups: Vec<&str> = extra.split(',').filter(|group| !group.is_empty()).collect();
    if !groups.iter().all(|group| is_group(group)) {
        return Err("it names groups that a bootstrap token cannot give");
    }
    groups.sort_unstable();
    groups.dedup();
    groups.insert(0, GROUP);
    Ok(User::new(&format!("system:bootstrap:{id}"), &groups))
}

/// A field of the Secret; empty when it is missing or no text.
fn value(object: &Value, field: &str) -> String {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text(object, &["data", field]));
    bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}

/// Whether both are the same, in a time that does not tell where they differ.
fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

fn is_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix("system:bootstrappers:") else { return false };
    let word = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase();
    rest.len() <= 256
        && rest.bytes().all(|byte| word(byte) || matches!(byte, b':' | b'-'))
        && rest.bytes().last().is_some_and(word)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "abcdef";
    const SECRET: &str = "0123456789abcdef";

    fn secret(fields: &[(&str, &str)]) -> Value {
        let mut object = json!({ "type": TYPE, "metadata": {}, "data": {} });
        let own = [("token-id", ID), ("token-secret", SECRET), ("usage-bootstrap-authentication", "true")];
        for (name, value) in own.iter().chain(fields) {
            object["data"][name] = json!(base64::engine::general_purpose::STANDARD.encode(value));
        }
        object
    }

    fn groups(object: &Value) -> Option<Vec<String>> {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        owner(object, ID, SECRET, now).ok().map(|user| user.groups)
    }

    #[test]
    fn a_token_gives_its_groups_until_it_expires() {
        let plain = secret(&[]);
        assert_eq!(groups(&plain).unwrap(), ["system:bootstrappers", "system:authenticated"]);
        let more = secret(&[("auth-extra-groups", "system:bootstrappers:z,system:bootstrappers:a")]);
        let wanted = [
            "system:bootstrappers",
            "system:bootstrappers:a",
            "system:bootstrappers:z",
            "system:authenticated",
        ];
        assert_eq!(groups(&more).unwrap(), wanted);
        for (expiration, lives) in [
            ("2026-01-01T00:00:01Z", true),
            ("2026-01-01T02:00:01+02:00", true),
            ("2026-01-01T00:00:00Z", false),
            ("soon", false),
        ] {
            let object = secret(&[("expiration", expiration)]);
            assert_eq!(groups(&object).is_some(), lives, "{expiration}");
        }
    }

    #[test]
    fn what_is_no_token_gives_nothing() {
        for (field, value) in [
            ("token-id", "abcdeg"),
            ("token-secret", "0123456789abcdeg"),
            ("token-secret", ""),
            ("usage-bootstrap-authentication", "false"),
            ("auth-extra-groups", "system:masters"),
            ("auth-extra-groups", "system:bootstrappers:a,system:bootstrappers:"),
            ("auth-extra-groups", "system:bootstrappers:A"),
            ("auth-extra-groups", "system:bootstrappers:a-"),
        ] {
            assert_eq!(groups(&secret(&[(field, value)])), None, "{field} {value}");
        }
        let mut other = secret(&[]);
        other["type"] = json!("Opaque");
        assert_eq!(groups(&other), None);
        let mut going = secret(&[]);
        going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(groups(&going), None);
    }
}
