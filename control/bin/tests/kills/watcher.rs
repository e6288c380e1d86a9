//! Somebody who watches, and goes on after every kill from the last revision heard of.

use std::collections::{BTreeMap, BTreeSet};

use http_body_util::BodyExt;
use serde_json::Value;

use crate::client::{Client, MAPS};
use crate::revision;

/// The object after which nothing comes.
pub const LAST: &str = "zz-last";

pub struct Watcher {
    revision: u64,
    /// What is there, by name, with its revision.
    state: BTreeMap<String, u64>,
    /// The revision of every addition and change that was told.
    told: BTreeSet<u64>,
}

impl Watcher {
    pub fn new(revision: u64) -> Self {
        Self { revision, state: BTreeMap::new(), told: BTreeSet::new() }
    }

    /// Follows events until the server is gone, or until the last one; true for the latter.
    pub async fn follow(&mut self, client: &Client) -> bool {
        let path = format!("{MAPS}?watch=1&resourceVersion={}&allowWatchBookmarks=true", self.revision);
        let Ok(response) = client.open("GET", &path, &Value::Null).await else { return false };
        assert_eq!(response.status().as_u16(), 200, "from {}", self.revision);
        let mut body = response.into_body();
        let mut buffer = Vec::new();
        while let Some(Ok(frame)) = body.frame().await {
            buffer.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line).unwrap();
                self.take(&event);
                if event["object"]["metadata"]["name"] == LAST {
                    return true;
                }
            }
        }
        false
    }

    fn take(&mut self, event: &Value) {
        let object = &event["object"];
        assert_ne!(event["type"], "ERROR", "from {}: {event}", self.revision);
        let (now, before) = (revision(object), self.revision);
        assert!(now > before || event["type"] == "BOOKMARK" && now == before, "{now} after {before}");
        self.revision = now;
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        match event["type"].as_str().unwrap() {
            "ADDED" => {
                self.told.insert(now);
                assert!(self.state.insert(name, now).is_none(), "added twice: {event}");
            }
            "MODIFIED" => {
                self.told.insert(now);
                assert!(self.state.insert(name, now).is_some(), "changed before it was added: {event}");
            }
            "DELETED" => assert!(self.state.remove(&name).is_some(), "deleted before it was added: {event}"),
            "BOOKMARK" => {}
            other => panic!("{other}: {event}"),
        }
    }

    /// Whether everything that was acknowledged has been told, and what is known is what is there.
    pub fn agrees_with(&self, list: &Value, acknowledged: &BTreeSet<u64>) {
        let untold: Vec<_> = acknowledged.difference(&self.told).collect();
        assert!(untold.is_empty(), "acknowledged and never told: {untold:?}");
        let there: BTreeMap<String, u64> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|object| (object["metadata"]["name"].as_str().unwrap().to_owned(), revision(object)))
            .collect();
        assert_eq!(self.state, there);
    }
}
