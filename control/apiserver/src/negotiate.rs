//! Content negotiation: which form of an answer a client wants, and in what form its body came.

use http::HeaderMap;
use serde_json::Value;

use crate::body::{self, Reply};
use crate::protobuf;
use crate::status::{Refusal, Result};
use crate::yaml_keys::Fault;
use crate::{yaml_keys, yaml_syntax};

/// Encoding of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    Json,
    Yaml,
    Protobuf,
}

/// What the answer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Object,
    Table(Meta),
    /// Only metadata of the object, or of every object of a list.
    Partial(Meta),
    /// The aggregated discovery document.
    Discovery,
}

/// The version of `meta.k8s.io` in which tables and metadata are written. Both have the same fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meta {
    V1,
    /// What clients asked for before Kubernetes 1.15.
    V1beta1,
}

impl Meta {
    pub fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "meta.k8s.io/v1",
            Self::V1beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

/// What the client accepts, decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accept {
    pub media: Media,
    pub form: Form,
}

impl Accept {
    pub const JSON: Self = Self { media: Media::Json, form: Form::Object };

    /// Chooses from the Accept header the best form that `offered` has.
    pub fn of(headers: &HeaderMap, offered: impl Fn(&Self) -> bool) -> Result<Self> {
        let mut values =
            headers.get_all(http::header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).peekable();
        if values.peek().is_none() {
            return Ok(Self::JSON);
        }
        let mut ranges: Vec<&str> = values.flat_map(|value| value.split(',')).collect();
        // The order says nothing where a quality does, and a wildcard is worth less than a name.
        ranges.sort_by_key(|range| (1000 - quality(range), range.contains('*')));
        let found = ranges.into_iter().filter_map(Self::one).find(offered);
        found.ok_or_else(|| Refusal::not_acceptable(ACCEPTED))
    }

    /// Whether kinds of this build can be served so; tables have no form in protobuf.
    pub fn is_served(&self) -> bool {
        self.media != Media::Protobuf || !matches!(self.form, Form::Table(_))
    }

    /// Whether kinds of custom resources can be served so: of them only the metadata has a form in protobuf.
    pub fn is_served_of_custom(&self) -> bool {
        self.media != Media::Protobuf || matches!(self.form, Form::Partial(_))
    }

    fn one(range: &str) -> Option<Self> {
        let mut parts = range.split(';').map(str::trim);
        let media = match parts.next()? {
            "application/json" | "*/*" | "application/*" | "" => Media::Json,
            "application/yaml" => Media::Yaml,
            protobuf::MEDIA => Media::Protobuf,
            _ => return None,
        };
        let (mut wanted, mut group, mut version) = ("", "", "");
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name {
                "as" => wanted = value,
                "g" => group = value,
                "v" => version = value,
                _ => {}
            }
        }
        let meta = match (group, version) {
            ("meta.k8s.io", "v1") => Some(Meta::V1),
            ("meta.k8s.io", "v1beta1") => Some(Meta::V1beta1),
            _ => None,
        };
        let form = match wanted {
            "" => Form::Object,
            "Table" => Form::Table(meta?),
            "PartialObjectMetadata" | "PartialObjectMetadataList" => Form::Partial(meta?),
            "APIGroupDiscoveryList" if (group, version) == ("apidiscovery.k8s.io", "v2") => Form::Discovery,
            _ => return None,
        };
        Some(Self { media, form })
    }
}

/// The media type of a server-side apply.
pub const APPLY: &str = "application/apply-patch+yaml";

/// The media types of answers, as refusals name them.
pub const ACCEPTED: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// The quality of a media range in thousandths.
fn quality(range: &str) -> u16 {
    let given = range.split(';').find_map(|part| part.trim().strip_prefix("q="));
    let parsed = given.and_then(|text| text.parse::<f32>().ok());
    parsed.map_or(1000, |quality| (quality.clamp(0.0, 1.0) * 1000.0) as u16)
}

/// The encoding in which a client that sent these headers reads a refusal; `None` where it reads no object as it is.
pub fn of_refusal(headers: &HeaderMap) -> Option<Media> {
    // What most clients say is not taken apart.
    if headers.get(http::header::ACCEPT).is_none_or(|value| value.as_bytes() == b"application/json") {
        return Some(Media::Json);
    }
    Accept::of(headers, |accept| accept.form == Form::Object).ok().map(|accept| accept.media)
}

/// A tree that says what kind it is, in this encoding.
pub fn document(media: Media, code: u16, value: &Value) -> Result<Reply> {
    match media {
        Media::Json => Ok(body::line(code, value)),
        Media::Yaml => Ok(body::reply(code, "application/yaml", body::full(to_yaml(value)?))),
        Media::Protobuf => {
            let bytes = protobuf::tree(value).ok_or_else(|| Refusal::not_acceptable(ACCEPTED))?;
            let bytes = bytes.map_err(Refusal::internal)?;
            Ok(body::reply(code, protobuf::MEDIA, body::full(bytes)))
        }
    }
}

/// The media type of a body, without parameters.
pub fn content_type(headers: &HeaderMap) -> &str {
    let value =
        headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// What YAML text says.
#[derive(Debug)]
pub struct Yaml {
    pub value: Value,
    /// What is said of keys that are in their map already, in the words of Go's library. The last of several counts.
    pub twice: Option<String>,
}

/// Reads YAML text; of several documents the first.
///
/// # Errors
/// What is wrong with it, in the words of Go's library.
pub fn yaml(body: &[u8]) -> Result<Yaml, String> {
    let text = std::str::from_utf8(body).map_err(|_invalid| "yaml: invalid UTF-8".to_owned())?;
    let text = yaml_keys::first_document(text);
    let fault = |fault| match fault {
        Fault::Syntax(error) => yaml_syntax::fault(&error, text),
        Fault::Sense(said) => said,
    };
    let error = match yaml_keys::read(text) {
        Ok(value) => return Ok(Yaml { value, twice: None }),
        Err(Fault::Syntax(error)) => error,
        Err(other) => return Err(fault(other)),
    };
    let serde_saphyr::Error::DuplicateMappingKey { key: Some(key), location } = error.without_snippet()
    else {
        return Err(fault(Fault::Syntax(error)));
    };
    let (value, mut twice) = yaml_keys::with_duplicates(text).map_err(fault)?;
    // Of keys that are numbers the reader lets only the last through.
    if twice.is_empty() {
        twice.push(format!("line {}: key {key} already set in map", location.line()));
    }
    Ok(Yaml { value, twice: Some(format!("yaml: unmarshal errors:\n  {}", twice.join("\n  "))) })
}

/// Writes YAML text.
pub fn to_yaml(value: &Value) -> Result<String> {
    serde_saphyr::to_string(value).map_err(Refusal::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(value: &str) -> Result<Accept> {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::ACCEPT, value.parse().unwrap());
        Accept::of(&headers, Accept::is_served)
    }

    #[test]
    fn a_key_that_is_there_twice_is_named_with_its_line_and_the_last_counts() {
        let read = yaml(b"\na: 1\nb:\n  c: v\n  c: w\n").unwrap();
        assert_eq!(read.value, serde_json::json!({ "a": 1, "b": { "c": "w" } }));
        let said = "yaml: unmarshal errors:\n  line 5: key \"c\" already set in map";
        assert_eq!(read.twice.as_deref(), Some(said));
        let read = yaml(b"1: a\n1: b\n").unwrap();
        let said = "yaml: unmarshal errors:\n  line 2: key 1 already set in map";
        assert_eq!((read.value, read.twice.as_deref()), (serde_json::json!({ "1": "b" }), Some(said)));
        assert_eq!(yaml(b"a: 1\nb: 1\n").unwrap().twice, None);
        assert!(yaml(b"a: [").is_err());
    }

    #[test]
    fn the_best_known_form_is_chosen() {
        use Media::{Json, Protobuf, Yaml};
        let partial = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        let cases = [
            ("application/json", Json, Form::Object),
            ("*/*", Json, Form::Object),
            ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Json, Form::Table(Meta::V1)),
            (
                "application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                Json,
                Form::Table(Meta::V1beta1),
            ),
            ("application/json;as=Table;v=v2;g=meta.k8s.io,application/json", Json, Form::Object),
            ("application/vnd.kubernetes.protobuf, application/json", Protobuf, Form::Object),
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                Json,
                Form::Partial(Meta::V1),
            ),
            (partial, Protobuf, Form::Partial(Meta::V1)),
            ("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", Json, Form::Discovery),
            (
                "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json",
                Json,
                Form::Object,
            ),
            ("application/json;q=0.5, application/yaml; q=0.8", Yaml, Form::Object),
            ("*/*, application/vnd.kubernetes.protobuf", Protobuf, Form::Object),
            ("application/json; charset=utf-8; pretty", Json, Form::Object),
            ("application/cbor, application/json;q=0.9", Json, Form::Object),
        ];
        for (value, media, form) in cases {
            assert_eq!(accept(value).unwrap(), Accept { media, form }, "{value}");
        }
        for value in ["application/cbor", "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io"] {
            assert_eq!(accept(value).unwrap_err().code, 406, "{value}");
        }
    }
}
