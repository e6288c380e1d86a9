//! What the API's documentation says of kinds and fields, for OpenAPI and `kubectl explain`.
//!
//! The generated table `data/descriptions.txt` is read anew for every document, and kept by nobody: its pages are those
//! of the program's file.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use sha2::{Digest, Sha256};

static TABLE: &str = include_str!("../../data/descriptions.txt");

/// The texts of every type; or of none.
#[derive(Debug, Default)]
pub struct Descriptions(HashMap<&'static str, Texts>);

/// The texts of a type.
#[derive(Debug, Default)]
struct Texts {
    own: &'static str,
    fields: HashMap<&'static str, &'static str>,
}

impl Descriptions {
    /// Reads the table.
    pub fn read() -> Self {
        let mut all: HashMap<&'static str, Texts> = HashMap::new();
        let mut last = "";
        for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
            let (name, rest) = line.split_once('\t').expect("the generated table has tabs");
            if name.is_empty() {
                let (field, text) = rest.split_once('\t').expect("the generated table has tabs");
                all.entry(last).or_default().fields.insert(field, text);
            } else {
                last = name;
                all.entry(last).or_default().own = rest;
            }
        }
        Self(all)
    }

    /// What is said of a type.
    pub fn of(&self, kind: &str) -> Option<Cow<'static, str>> {
        self.0.get(kind).map(|texts| texts.own).filter(|text| !text.is_empty()).map(plain)
    }

    /// What is said of a field of a type.
    pub fn of_field(&self, kind: &str, field: &str) -> Option<Cow<'static, str>> {
        self.0.get(kind)?.fields.get(field).map(|text| plain(text))
    }
}

/// What is said of one field, found without reading what is said of all others.
pub fn field(kind: &str, field: &str) -> String {
    let is_kind = |line: &&str| line.split_once('\t').is_some_and(|(name, _)| name == kind);
    let fields = TABLE.lines().skip_while(|line| !is_kind(line)).skip(1);
    let mut fields =
        fields.map_while(|line| line.strip_prefix('\t')).filter_map(|line| line.split_once('\t'));
    fields.find(|(name, _)| *name == field).map_or_else(String::new, |(_, text)| plain(text).into_owned())
}

/// Changes with the texts.
pub fn digest() -> &'static [u8] {
    static DIGEST: LazyLock<[u8; 32]> = LazyLock::new(|| Sha256::digest(TABLE).into());
    &*DIGEST
}

/// The text of an entry, which has its line ends and backslashes escaped.
fn plain(text: &'static str) -> Cow<'static, str> {
    if text.contains('\\') {
        Cow::Owned(text.replace("\\\\", "\u{0}").replace("\\n", "\n").replace('\u{0}', "\\"))
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::schema;

    #[test]
    fn every_type_but_lists_is_described_and_nearly_every_field() {
        let texts = Descriptions::read();
        let (mut fields, mut silent) = (0, Vec::new());
        for kind in schema().types.iter().filter(|kind| !kind.name.ends_with("List")) {
            if &*kind.name == "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent" {
                continue;
            }
            assert!(texts.0.contains_key(&*kind.name), "{}", &*kind.name);
            for (field, _) in &kind.fields {
                fields += 1;
                if texts.of_field(&kind.name, field).is_none() {
                    silent.push(format!("{}.{}", &*kind.name, &**field));
                }
            }
        }
        // Upstream says nothing of schemas in definitions either, and little of builds.
        let untold = ["JSONSchemaProps", "ExternalDocumentation", "version.Info"];
        silent.retain(|field| !untold.iter().any(|kind| field.contains(kind)));
        let known = [
            "io.k8s.api.certificates.v1.CertificateSigningRequest.metadata",
            "io.k8s.api.networking.v1.IngressRule.http",
            "io.k8s.apimachinery.pkg.apis.meta.v1.GroupResource.group",
            "io.k8s.apimachinery.pkg.apis.meta.v1.GroupResource.resource",
        ];
        assert_eq!(silent, known);
        assert!(fields > 1500, "{fields}");
    }

    #[test]
    fn escapes_are_undone() {
        assert_eq!(plain("a\\nb\\\\n"), "a\nb\\n");
    }
}
