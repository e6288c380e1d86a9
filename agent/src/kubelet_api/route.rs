//! Paths and queries of the kubelet API, parsed into what is asked: pure.

use http::{Method, StatusCode, Uri};
use jiff::Timestamp;

use super::Refusal;

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Asked {
    Healthz,
    Pods,
    Logs(Logs),
    Exec(Streams),
    Attach(Streams),
    PortForward(Place),
}

impl Asked {
    /// The subresource of `nodes` that RBAC knows this by.
    pub(super) fn subresource(&self) -> &'static str {
        match self {
            Self::Healthz => "healthz",
            Self::Pods => "pods",
            Self::Logs(_) | Self::Exec(_) | Self::Attach(_) | Self::PortForward(_) => "proxy",
        }
    }
}

/// A container of a pod; of port-forward only the pod counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) container: String,
}

/// Which part of a log.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Logs {
    pub(super) place: Place,
    pub(super) follow: bool,
    pub(super) previous: bool,
    pub(super) timestamps: bool,
    pub(super) tail: Option<usize>,
    pub(super) since: Option<Timestamp>,
    pub(super) since_seconds: Option<i64>,
    pub(super) limit: Option<usize>,
}

/// Which streams of a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Streams {
    pub(super) place: Place,
    pub(super) command: Vec<String>,
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) tty: bool,
}

/// Parses a request.
pub(super) fn parse(method: &Method, uri: &Uri) -> Result<Asked, Refusal> {
    if !matches!(*method, Method::GET | Method::POST) {
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not served")));
    }
    let query = Query(decode(uri.query().unwrap_or_default()));
    let path: Vec<String> = uri.path().split('/').filter(|part| !part.is_empty()).map(unescape).collect();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let place = |namespace: &str, pod: &str, container: &str| Place {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        container: container.to_owned(),
    };
    match path.as_slice() {
        ["healthz"] => Ok(Asked::Healthz),
        ["pods"] => Ok(Asked::Pods),
        ["containerLogs", namespace, pod, container] => {
            Ok(Asked::Logs(query.logs(place(namespace, pod, container))?))
        }
        ["exec", namespace, pod, container] => {
            let asked = query.streams(place(namespace, pod, container))?;
            if asked.command.is_empty() {
                return Err(Refusal::new(StatusCode::BAD_REQUEST, "you must specify a command"));
            }
            Ok(Asked::Exec(asked))
        }
        ["attach", namespace, pod, container] => {
            Ok(Asked::Attach(query.streams(place(namespace, pod, container))?))
        }
        ["portForward", namespace, pod] => Ok(Asked::PortForward(place(namespace, pod, ""))),
        _ => Err(Refusal::new(StatusCode::NOT_FOUND, format!("{} is not served", uri.path()))),
    }
}

struct Query(Vec<(String, String)>);

impl Query {
    fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    fn flag(&self, name: &str) -> bool {
        self.value(name).is_some_and(|value| matches!(value, "1" | "true" | "True"))
    }

    fn number<T>(&self, name: &str) -> Result<Option<T>, Refusal>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
    {
        let parse = |value: &str| {
            value.parse().map_err(|error: T::Err| {
                Refusal::new(StatusCode::BAD_REQUEST, format!("{name}={value:?} is not valid: {error}"))
            })
        };
        self.value(name).map(parse).transpose()
    }

    fn logs(&self, place: Place) -> Result<Logs, Refusal> {
        Ok(Logs {
            place,
            follow: self.flag("follow"),
            previous: self.flag("previous"),
            timestamps: self.flag("timestamps"),
            tail: self.number("tailLines")?,
            since: self.number("sinceTime")?,
            since_seconds: self.number("sinceSeconds")?,
            limit: self.number("limitBytes")?,
        })
    }

    /// The names of kubelets, or those of the API server.
    fn streams(&self, place: Place) -> Result<Streams, Refusal> {
        let commands = self.0.iter().filter(|(key, _)| key == "command").map(|(_, value)| value.clone());
        let tty = self.flag("tty");
        let streams = Streams {
            place,
            command: commands.collect(),
            stdin: self.flag("input") || self.flag("stdin"),
            stdout: self.flag("output") || self.flag("stdout"),
            // A terminal has one output.
            stderr: !tty && (self.flag("error") || self.flag("stderr")),
            tty,
        };
        if streams.stdin || streams.stdout || streams.stderr {
            Ok(streams)
        } else {
            Err(Refusal::new(StatusCode::BAD_REQUEST, "you must specify at least 1 of stdin, stdout, stderr"))
        }
    }
}

fn decode(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (unescape(&key.replace('+', " ")), unescape(&value.replace('+', " ")))
        })
        .collect()
}

fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(escaped.unwrap_or(bytes[at]));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(uri: &str) -> Result<Asked, u16> {
        parse(&Method::GET, &uri.parse().unwrap()).map_err(|refusal| refusal.status.as_u16())
    }

    #[test]
    fn paths_and_queries_say_what_is_asked() {
        let place =
            |container: &str| Place { namespace: "n".into(), pod: "p".into(), container: container.into() };
        let exec = Streams {
            place: place("c"),
            command: vec!["sh".into(), "-c".into(), "a b&c".into()],
            stdin: true,
            stdout: true,
            stderr: false,
            tty: true,
        };
        let uri = "/exec/n/p/c?command=sh&command=-c&command=a+b%26c&input=1&output=1&error=1&tty=1";
        assert_eq!(asked(uri), Ok(Asked::Exec(exec)));
        let logs = Logs { place: place("c"), follow: true, tail: Some(3), ..Logs::default() };
        assert_eq!(asked("/containerLogs/n/p/c?follow=true&tailLines=3"), Ok(Asked::Logs(logs)));
        assert_eq!(asked("/portForward/n/p"), Ok(Asked::PortForward(place(""))));
    }

    #[test]
    fn what_is_wrong_is_refused() {
        assert_eq!(asked("/exec/n/p/c?output=1"), Err(400));
        assert_eq!(asked("/exec/n/p/c?command=a"), Err(400));
        assert_eq!(asked("/containerLogs/n/p/c?tailLines=x"), Err(400));
        assert_eq!(asked("/run/n/p/c"), Err(404));
        assert_eq!(parse(&Method::PUT, &"/pods".parse().unwrap()).unwrap_err().status.as_u16(), 405);
    }

    #[test]
    fn broken_escapes_stay_as_they_are() {
        assert_eq!(unescape("%41%4"), "A%4");
        assert_eq!(unescape("%zz%é"), "%zz%é");
    }
}
