//! Content negotiation: which form of an answer a client wants, and in what form its body came.

use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;

use crate::status::{Refusal, Result};

/// Encoding of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    Json,
    Yaml,
}

/// What the answer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Object,
    Table,
    /// Only metadata of the object, or of every object of a list.
    Partial,
    /// The aggregated discovery document.
    Discovery,
}

/// What the client accepts, decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accept {
    pub media: Media,
    pub form: Form,
}

impl Accept {
    pub const JSON: Self = Self { media: Media::Json, form: Form::Object };

    /// Chooses from the Accept header the first form that is known.
    pub fn of(headers: &HeaderMap) -> Result<Self> {
        let mut values =
            headers.get_all(http::header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).peekable();
        if values.peek().is_none() {
            return Ok(Self::JSON);
        }
        let found = values.flat_map(|value| value.split(',')).find_map(Self::one);
        found.ok_or_else(|| Refusal::not_acceptable("application/json, application/yaml"))
    }

    fn one(range: &str) -> Option<Self> {
        let mut parts = range.split(';').map(str::trim);
        let media = match parts.next()? {
            "application/json" | "*/*" | "application/*" | "" => Media::Json,
            "application/yaml" => Media::Yaml,
            _ => return None,
        };
        let (mut form, mut group, mut version) = (Form::Object, "", "");
        for part in parts {
            match part.split_once('=')? {
                ("as", "Table") => form = Form::Table,
                ("as", "PartialObjectMetadata" | "PartialObjectMetadataList") => form = Form::Partial,
                ("as", "APIGroupDiscoveryList") => form = Form::Discovery,
                ("as", _) => return None,
                ("g", name) => group = name,
                ("v", name) => version = name,
                _ => {}
            }
        }
        let fits = match form {
            Form::Object => true,
            Form::Table | Form::Partial => group == "meta.k8s.io" && version == "v1",
            Form::Discovery => group == "apidiscovery.k8s.io" && version == "v2",
        };
        fits.then_some(Self { media, form })
    }
}

/// The media type of a body, without parameters.
pub fn content_type(headers: &HeaderMap) -> &str {
    let value =
        headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// JSON text of a body that may be JSON, YAML or protobuf; `type_name` is the schema's name of what is expected.
pub fn json_body(headers: &HeaderMap, body: &Bytes, type_name: &str) -> Result<Bytes> {
    match content_type(headers) {
        "application/vnd.kubernetes.protobuf" => {
            let tree = crate::protobuf::decode(type_name, body)
                .map_err(|error| Refusal::bad_request(error.to_string()))?;
            Ok(serde_json::to_vec(&tree).expect("a tree always encodes").into())
        }
        "" | "application/json" | "*/*" => Ok(body.clone()),
        "application/yaml" | "text/yaml" | "application/x-yaml" => {
            let tree = yaml(body)?;
            Ok(serde_json::to_vec(&tree).expect("a tree always encodes").into())
        }
        _ => Err(Refusal::unsupported_media_type(
            "application/json, application/yaml, application/vnd.kubernetes.protobuf",
        )),
    }
}

/// Reads YAML text.
pub fn yaml(body: &[u8]) -> Result<Value> {
    let text = std::str::from_utf8(body)
        .map_err(|error| Refusal::bad_request(format!("error converting YAML to JSON: {error}")))?;
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| Refusal::bad_request(format!("error converting YAML to JSON: {error}")))
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
        Accept::of(&headers)
    }

    #[test]
    fn the_first_known_form_is_chosen() {
        let cases = [
            ("application/json", Form::Object),
            ("*/*", Form::Object),
            ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Form::Table),
            ("application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json", Form::Object),
            ("application/vnd.kubernetes.protobuf, application/json", Form::Object),
            ("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", Form::Partial),
            ("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", Form::Discovery),
        ];
        for (value, want) in cases {
            assert_eq!(accept(value).unwrap().form, want, "{value}");
        }
        assert_eq!(accept("application/vnd.kubernetes.protobuf").unwrap_err().code, 406);
    }
}
