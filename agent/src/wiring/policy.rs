//! The commands about policies.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::admin::client;
use crate::admin::what_if::Proposal;
use crate::config::WhatIf;

/// Prints which flows policies would cut.
pub fn what_if(asked: &WhatIf) -> Result<()> {
    let policies =
        documents(&read(&asked.filename)?).with_context(|| format!("read {}", asked.filename.display()))?;
    let consequences = client::what_if(&asked.ask.run_dir, Proposal { policies, delete: asked.delete })?;
    if asked.ask.json {
        println!("{}", serde_json::to_string_pretty(&consequences)?);
    } else {
        print!("{consequences}");
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("read the standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

/// The objects of a file: one after the other, or in lists.
fn documents(text: &str) -> Result<Vec<serde_json::Value>> {
    let mut objects = Vec::new();
    for document in serde_saphyr::from_multiple::<serde_json::Value>(text)? {
        match document.get("items") {
            Some(serde_json::Value::Array(items)) => objects.extend(items.iter().cloned()),
            _ if document.is_null() => {}
            _ => objects.push(document),
        }
    }
    ensure!(!objects.is_empty(), "there is no object in it");
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_hold_documents_lists_or_json() {
        let names = |text: &str| {
            let all = documents(text).unwrap();
            all.iter().map(|one| one["metadata"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let one = "kind: NetworkPolicy\nmetadata:\n  name: a\n";
        assert_eq!(names(one), ["a"]);
        assert_eq!(names(&format!("{one}---\n{}", one.replace("name: a", "name: b"))), ["a", "b"]);
        assert_eq!(
            names(r#"{"kind":"List","items":[{"metadata":{"name":"a"}},{"metadata":{"name":"b"}}]}"#),
            ["a", "b"]
        );
        assert!(documents("").is_err() && documents("a: [").is_err());
    }
}
