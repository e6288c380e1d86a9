//! The texts in which the API's own documentation describes kinds and fields.
//!
//! They come from the source of the crate `k8s-openapi`, which is generated from what Kubernetes publishes under the
//! Apache licence 2.0. A line is the name of a type, or an empty word and the name of a field of the type above it,
//! and behind a tab the text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process::{cargo, output};

/// The module of the crate that holds the version that is served.
const VERSION: &str = "v1_36";

const HEADER: &str = "# Descriptions of the Kubernetes API 1.36, copyright The Kubernetes Authors, Apache-2.0.\n\
    # Written by `cargo xtask tables` from the source of the crate k8s-openapi.\n";

/// A type's own text and those of its fields.
type Texts = (String, BTreeMap<String, String>);

/// The texts of these types, of those that have any.
pub fn table(types: &[&str]) -> Result<String> {
    let mut found: BTreeMap<String, Texts> = BTreeMap::new();
    collect(&source()?, &mut found)?;
    let mut out = HEADER.to_owned();
    for name in types {
        let Some((own, fields)) = found.get(*name) else { continue };
        writeln!(out, "{name}\t{own}")?;
        for (field, text) in fields {
            writeln!(out, "\t{field}\t{text}")?;
        }
    }
    Ok(out)
}

/// Where cargo keeps the source of the crate.
fn source() -> Result<PathBuf> {
    let text = output(cargo().args(["metadata", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata is not JSON")?;
    let mut packages = metadata["packages"].as_array().into_iter().flatten();
    let package = packages.find(|package| package["name"] == "k8s-openapi").context("no k8s-openapi")?;
    let manifest = Path::new(package["manifest_path"].as_str().context("a package without a manifest")?);
    Ok(manifest.parent().context("a manifest in no folder")?.join("src").join(VERSION))
}

fn collect(folder: &Path, found: &mut BTreeMap<String, Texts>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            if let Some((name, texts)) = texts(&text).with_context(|| path.display().to_string())? {
                found.insert(name, texts);
            }
        }
    }
    Ok(())
}

/// Name and texts of the type a file defines, from the schema at its end.
fn texts(file: &str) -> Result<Option<(String, Texts)>> {
    let Some((_, schema)) = file.split_once("impl crate::schemars::JsonSchema for") else { return Ok(None) };
    let mut name = None;
    let (mut own, mut fields, mut field) = (String::new(), BTreeMap::new(), None);
    for line in schema.lines() {
        let depth = line.len() - line.trim_start().len();
        let line = line.trim_start();
        match depth {
            8 if name.is_none() => name = line.strip_suffix(".into()").map(literal).transpose()?,
            12 => {
                if let Some(text) = line.strip_prefix(r#""description": "#) {
                    own = literal(text)?;
                }
            }
            16 => field = line.starts_with('"').then(|| literal(line)).transpose()?,
            20 => {
                let said = line.strip_prefix(r#""description": "#).or_else(|| {
                    line.strip_prefix(r#"schema_obj.ensure_object().insert("description".into(), "#)
                });
                if let (Some(text), Some(field)) = (said, field.take_if(|_| said.is_some())) {
                    fields.insert(field, literal(text)?);
                }
            }
            _ => {}
        }
    }
    Ok(name.map(|name| (name, (own, fields))))
}

/// The text of a string literal at the start of a line of Rust, on one line and with its escapes as they are.
fn literal(line: &str) -> Result<String> {
    let Some(rest) = line.strip_prefix('"') else { bail!("no text: {line}") };
    let mut out = String::new();
    let mut letters = rest.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => return Ok(out),
            '\\' => match letters.next() {
                Some('n') => out.push_str("\\n"),
                Some('t') => out.push_str("    "),
                Some('\\') => out.push_str("\\\\"),
                Some(own @ ('"' | '\'')) => out.push(own),
                other => bail!("an escape that is not known: {other:?}"),
            },
            letter => out.push(letter),
        }
    }
    bail!("a text without an end: {line}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_found_in_both_shapes_of_properties() {
        let file = r#"
impl crate::schemars::JsonSchema for Thing {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "io.k8s.api.x.v1.Thing".into()
    }
        crate::schemars::json_schema!({
            "description": "A \"thing\".",
            "properties": {
                "one": {
                    "description": "First.\n\nMore.",
                    "items": {
                        "description": "deeper",
                    },
                },
                "two": ({
                    let mut schema_obj = __gen.subschema_for::<Other>();
                    schema_obj.ensure_object().insert("description".into(), "Second: C:\\x.".into());
                }),
                "three": {
                    "type": "string",
                },
"#;
        let (name, (own, fields)) = texts(file).unwrap().unwrap();
        assert_eq!((name.as_str(), own.as_str()), ("io.k8s.api.x.v1.Thing", "A \"thing\"."));
        let want = [("one", "First.\\n\\nMore."), ("two", "Second: C:\\\\x.")];
        assert_eq!(fields, want.map(|(name, text)| (name.to_owned(), text.to_owned())).into());
        assert!(texts("struct Other;").unwrap().is_none());
    }
}
