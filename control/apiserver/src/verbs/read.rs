//! Get and list.

use base64::Engine;
use serde::{Deserialize, Serialize};
use store::RangeError;

use super::reply::{self, ListMeta};
use crate::api::Call;
use crate::body::Reply;
use crate::object::{self, Stored};
use crate::selector::Selector;
use crate::status::{Refusal, Result};

/// Bytes of an object above which its answer may take longer than others of its connection are to wait.
const LARGE: usize = 64 << 10;

/// Answers with one object.
pub async fn get(call: &Call) -> Result<Reply> {
    let revision = revision(call)?;
    let current = call.api.objects.revision();
    if let Some(asked) = revision.filter(|asked| *asked > current) {
        return Err(Refusal::future_revision(asked, current));
    }
    let entry = call.stored()?;
    if entry.value.len() > LARGE {
        // So that the answer becomes a task of its own, if it was begun in its connection's.
        tokio::task::yield_now().await;
    }
    reply::stored(call, &entry)
}

/// The parameter `resourceVersion`; empty and absent are the same.
pub fn revision(call: &Call) -> Result<Option<u64>> {
    let parse = |text: &str| {
        text.parse().map_err(|_error: std::num::ParseIntError| {
            Refusal::bad_request(format!(
                "resourceVersion: Invalid value: {text:?}: must be an unsigned integer"
            ))
        })
    };
    call.query.given("resourceVersion").map(parse).transpose()
}

/// Where a list goes on.
#[derive(Debug, Serialize, Deserialize)]
struct Token {
    v: String,
    /// The revision of the first page; -1 goes on with what is there now.
    rv: i64,
    /// Key of the last object shown, without the prefix.
    start: String,
    /// How many objects follow behind it, where that was counted: nobody counts them again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left: Option<usize>,
}

impl Token {
    fn encode(rv: i64, start: &str, left: Option<usize>) -> String {
        let token = Self { v: "meta.k8s.io/v1".to_owned(), rv, start: start.to_owned(), left };
        let text = serde_json::to_vec(&token).expect("a token always encodes");
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
    }

    fn decode(text: &str) -> Result<Self> {
        let invalid = || Refusal::bad_request("continue key is not valid: it was not issued by this server");
        let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
        let bytes = bytes.ok().ok_or_else(invalid)?;
        let token: Self = serde_json::from_slice(&bytes).ok().ok_or_else(invalid)?;
        if token.v != "meta.k8s.io/v1" || token.start.contains("..") {
            return Err(invalid());
        }
        Ok(token)
    }
}

/// What a list shows, from the request's parameters.
#[derive(Debug)]
struct Wanted {
    at: Option<u64>,
    after: Option<String>,
    /// How many follow behind that one, if it is known.
    left: Option<usize>,
    limit: usize,
}

/// Answers with the selected objects.
pub async fn list(call: &Call) -> Result<Reply> {
    let selector = selector(call)?;
    // It ends watches; a list is done sooner, but what cannot be read is refused there too.
    timeout_seconds(call)?;
    let prefix = object::prefix(&call.row, &call.target.namespace);
    let wanted = wanted(call, &prefix)?;
    let (meta, entries) = collect(call, &prefix, &selector, &wanted)?;
    reply::list(call, &meta, entries).await
}

/// The parameter `timeoutSeconds`.
pub fn timeout_seconds(call: &Call) -> Result<Option<u64>> {
    let parse = |text: &str| {
        text.parse::<u32>().map(u64::from).map_err(|_error| {
            Refusal::bad_request(format!(
                "timeoutSeconds: Invalid value: {text:?}: must be a non-negative integer"
            ))
        })
    };
    call.query.given("timeoutSeconds").map(parse).transpose()
}

/// The selector of a list or watch.
pub fn selector(call: &Call) -> Result<Selector> {
    let labels = call.query.first("labelSelector").unwrap_or_default();
    let fields = call.query.first("fieldSelector").unwrap_or_default();
    Selector::parse(&call.row, labels, fields)
}

fn wanted(call: &Call, prefix: &str) -> Result<Wanted> {
    let limit = match call.query.given("limit") {
        Some(text) => text.parse::<i64>().map_err(|_error: std::num::ParseIntError| {
            Refusal::bad_request(format!("limit: Invalid value: {text:?}: must be an integer"))
        })?,
        None => 0,
    };
    // Less than nothing is no limit, as none is.
    let limit = usize::try_from(limit).unwrap_or(0);
    let revision = revision(call)?;
    let matching = call.query.given("resourceVersionMatch");
    if let Some(token) = call.query.given("continue") {
        if revision.is_some_and(|revision| revision > 0) {
            return Err(Refusal::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let token = Token::decode(token)?;
        let at = u64::try_from(token.rv).ok();
        let left = token.left.filter(|_| at.is_some());
        return Ok(Wanted { at, after: Some(format!("{prefix}{}", token.start)), left, limit });
    }
    let at = match revision {
        // A limited list at a revision was always exact.
        Some(revision) if matching == Some("Exact") || (matching.is_none() && limit > 0 && revision > 0) => {
            Some(revision)
        }
        Some(revision) => {
            let current = call.api.objects.revision();
            if revision > current {
                return Err(Refusal::future_revision(revision, current));
            }
            None
        }
        None => None,
    };
    Ok(Wanted { at, after: None, left: None, limit })
}

/// Reads a page of selected objects.
fn collect(
    call: &Call,
    prefix: &str,
    selector: &Selector,
    wanted: &Wanted,
) -> Result<(ListMeta, Vec<Stored>)> {
    let objects = &call.api.objects;
    let page = objects
        .select(prefix, wanted.after.as_deref(), wanted.limit, wanted.at, |entry| selector.matches(entry))
        .map_err(|error| refuse(&error, wanted, prefix))?;
    let mut meta = ListMeta { revision: page.revision, ..ListMeta::default() };
    if let Some(last) = page.entries.last().filter(|_| page.more && wanted.limit > 0) {
        let left = match wanted.left.and_then(|left| left.checked_sub(page.entries.len())) {
            _ if !selector.is_empty() => None,
            Some(left) => Some(left),
            None => {
                let counted = objects.count_after(prefix, &last.key, Some(page.revision));
                Some(counted.map_err(|error| refuse(&error, wanted, prefix))?)
            }
        };
        let start = last.key.strip_prefix(prefix).unwrap_or_default();
        let revision = i64::try_from(page.revision).unwrap_or(i64::MAX);
        meta.continue_token = Token::encode(revision, start, left);
        meta.remaining = left;
    }
    Ok((meta, page.entries))
}

const EXPIRED: &str = "The provided continue parameter is too old to display a consistent list result. You can start \
    a new list without the continue parameter, or use the continue token in this response to retrieve the remainder \
    of the results. Continuing with the provided token results in an inconsistent list - objects that were created, \
    modified, or deleted between the time the first chunk was returned and now may show up in the list.";

fn refuse(error: &RangeError, wanted: &Wanted, prefix: &str) -> Refusal {
    match error {
        RangeError::Future { current } => Refusal::future_revision(wanted.at.unwrap_or_default(), *current),
        RangeError::Compacted(compacted) => match &wanted.after {
            Some(after) => {
                let mut refusal = Refusal::expired(EXPIRED);
                refusal.continue_token =
                    Some(Token::encode(-1, after.strip_prefix(prefix).unwrap_or_default(), None));
                refusal
            }
            None => {
                Refusal::expired(format!("The resourceVersion for the provided list is too old: {compacted}"))
            }
        },
    }
}
