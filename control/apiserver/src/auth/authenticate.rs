//! From a connection and its headers to an identity: client certificate, bearer token, or nobody.

use http::HeaderMap;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::User;
use super::token::Tokens;
use crate::object::Objects;
use crate::status::{Refusal, Result};

/// The identity of a verified client certificate: its common name, and its organisations as groups.
pub fn from_certificate(der: &[u8]) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups: Vec<&str> = subject.iter_organization().filter_map(|group| group.as_str().ok()).collect();
    Some(User::new(&name, &groups))
}

/// The identity of a request: a certificate counts before a token; without both it is anonymous.
pub fn identify(
    certificate: Option<&User>,
    headers: &HeaderMap,
    tokens: &Tokens,
    objects: &Objects,
) -> Result<User> {
    if let Some(user) = certificate {
        return Ok(user.clone());
    }
    let Some(header) = headers.get(http::header::AUTHORIZATION) else { return Ok(User::anonymous()) };
    let text = header.to_str().unwrap_or_default();
    let token = text.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let Some((_, token)) = token else { return Ok(User::anonymous()) };
    tokens.verify(token.trim(), &[], objects).map(|(user, _)| user).ok_or_else(Refusal::unauthorized)
}

/// Applies `Impersonate-*` headers; `may` is asked for each thing that is impersonated.
pub fn impersonate(
    user: User,
    headers: &HeaderMap,
    may: impl Fn(&User, &super::Attempt) -> bool,
) -> Result<User> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(name) = header("impersonate-user") else { return Ok(user) };
    let groups: Vec<&str> =
        headers.get_all("impersonate-group").iter().filter_map(|value| value.to_str().ok()).collect();
    let attempt = |resource: &str, namespace: &str, name: &str| {
        super::Attempt::resource("impersonate", "", resource, namespace, name)
    };
    let mut wanted = Vec::new();
    let mut new = match name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) {
        Some((namespace, account)) => {
            wanted.push(attempt("serviceaccounts", namespace, account));
            User::service_account(namespace, account, "")
        }
        None => {
            wanted.push(attempt("users", "", name));
            User::new(name, &[])
        }
    };
    wanted.extend(groups.iter().map(|group| attempt("groups", "", group)));
    let detail = |resource: &str, subresource: &str, name: &str| super::Attempt::Resource {
        verb: "impersonate".to_owned(),
        group: "authentication.k8s.io".to_owned(),
        resource: resource.to_owned(),
        subresource: subresource.to_owned(),
        namespace: String::new(),
        name: name.to_owned(),
    };
    let uid = header("impersonate-uid").unwrap_or_default();
    if !uid.is_empty() {
        wanted.push(detail("uids", "", uid));
    }
    let mut extra = std::collections::BTreeMap::<String, Vec<String>>::new();
    for (header, value) in headers {
        let Some(key) = header.as_str().strip_prefix("impersonate-extra-") else { continue };
        let (key, value) = (crate::query::decode_path(key), value.to_str().unwrap_or_default());
        wanted.push(detail("userextras", &key, value));
        extra.entry(key).or_default().push(value.to_owned());
    }
    if let Some(refused) = wanted.iter().find(|attempt| !may(&user, attempt)) {
        return Err(refused.refusal(&user));
    }
    if !groups.is_empty() {
        new = User::new(name, &groups);
    }
    uid.clone_into(&mut new.uid);
    new.extra = extra;
    Ok(new)
}
