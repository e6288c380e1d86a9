//! Somebody who changes objects of its own and writes down every answer.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use rand::Rng;
use serde_json::{Value, json};

use crate::client::Client;
use crate::{answer, revision};

/// Objects of one writer.
const OBJECTS: usize = 6;

/// An object as it was acknowledged: its revision, and what the writer put into it.
type Version = (u64, u64);

pub struct Writer {
    pub path: &'static str,
    prefix: String,
    /// The objects that are there, by name.
    known: BTreeMap<String, Version>,
    /// The write that got no answer: the object, and what it would have put in; `None` for a deletion.
    open: Option<(String, Option<u64>)>,
    /// Every revision that was acknowledged.
    pub given: BTreeSet<u64>,
    step: u64,
}

impl Writer {
    pub fn new(path: &'static str, kind: &str, number: usize) -> Self {
        let prefix = format!("{kind}-{number}-");
        Self { path, prefix, known: BTreeMap::new(), open: None, given: BTreeSet::new(), step: 0 }
    }

    /// Writes until the server does not answer any more.
    pub async fn write(&mut self, client: &Client) {
        while self.once(client).await.is_ok() {}
    }

    async fn once(&mut self, client: &Client) -> Result<()> {
        let (number, deletes) = {
            let mut random = rand::rng();
            (random.random_range(0..OBJECTS), random.random_ratio(1, 4))
        };
        let name = format!("{}{number}", self.prefix);
        self.step += 1;
        let one = format!("{}/{name}", self.path);
        if !self.known.contains_key(&name) {
            self.open = Some((name.clone(), Some(self.step)));
            let object = json!({ "metadata": { "name": name, "annotations": { "step": self.step.to_string() } },
                "spec": { "ports": [{ "port": 80 }] } });
            let made = answer(client, "POST", self.path, &object).await?;
            self.acknowledged(name, &made)?;
        } else if deletes {
            self.open = Some((name.clone(), None));
            client.send("DELETE", &one, &Value::Null).await?;
            self.known.remove(&name);
        } else {
            self.open = Some((name.clone(), Some(self.step)));
            let patch = json!({ "metadata": { "annotations": { "step": self.step.to_string() } } });
            let made = answer(client, "PATCH", &one, &patch).await?;
            self.acknowledged(name, &made)?;
        }
        self.open = None;
        Ok(())
    }

    fn acknowledged(&mut self, name: String, answer: &[u8]) -> Result<()> {
        let object: Value = serde_json::from_slice(answer)?;
        let revision = revision(&object);
        assert!(self.given.insert(revision), "revision {revision} was given twice");
        self.known.insert(name, (revision, self.step));
        Ok(())
    }

    /// Compares with what is there now: everything acknowledged, and the write without an answer whole or not at all.
    pub fn compare(&mut self, list: &Value, before: u64) {
        let there: BTreeMap<String, Version> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|object| {
                let name = object["metadata"]["name"].as_str()?;
                let step = object["metadata"]["annotations"]["step"].as_str()?;
                name.starts_with(&self.prefix)
                    .then(|| (name.to_owned(), (revision(object), step.parse().unwrap())))
            })
            .collect();
        let open = self.open.take();
        let is_open = |name: &str| open.as_ref().is_some_and(|(open, _)| open == name);
        let names: BTreeSet<&String> = there.keys().chain(self.known.keys()).collect();
        for name in names {
            let (have, want) = (there.get(name), self.known.get(name));
            if have == want {
                continue;
            }
            assert!(is_open(name), "{name}: acknowledged {want:?}, there is {have:?}");
            let step = open.as_ref().and_then(|(_, step)| *step);
            assert_eq!(have.map(|have| have.1), step, "{name}: half a write");
            assert!(
                have.is_none_or(|have| have.0 > before),
                "{name} has a revision from before the last kill"
            );
        }
        self.known = there;
    }
}
