//! Which names of a definition are accepted: within a group no two kinds share one.

use serde_json::{Value, json};

use crate::tree::{at, list, text};

/// Names that one definition holds or wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    pub group: String,
    plural: String,
    singular: String,
    short: Vec<String>,
    kind: String,
    list_kind: String,
    categories: Vec<String>,
}

/// Why a name is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The reason of the condition, such as `KindConflict`.
    pub reason: &'static str,
    pub message: String,
}

impl Names {
    /// Reads `CustomResourceDefinitionNames`.
    pub fn read(group: &str, names: &Value) -> Self {
        let word = |field: &str| text(names, &[field]).to_owned();
        let words =
            |field: &str| list(names, &[field]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
        Self {
            group: group.to_owned(),
            plural: word("plural"),
            singular: word("singular"),
            short: words("shortNames"),
            kind: word("kind"),
            list_kind: word("listKind"),
            categories: words("categories"),
        }
    }

    /// What a definition asks for.
    pub fn wanted(definition: &Value) -> Self {
        Self::read(text(definition, &["spec", "group"]), at(definition, &["spec", "names"]))
    }

    /// What a definition has been given.
    pub fn accepted(definition: &Value) -> Self {
        Self::read(text(definition, &["spec", "group"]), at(definition, &["status", "acceptedNames"]))
    }

    /// The form in which `status.acceptedNames` holds them.
    pub fn json(&self) -> Value {
        let mut out = json!({ "plural": self.plural, "kind": self.kind });
        for (name, word) in [("singular", &self.singular), ("listKind", &self.list_kind)] {
            if !word.is_empty() {
                out[name] = json!(word);
            }
        }
        for (name, words) in [("shortNames", &self.short), ("categories", &self.categories)] {
            if !words.is_empty() {
                out[name] = json!(words);
            }
        }
        out
    }

    fn resources(&self) -> impl Iterator<Item = &str> {
        [&self.plural, &self.singular].into_iter().chain(&self.short).map(String::as_str)
    }

    fn kinds(&self) -> impl Iterator<Item = &str> {
        [&self.kind, &self.list_kind].into_iter().map(String::as_str)
    }
}

/// The names a definition gets: those it wants, except that it keeps what it had where another one holds what it wants.
pub fn accept(wanted: &Names, had: &Names, others: &[&Names]) -> (Names, Option<Conflict>) {
    let others: Vec<&&Names> = others.iter().filter(|other| other.group == wanted.group).collect();
    let resource =
        |name: &str| others.iter().any(|other| !name.is_empty() && other.resources().any(|own| own == name));
    let kind =
        |name: &str| others.iter().any(|other| !name.is_empty() && other.kinds().any(|own| own == name));
    let mut accepted = Names { categories: wanted.categories.clone(), ..had.clone() };
    accepted.group.clone_from(&wanted.group);
    let mut conflict = None;
    let mut decide = |taken: Option<&str>, reason: &'static str, give: &mut dyn FnMut()| match taken {
        Some(name) if conflict.is_none() => {
            conflict = Some(Conflict { reason, message: format!("{name:?} is already in use") });
        }
        Some(_) => {}
        None => give(),
    };
    let taken = |is: bool, name: &'_ str| is.then(|| name.to_owned());
    let plural = taken(resource(&wanted.plural), &wanted.plural);
    decide(plural.as_deref(), "PluralConflict", &mut || accepted.plural.clone_from(&wanted.plural));
    let singular = taken(resource(&wanted.singular), &wanted.singular);
    decide(singular.as_deref(), "SingularConflict", &mut || accepted.singular.clone_from(&wanted.singular));
    let short = wanted.short.iter().find(|name| resource(name)).cloned();
    decide(short.as_deref(), "ShortNamesConflict", &mut || accepted.short.clone_from(&wanted.short));
    let own = taken(kind(&wanted.kind), &wanted.kind);
    decide(own.as_deref(), "KindConflict", &mut || accepted.kind.clone_from(&wanted.kind));
    let listed = taken(kind(&wanted.list_kind), &wanted.list_kind);
    decide(listed.as_deref(), "ListKindConflict", &mut || accepted.list_kind.clone_from(&wanted.list_kind));
    (accepted, conflict)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(plural: &str, short: &[&str], kind: &str) -> Names {
        Names::read(
            "x.io",
            &json!({ "plural": plural, "singular": kind.to_lowercase(), "shortNames": short, "kind": kind,
                     "listKind": format!("{kind}List") }),
        )
    }

    #[test]
    fn a_name_is_given_once_in_a_group() {
        let other = names("foos", &["f"], "Foo");
        for (wanted, reason) in [
            (names("foos", &[], "Bar"), "PluralConflict"),
            (names("f", &[], "Bar"), "PluralConflict"),
            (names("bars", &["b", "foo"], "Bar"), "ShortNamesConflict"),
            (names("bars", &[], "FooList"), "KindConflict"),
        ] {
            let (_, conflict) = accept(&wanted, &Names::default(), &[&other]);
            assert_eq!(conflict.unwrap().reason, reason, "{wanted:?}");
        }
        let free = names("bars", &["b"], "Bar");
        assert_eq!(accept(&free, &Names::default(), &[&other]), (free.clone(), None));
        let elsewhere = Names { group: "y.io".to_owned(), ..other };
        let same = names("foos", &["f"], "Foo");
        assert_eq!(accept(&same, &Names::default(), &[&elsewhere]), (same.clone(), None));
    }

    #[test]
    fn what_was_given_is_kept_when_the_new_name_is_taken() {
        let other = names("foos", &["f"], "Foo");
        let had = names("bars", &["b"], "Bar");
        let wanted = Names { short: vec!["f".to_owned()], ..had.clone() };
        let (given, conflict) = accept(&wanted, &had, &[&other]);
        assert_eq!(given, had);
        assert_eq!(conflict.unwrap().message, "\"f\" is already in use");
    }
}
