//! From method and path to what the request is about: the attributes that authorisation, admission and verbs share.

use crate::query::Query;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// A path below a resource.
    Resource(Target),
    /// Anything else: discovery, health, documents.
    Other { verb: &'static str, path: String },
}

/// Attributes of a request for a resource.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Target {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`; empty for methods that mean none
    /// of them.
    pub verb: &'static str,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub name: String,
    pub subresource: String,
}

/// Reads the attributes of a request.
pub fn parse(method: &http::Method, path: &str, query: &Query) -> Route {
    let other = || Route::Other { verb: plain_verb(method), path: path.to_owned() };
    let parts: Vec<String> = path.trim_matches('/').split('/').map(crate::query::decode_path).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let (group, version, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
        ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
        _ => return other(),
    };
    if rest.iter().any(|part| part.is_empty()) && rest.len() < 4 {
        return other();
    }
    // An escaped slash would make one name of two segments.
    if rest.iter().take(4).any(|part| part.contains('/')) {
        return other();
    }
    // The way to ask for a watch before there was a parameter for it.
    let (watches, rest) = match rest {
        ["watch", inner @ ..] if !inner.is_empty() => (true, inner),
        _ => (false, rest),
    };
    let mut target = Target { group: group.to_owned(), version: version.to_owned(), ..Target::default() };
    let rest = match rest {
        // A namespace's own subresources.
        ["namespaces", name, "status" | "finalize"] => {
            target.namespace = (*name).to_owned();
            rest
        }
        ["namespaces", namespace, inner @ ..] if !inner.is_empty() => {
            target.namespace = (*namespace).to_owned();
            inner
        }
        ["namespaces", name] => {
            target.namespace = (*name).to_owned();
            rest
        }
        _ => rest,
    };
    target.resource = rest[0].to_owned();
    target.name = rest.get(1).map(|name| (*name).to_owned()).unwrap_or_default();
    target.subresource = rest.get(2).map(|name| (*name).to_owned()).unwrap_or_default();
    let proxied = target.subresource == "proxy";
    if rest.len() > 3 && !proxied {
        return other();
    }
    target.verb = match method.as_str() {
        "GET" | "HEAD" if watches => "watch",
        _ if watches => "",
        _ => resource_verb(method, &target, query),
    };
    Route::Resource(target)
}

fn plain_verb(method: &http::Method) -> &'static str {
    match method.as_str() {
        "POST" => "post",
        "PUT" => "put",
        "PATCH" => "patch",
        "DELETE" => "delete",
        "HEAD" => "head",
        "OPTIONS" => "options",
        _ => "get",
    }
}

fn resource_verb(method: &http::Method, target: &Target, query: &Query) -> &'static str {
    let named = !target.name.is_empty();
    match method.as_str() {
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" if named => "delete",
        "DELETE" => "deletecollection",
        "GET" | "HEAD" => read_verb(named, target, query),
        // No resource has a verb for it, and no rule allows one.
        _ => "",
    }
}

fn read_verb(named: bool, target: &Target, query: &Query) -> &'static str {
    // A watch of one object by name is a list with a field selector.
    if query.flag("watch") && (!named || target.subresource.is_empty()) {
        return "watch";
    }
    if named { "get" } else { "list" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(method: &str, uri: &str) -> Route {
        let uri: http::Uri = uri.parse().unwrap();
        parse(&method.parse().unwrap(), uri.path(), &Query::of(&uri))
    }

    fn words(route: &Route) -> String {
        match route {
            Route::Resource(t) => {
                format!(
                    "{} {}/{} ns={} {} {} {}",
                    t.verb, t.group, t.version, t.namespace, t.resource, t.name, t.subresource
                )
            }
            Route::Other { verb, path } => format!("{verb} {path}"),
        }
    }

    #[test]
    fn paths_are_read_as_upstream_reads_them() {
        let cases = [
            ("GET", "/api/v1/namespaces", "list /v1 ns= namespaces  "),
            ("GET", "/api/v1/namespaces/a", "get /v1 ns=a namespaces a "),
            ("PUT", "/api/v1/namespaces/a/finalize", "update /v1 ns=a namespaces a finalize"),
            ("GET", "/api/v1/namespaces/a/pods", "list /v1 ns=a pods  "),
            ("GET", "/api/v1/namespaces/a/pods?watch=true", "watch /v1 ns=a pods  "),
            ("GET", "/api/v1/pods?watch=1", "watch /v1 ns= pods  "),
            ("GET", "/api/v1/watch/pods", "watch /v1 ns= pods  "),
            ("GET", "/api/v1/watch/namespaces/a/pods/p", "watch /v1 ns=a pods p "),
            (
                "GET",
                "/apis/apps/v1/watch/namespaces/a/deployments?watch=0",
                "watch apps/v1 ns=a deployments  ",
            ),
            ("DELETE", "/api/v1/watch/namespaces/a/pods", " /v1 ns=a pods  "),
            ("GET", "/api/v1/watch", "list /v1 ns= watch  "),
            ("POST", "/api/v1/namespaces/a/pods/p/binding", "create /v1 ns=a pods p binding"),
            ("GET", "/api/v1/namespaces/a/pods/p/log", "get /v1 ns=a pods p log"),
            (
                "PATCH",
                "/apis/apps/v1/namespaces/a/deployments/d/scale",
                "patch apps/v1 ns=a deployments d scale",
            ),
            (
                "DELETE",
                "/apis/apps/v1/namespaces/a/deployments",
                "deletecollection apps/v1 ns=a deployments  ",
            ),
            ("DELETE", "/api/v1/nodes/n", "delete /v1 ns= nodes n "),
            ("GET", "/api/v1", "get /api/v1"),
            ("GET", "/apis/apps/v1", "get /apis/apps/v1"),
            ("OPTIONS", "/api/v1/pods", " /v1 ns= pods  "),
            ("FROB", "/api/v1/namespaces/a/pods/p", " /v1 ns=a pods p "),
            ("GET", "/healthz", "get /healthz"),
            ("GET", "/api/v1/namespaces/a/pods/x%3Ay", "get /v1 ns=a pods x:y "),
            ("GET", "/api/v1/namespaces/a/pods/x%2Fy", "get /api/v1/namespaces/a/pods/x%2Fy"),
            ("GET", "/api/v1/namespaces/a%2Fb/pods/x", "get /api/v1/namespaces/a%2Fb/pods/x"),
        ];
        for (method, uri, want) in cases {
            assert_eq!(words(&route(method, uri)), want, "{method} {uri}");
        }
    }

    #[test]
    fn no_path_panics() {
        for uri in [
            "/",
            "//",
            "/api//",
            "/apis///",
            "/api/v1//",
            "/api/v1/namespaces//pods",
            "/%ff/%zz",
            "/api/v1/%",
        ] {
            words(&route("GET", uri));
        }
    }
}
