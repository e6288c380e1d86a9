//! From a connection and its headers to an identity: client certificate, bearer token, or nobody.

use http::HeaderMap;
use jiff::Timestamp;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::token::{ISSUER, Tokens};
use super::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, User, bootstrap_token, legacy_token};
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
    now: Timestamp,
) -> Result<User> {
    if let Some(user) = certificate {
        return Ok(user.clone());
    }
    let Some(header) = headers.get(http::header::AUTHORIZATION) else { return Ok(User::anonymous()) };
    let text = header.to_str().unwrap_or_default();
    let token = text.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let Some((_, token)) = token else { return Ok(User::anonymous()) };
    bearer(token.trim(), &[], tokens, objects, now).map(|(user, _)| user).ok_or_else(Refusal::unauthorized)
}

/// Whose a token is, and for which of the audiences; without audiences it has to be for this server. A bootstrap token and one
/// that a Secret holds are for this server alone.
pub fn bearer(
    token: &str,
    audiences: &[String],
    tokens: &Tokens,
    objects: &Objects,
    now: Timestamp,
) -> Option<(User, Vec<String>)> {
    let for_us = audiences.is_empty() || audiences.iter().any(|audience| audience == ISSUER);
    let bootstrap = bootstrap_token::verify(token, objects, now).filter(|_| for_us);
    let legacy = || legacy_token::verify(token, tokens, objects, now).filter(|_| for_us);
    match bootstrap {
        Some(user) => Some((user, vec![ISSUER.to_owned()])),
        None if legacy_token::is_one(token) => Some((legacy()?, vec![ISSUER.to_owned()])),
        None => tokens.verify(token, audiences, objects, now),
    }
}

/// Applies `Impersonate-*` headers; `may` is asked for each thing that is impersonated.
pub fn impersonate(
    user: User,
    headers: &HeaderMap,
    may: impl Fn(&User, &super::Attempt) -> bool,
) -> Result<User> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let groups: Vec<&str> =
        headers.get_all("impersonate-group").iter().filter_map(|value| value.to_str().ok()).collect();
    let Some(name) = header("impersonate-user").filter(|name| !name.is_empty()) else {
        let details = headers.keys().any(|name| name.as_str().starts_with("impersonate-"));
        let why = "impersonation of groups, a uid or extra fields needs the header Impersonate-User";
        return if details { Err(Refusal::bad_request(why)) } else { Ok(user) };
    };
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
            User { name: name.to_owned(), ..User::default() }
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
        node: String::new(),
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
        new.groups = groups.iter().map(|group| (*group).to_owned()).collect();
    }
    complete(&mut new);
    uid.clone_into(&mut new.uid);
    new.extra = extra;
    Ok(new)
}

/// Adds the group that says whether the user is known, unless the groups say so already.
fn complete(user: &mut User) {
    if user.name == ANONYMOUS {
        if !user.is_in(UNAUTHENTICATED) {
            user.groups.push(UNAUTHENTICATED.to_owned());
        }
    } else if !user.is_in(AUTHENTICATED) && !user.is_in(UNAUTHENTICATED) {
        user.groups.push(AUTHENTICATED.to_owned());
    }
}
