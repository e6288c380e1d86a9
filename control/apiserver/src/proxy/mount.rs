//! The path under which a proxied target is seen, and answers in which its own links lead there.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Response, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use lol_html::errors::RewritingError;
use lol_html::send::{HtmlRewriter, Settings};
use lol_html::{MemorySettings, element};
use parking_lot::Mutex;

use super::location::Location;
use super::{forget_connection, streamed};
use crate::api::Call;
use crate::body::{Body, BodyError, Reply};
use crate::status::{Refusal, Result};

/// Elements and their attributes that hold a link.
const LINKS: &[(&str, &[&str])] = &[
    ("a, area, base, link", &["href"]),
    ("applet", &["codebase"]),
    ("audio, embed, script, source, track", &["src"]),
    ("blockquote, del, ins, q", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("form", &["action"]),
    ("frame, iframe", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["formaction", "src", "usemap"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("video", &["poster", "src"]),
];
/// Memory the rewriting of one document may take: from a tag that is longer on, a document stays as it is.
const MEMORY: usize = 1 << 20;

/// The path up to and with `/proxy`.
#[derive(Debug, Clone)]
pub struct Mount(Arc<str>);

impl Mount {
    pub fn at(path: &str) -> Self {
        Self(path.into())
    }

    /// The path of `behind`, which begins with a slash, seen from outside.
    pub fn outside(&self, behind: &str) -> String {
        format!("{}{behind}", self.0)
    }

    /// A link of the target at `host`, as it has to be from outside; `None` when it is right as it is, because it leads
    /// elsewhere, is relative, or has been rewritten by the target.
    fn link(&self, link: &str, host: &str) -> Option<String> {
        let behind = match link.split_once("://") {
            Some((scheme, rest)) if is_scheme(scheme) => own(rest, host)?,
            _ => match link.strip_prefix("//") {
                Some(rest) => own(rest, host)?,
                None => link,
            },
        };
        let known = behind.strip_prefix(&*self.0).is_some();
        (behind.starts_with('/') && !known).then(|| self.outside(behind))
    }

    /// The target's answer with links that lead through this server.
    pub fn seen_from_outside(
        &self,
        call: &Call,
        location: &Location,
        response: Response<Incoming>,
    ) -> Result<Reply> {
        let host = match location {
            Location::Address { address, .. } => address.to_string(),
            Location::Kubelet(_) => String::new(),
        };
        let (mut parts, body) = response.into_parts();
        forget_connection(&mut parts.headers);
        let leads = parts.headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
        if let Some(link) = leads.and_then(|link| self.link(link, &host)) {
            parts.headers.insert(header::LOCATION, link.parse().map_err(Refusal::internal)?);
        }
        let header = |name| parts.headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
        let media = header(header::CONTENT_TYPE).unwrap_or_default();
        let is_document = media.split(';').next().is_some_and(|media| media.trim() == "text/html");
        let is_plain = header(header::CONTENT_ENCODING).is_none();
        if !is_document || !is_plain || call.method == Method::HEAD {
            return Ok(Response::from_parts(parts, streamed(body)));
        }
        parts.headers.remove(header::CONTENT_LENGTH);
        let (mount, rewritten) = (self.clone(), streamed(body));
        Ok(Response::from_parts(parts, document(rewritten, move |link| mount.link(link, &host))))
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

/// The path of an address behind `//`, if it is this host's.
fn own<'a>(rest: &'a str, host: &str) -> Option<&'a str> {
    rest.strip_prefix(host).filter(|path| path.starts_with('/'))
}

/// An HTML document with other links, rewritten as it comes.
fn document(body: Body, link: impl Fn(&str) -> Option<String> + Clone + Send + 'static) -> Body {
    let mut rewritten = Rewritten::new(link);
    let end = futures::stream::once(async { None });
    let pieces = body.into_data_stream().map(Some).chain(end);
    let pieces = pieces.map(move |piece| match piece {
        Some(bytes) => rewritten.piece(bytes?).map(Frame::data),
        None => rewritten.end().map(Frame::data),
    });
    Body::new(StreamBody::new(pieces))
}

/// A document on its way.
struct Rewritten {
    /// `None` behind the end, and behind what takes too much memory.
    rewriter: Option<HtmlRewriter<'static, Sink>>,
    out: Arc<Mutex<Vec<u8>>>,
}

impl Rewritten {
    fn new(link: impl Fn(&str) -> Option<String> + Clone + Send + 'static) -> Self {
        let out = Arc::default();
        Self { rewriter: Some(rewriter(link, Arc::clone(&out))), out }
    }

    fn piece(&mut self, bytes: Bytes) -> std::result::Result<Bytes, BodyError> {
        let Some(rewriter) = &mut self.rewriter else { return Ok(bytes) };
        match rewriter.write(&bytes) {
            // What it has not written it has passed on as it was.
            Err(RewritingError::MemoryLimitExceeded(_)) => self.rewriter = None,
            other => other?,
        }
        Ok(self.done())
    }

    fn end(&mut self) -> std::result::Result<Bytes, BodyError> {
        match self.rewriter.take().map(HtmlRewriter::end) {
            None | Some(Err(RewritingError::MemoryLimitExceeded(_))) => {}
            Some(other) => other?,
        }
        Ok(self.done())
    }

    fn done(&self) -> Bytes {
        std::mem::take(&mut *self.out.lock()).into()
    }
}

type Sink = Box<dyn FnMut(&[u8]) + Send>;

fn rewriter(
    link: impl Fn(&str) -> Option<String> + Clone + Send + 'static,
    out: Arc<Mutex<Vec<u8>>>,
) -> HtmlRewriter<'static, Sink> {
    let handlers = LINKS.iter().map(|(elements, attributes)| {
        let link = link.clone();
        element!(*elements, move |element| {
            for attribute in *attributes {
                let changed = element.get_attribute(attribute).and_then(|text| link(&text));
                changed.map_or(Ok(()), |text| element.set_attribute(attribute, &text))?;
            }
            Ok(())
        })
    });
    let memory = MemorySettings::new()
        .with_max_allowed_memory_usage(MEMORY)
        .with_graceful_bail_out_on_memory_limit_exceeded(true);
    let settings = Settings::new_send().with_memory_settings(memory).with_strict(false);
    let settings = handlers.fold(settings, Settings::append_element_content_handler);
    HtmlRewriter::new(settings, Box::new(move |bytes: &[u8]| out.lock().extend_from_slice(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body;

    const PROXY: &str = "/api/v1/namespaces/a/pods/p/proxy";
    const HOST: &str = "10.0.0.5:8080";

    #[test]
    fn links_of_the_target_lead_through_the_server() {
        let mount = Mount::at(PROXY);
        for (link, want) in [
            ("/", Some("/")),
            ("/a/b?c=d#e", Some("/a/b?c=d#e")),
            ("http://10.0.0.5:8080/a", Some("/a")),
            ("//10.0.0.5:8080/a", Some("/a")),
            ("a/b", None),
            ("../a", None),
            ("", None),
            ("#top", None),
            ("?page=2", None),
            ("http://10.0.0.5:80801/a", None),
            ("https://example.com/a", None),
            ("//example.com/a", None),
            ("mailto:somebody@example.com", None),
            ("javascript:go('//x')", None),
            ("/api/v1/namespaces/a/pods/p/proxy/a", None),
        ] {
            assert_eq!(mount.link(link, HOST), want.map(|path| format!("{PROXY}{path}")), "{link}");
        }
    }

    #[tokio::test]
    async fn only_links_of_a_document_change_however_it_is_cut() {
        let text = "<!doctype html><HTML manifest='/m'><p title=\"/no\">/no &amp; <A class=x href=\"/a?b=1&amp;c=2\">t</A>\
                    <img src=/i.png alt='/no'><!-- <a href=\"/no\"> --><script>\"<a href='/no'>\"</script><a href=x>y";
        let want = "<!doctype html><HTML manifest=\"/P/m\"><p title=\"/no\">/no &amp; <A class=x href=\"/P/a?b=1&amp;c=2\">t</A>\
                    <img src=\"/P/i.png\" alt='/no'><!-- <a href=\"/no\"> --><script>\"<a href='/no'>\"</script><a href=x>y";
        for size in [1, 7, text.len()] {
            let pieces: Vec<Bytes> = text.as_bytes().chunks(size).map(Bytes::copy_from_slice).collect();
            let mount = Mount::at("/P");
            let rewritten = document(body::chunks(pieces), move |link| mount.link(link, HOST));
            let found = rewritten.collect().await.unwrap().to_bytes();
            assert_eq!(String::from_utf8_lossy(&found), want, "in pieces of {size}");
        }
    }

    #[tokio::test]
    async fn from_a_tag_on_that_does_not_end_a_document_stays_as_it_is() {
        let long = Bytes::from(vec![b'x'; 2 * MEMORY]);
        let tags = [
            Bytes::from_static(b"<a href=\"/1\"><a href=\"/"),
            long,
            Bytes::from_static(b"\"><a href=\"/2\">"),
        ];
        let rewritten = document(body::chunks(tags), |link| Some(format!("/P{link}")));
        let found = rewritten.collect().await.unwrap().to_bytes();
        assert!(found.starts_with(b"<a href=\"/P/1\"><a href=\"/xxx"));
        assert!(found.ends_with(b"xxx\"><a href=\"/2\">"));
        assert_eq!(found.len(), 40 + 2 * MEMORY);
    }
}
