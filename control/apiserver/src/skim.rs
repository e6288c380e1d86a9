//! Reads metadata and some fields of a stored value in one pass over its bytes, without making a tree of the rest.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::name::Name;

/// What is read of `metadata`.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct Meta<'a> {
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    #[serde(borrow)]
    pub namespace: Cow<'a, str>,
    #[serde(borrow)]
    pub uid: Cow<'a, str>,
    #[serde(borrow)]
    pub labels: std::collections::BTreeMap<Cow<'a, str>, Cow<'a, str>>,
}

/// Metadata, and the values at `paths` in their order; `None` where there is nothing or null. Nothing at all is found in
/// what is no JSON object.
pub fn skim<'a>(value: &'a [u8], paths: &[(Name, Vec<Name>)]) -> Option<(Meta<'a>, Vec<Option<Box<str>>>)> {
    let mut found = Found { meta: Meta::default(), texts: vec![None; paths.len()] };
    let wanted: Vec<Wanted<'_>> =
        paths.iter().enumerate().map(|(at, (_, path))| Wanted { at, path: path.as_slice() }).collect();
    let mut deserializer = serde_json::Deserializer::from_slice(value);
    Level { top: true, wanted: &wanted, found: &mut found }.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    for want in wanted.iter().filter(|want| want.path.len() == 2 && want.path[0] == "metadata") {
        found.texts[want.at] = match &*want.path[1] {
            "name" => Some(found.meta.name.as_ref().into()),
            "namespace" => Some(found.meta.namespace.as_ref().into()),
            _ => None,
        };
    }
    Some((found.meta, found.texts))
}

struct Found<'a> {
    meta: Meta<'a>,
    texts: Vec<Option<Box<str>>>,
}

/// A value that is looked for: its position in the result, and where it lies from here.
#[derive(Clone, Copy)]
struct Wanted<'p> {
    at: usize,
    path: &'p [Name],
}

/// One level of the value; what none of the paths leads to is passed over.
struct Level<'p, 'f, 'a> {
    top: bool,
    wanted: &'p [Wanted<'p>],
    found: &'f mut Found<'a>,
}

impl<'de> DeserializeSeed<'de> for Level<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(name) = entries.next_key::<Key<'de>>()? {
            if self.top && name.0 == "metadata" {
                self.found.meta = entries.next_value()?;
                continue;
            }
            let mut below =
                self.wanted.iter().filter(|want| want.path.first().is_some_and(|step| *step == *name.0));
            let Some(first) = below.next() else {
                entries.next_value::<IgnoredAny>()?;
                continue;
            };
            if first.path.len() == 1 {
                self.found.texts[first.at] = shown(entries.next_value()?).map_err(de::Error::custom)?;
                continue;
            }
            let wanted: Vec<Wanted<'_>> = std::iter::once(first)
                .chain(below)
                .map(|want| Wanted { path: &want.path[1..], ..*want })
                .collect();
            let level = Level { top: false, wanted: &wanted, found: &mut *self.found };
            entries.next_value_seed(level)?;
        }
        Ok(())
    }

    // Where an object was expected below the top, anything else holds none of the fields.
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        self.scalar()
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        self.scalar()
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        self.scalar()
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        self.scalar()
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        self.scalar()
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<(), E> {
        self.scalar()
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        self.scalar()
    }
}

impl Level<'_, '_, '_> {
    fn scalar<E: de::Error>(self) -> Result<(), E> {
        if self.top { Err(E::custom("not an object")) } else { Ok(()) }
    }
}

/// The name of a field, borrowed where it holds no escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// A value as selectors compare it: text as it is, anything else as its JSON.
fn shown(raw: &RawValue) -> serde_json::Result<Option<Box<str>>> {
    Ok(match serde_json::from_str(raw.get())? {
        Value::String(text) => Some(text.into()),
        Value::Null => None,
        other => Some(other.to_string().into()),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn paths(texts: &[&str]) -> Vec<(Name, Vec<Name>)> {
        texts.iter().map(|text| (Name::from(*text), text.split('.').map(Name::from).collect())).collect()
    }

    fn texts(value: &Value, wanted: &[&str]) -> Option<Vec<Option<String>>> {
        let text = value.to_string();
        let (_, found) = skim(text.as_bytes(), &paths(wanted))?;
        Some(found.into_iter().map(|one| one.map(String::from)).collect())
    }

    #[test]
    fn fields_are_found_wherever_they_stand() {
        let value = json!({"a": "top", "spec": {"metadata": {"name": "no"}, "x": {"nodeName": "no"}, "nodeName": "n\"1", "n": 5, "b": true, "l": [1]},
            "metadata": {"name": "m", "namespace": "s", "nodeName": "no"}, "status": {"metadata": {"name": "no"}, "phase": null}});
        let wanted = [
            "spec.nodeName",
            "a",
            "spec.n",
            "spec.b",
            "spec.l",
            "status.phase",
            "status.no",
            "metadata.name",
        ];
        let found = texts(&value, &wanted).unwrap();
        let want = [Some("n\"1"), Some("top"), Some("5"), Some("true"), Some("[1]"), None, None, Some("m")];
        assert_eq!(found, want.map(|one| one.map(str::to_owned)));
    }

    #[test]
    fn what_has_another_form_holds_no_fields() {
        for other in [
            json!(1),
            json!(-1),
            json!(1.5),
            json!("x"),
            json!([{"nodeName": "n"}]),
            json!(true),
            json!(null),
        ] {
            let found =
                texts(&json!({"spec": other, "metadata": {"name": "m"}, "a": "b"}), &["spec.nodeName", "a"]);
            assert_eq!(found, Some(vec![None, Some("b".to_owned())]), "{other}");
            assert_eq!(texts(&other, &["a"]), None, "{other}");
        }
        assert!(skim(b"{\"a\":1} x", &[]).is_none());
        assert!(skim(b"{\"a\":1", &[]).is_none());
    }

    #[test]
    fn metadata_is_read_with_its_labels() {
        let text = r#"{"metadata":{"uid":"u","labels":{"b":"2","a":"é"},"name":"a\u0062"}}"#;
        let (meta, _) = skim(text.as_bytes(), &[]).unwrap();
        assert_eq!((&*meta.name, &*meta.namespace, &*meta.uid), ("ab", "", "u"));
        let labels: Vec<_> = meta.labels.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(labels, [("a", "é"), ("b", "2")]);
    }
}
