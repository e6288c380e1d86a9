//! JSON laid out for people: for whoever asks for it, and for programs that show what they read.

use http::HeaderMap;
use http_body_util::BodyExt;

use crate::body::{self, Reply};
use crate::query::Query;
use crate::status::{Refusal, Result};

/// What the names of such programs begin with.
const SHOWN_BY: &[&str] = &["curl", "Wget", "Mozilla/5.0"];

/// Whether a client wants its answer laid out.
pub fn is_wanted(query: &Query, headers: &HeaderMap) -> bool {
    if let Some(given) = query.given("pretty") {
        return matches!(given, "1" | "t" | "T" | "true" | "True" | "TRUE");
    }
    let agent =
        headers.get(http::header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    SHOWN_BY.iter().any(|name| agent.starts_with(name))
}

/// The same answer, laid out if it is JSON.
///
/// # Errors
/// 500 when the answer breaks off.
pub async fn laid_out(reply: Reply) -> Result<Reply> {
    let headers = reply.headers();
    let json =
        headers.get(http::header::CONTENT_TYPE).is_some_and(|media| media.as_bytes() == b"application/json");
    if !json || headers.contains_key(http::header::CONTENT_ENCODING) {
        return Ok(reply);
    }
    let (head, body) = reply.into_parts();
    let text = body.collect().await.map_err(Refusal::internal)?.to_bytes();
    Ok(Reply::from_parts(head, body::full(indented(&text))))
}

/// JSON text in lines, two spaces for every level. Nothing but the space between its words changes.
fn indented(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() * 2);
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.resize(out.len() + 2 * depth, b' ');
    };
    for (at, &byte) in text.iter().enumerate() {
        if in_string {
            out.push(byte);
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'{' | b'[' => {
                out.push(byte);
                depth += 1;
                if !matches!(text.get(at + 1), Some(b'}' | b']')) {
                    line(&mut out, depth);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if !matches!(out.last(), Some(b'{' | b'[')) {
                    line(&mut out, depth);
                }
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            b' ' | b'\n' | b'\r' | b'\t' => {}
            _ => {
                in_string = byte == b'"';
                out.push(byte);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_laid_out_as_serde_lays_it_out() {
        for text in [
            r#"{"a":{"b":[1,"x,{\"y\":\\",null],"c":{},"d":[]},"e":"\\"}"#,
            "[]",
            r#"[{},[[1.50,-2e3]],"[:{"]"#,
            r#""word""#,
        ] {
            let value: serde_json::Value = serde_json::from_str(text).unwrap();
            let want = serde_json::to_string_pretty(&value).unwrap();
            let got = String::from_utf8(indented(text.as_bytes())).unwrap();
            assert_eq!(got.replace("1.50", "1.5").replace("-2e3", "-2000.0"), want, "{text}");
        }
    }

    #[test]
    fn people_and_their_programs_are_told_from_others() {
        for (query, agent, want) in [
            ("", "curl/8.1", true),
            ("pretty=false", "curl/8.1", false),
            ("pretty=1", "kubectl/v1.36", true),
            ("pretty=", "Mozilla/5.0 (X11)", true),
            ("", "kubectl/v1.36", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(http::header::USER_AGENT, agent.parse().unwrap());
            let uri = format!("/x?{query}").parse().unwrap();
            assert_eq!(is_wanted(&Query::of(&uri), &headers), want, "{query} {agent}");
        }
    }
}
