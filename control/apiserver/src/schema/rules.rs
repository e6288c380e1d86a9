//! What a value must keep to besides its type: the value validations of a schema of a CustomResourceDefinition.

use std::sync::OnceLock;

use regex::Regex;
use serde_json::{Number, Value};

use crate::name::Name;

/// Rules of one place. They speak of a value only when it has the type they are about.
pub type Rules = Vec<Rule>;

/// One rule.
#[derive(Debug)]
pub enum Rule {
    Required(Name),
    Format(Format),
    Pattern(Pattern),
    Enum(Vec<Value>),
    /// Characters.
    MinLength(u64),
    MaxLength(u64),
    Minimum(Number),
    AboveMinimum(Number),
    Maximum(Number),
    BelowMaximum(Number),
    MultipleOf(Number),
    MinItems(u64),
    MaxItems(u64),
    MinProperties(u64),
    MaxProperties(u64),
    /// The object names its own apiVersion and kind.
    Embedded,
    AllOf(Vec<Rules>),
    AnyOf(Vec<Rules>),
    OneOf(Vec<Rules>),
    Not(Rules),
    /// Rules of a field, where they do not stand at the field itself.
    Field(Name, Rules),
    Items(Rules),
    /// Rules of every value of a map.
    Values(Rules),
}

impl Rule {
    /// Whether it bounds numbers.
    pub fn is_of_numbers(&self) -> bool {
        matches!(
            self,
            Self::Minimum(_)
                | Self::AboveMinimum(_)
                | Self::Maximum(_)
                | Self::BelowMaximum(_)
                | Self::MultipleOf(_)
        )
    }
}

/// A regular expression, compiled when it is first needed.
#[derive(Debug)]
pub struct Pattern {
    text: Box<str>,
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    pub fn new(text: &str) -> Self {
        Self { text: text.into(), compiled: OnceLock::new() }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the expression is found in the text. One that cannot be compiled was refused with its definition.
    pub fn matches(&self, text: &str) -> bool {
        let compiled = self.compiled.get_or_init(|| Regex::new(&self.text).ok());
        compiled.as_ref().is_none_or(|regex| regex.is_match(text))
    }
}

/// Formats that are checked; upstream ignores those it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Byte,
    Cidr,
    Date,
    DateTime,
    Duration,
    Email,
    HexColor,
    Hostname,
    Int32,
    Int64,
    Ipv4,
    Ipv6,
    Mac,
    Uri,
    Uuid,
}

const FORMATS: &[(&str, Format)] = &[
    ("byte", Format::Byte),
    ("cidr", Format::Cidr),
    ("date", Format::Date),
    ("date-time", Format::DateTime),
    ("datetime", Format::DateTime),
    ("duration", Format::Duration),
    ("email", Format::Email),
    ("hexcolor", Format::HexColor),
    ("hostname", Format::Hostname),
    ("int32", Format::Int32),
    ("int64", Format::Int64),
    ("ipv4", Format::Ipv4),
    ("ipv6", Format::Ipv6),
    ("mac", Format::Mac),
    ("uri", Format::Uri),
    ("uuid", Format::Uuid),
    ("uuid3", Format::Uuid),
    ("uuid4", Format::Uuid),
    ("uuid5", Format::Uuid),
];

/// The first whole number that 64 bits cannot hold.
const TWO_TO_63: f64 = 9_223_372_036_854_775_808.0;

impl Format {
    /// The format of this name, if it is one that is checked.
    pub fn named(name: &str) -> Option<Self> {
        FORMATS.iter().find(|(known, _)| *known == name).map(|(_, format)| *format)
    }

    pub fn name(self) -> &'static str {
        FORMATS.iter().find(|(_, format)| *format == self).map_or("", |(name, _)| name)
    }

    /// Whether a number is a whole one, and within the bounds of the format.
    pub fn bounds(format: Option<Self>, number: &serde_json::Number) -> bool {
        let whole = number.as_i64().or_else(|| {
            let number = number.as_f64().filter(|number| number.fract() == 0.0)?;
            // Above it are the numbers that 64 bits cannot hold.
            (-TWO_TO_63..TWO_TO_63).contains(&number).then_some(number as i64)
        });
        whole.is_some_and(|whole| format != Some(Self::Int32) || i32::try_from(whole).is_ok())
    }

    /// Whether a value has the format; values of another type have it.
    pub fn holds(self, value: &Value) -> bool {
        match (self, value) {
            (format, Value::String(text)) => format.fits(text),
            _ => true,
        }
    }

    fn fits(self, text: &str) -> bool {
        use base64::Engine;
        match self {
            Self::Byte => base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
            Self::Cidr => text.split_once('/').is_some_and(|(address, length)| cidr(address, length)),
            Self::Date => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
            Self::DateTime => text.contains(['T', 't', ' ']) && text.parse::<jiff::Timestamp>().is_ok(),
            Self::Duration => duration(text),
            Self::Email => {
                text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && hostname(host))
            }
            Self::HexColor => {
                let digits = text.strip_prefix('#').unwrap_or(text);
                matches!(digits.len(), 3 | 6) && digits.bytes().all(|c| c.is_ascii_hexdigit())
            }
            Self::Hostname => hostname(text),
            // Texts have none of them.
            Self::Int32 | Self::Int64 => true,
            Self::Ipv4 => text.parse::<std::net::Ipv4Addr>().is_ok(),
            Self::Ipv6 => text.parse::<std::net::Ipv6Addr>().is_ok(),
            Self::Mac => mac(text),
            Self::Uri => {
                text.parse::<http::Uri>().is_ok_and(|uri| uri.scheme().is_some() || text.starts_with('/'))
            }
            Self::Uuid => uuid::Uuid::try_parse(text).is_ok() && matches!(text.len(), 32 | 36),
        }
    }
}

fn cidr(address: &str, length: &str) -> bool {
    let bits = match address.parse() {
        Ok(std::net::IpAddr::V4(_)) => 32,
        Ok(std::net::IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    length.parse::<u8>().is_ok_and(|length| length <= bits)
}

fn hostname(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    !text.is_empty() && text.len() <= 253 && text.split('.').all(label)
}

fn mac(text: &str) -> bool {
    let separator = if text.contains('-') { '-' } else { ':' };
    let pairs: Vec<&str> = text.split(separator).collect();
    let octet = |pair: &&str| pair.len() == 2 && pair.bytes().all(|c| c.is_ascii_hexdigit());
    matches!(pairs.len(), 6 | 8 | 20) && pairs.iter().all(octet)
}

/// A duration as Go writes it, such as `1h30m` or `-1.5s`.
fn duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let unit =
            rest[number..].find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len() - number);
        let known =
            matches!(&rest[number..number + unit], "ns" | "us" | "µs" | "μs" | "ms" | "s" | "m" | "h");
        if rest[..number].parse::<f64>().is_err() || !known {
            return false;
        }
        rest = &rest[number + unit..];
    }
    true
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn formats_tell_good_from_bad() {
        for (name, good, bad) in [
            ("date-time", vec!["2024-01-02T03:04:05Z", "2024-01-02T03:04:05+01:00"], vec!["2024-01-02", "x"]),
            ("date", vec!["2024-01-02"], vec!["2024-13-02", "x"]),
            ("duration", vec!["1h30m", "0", "-1.5s"], vec!["", "1", "h", "1x"]),
            ("ipv4", vec!["1.2.3.4"], vec!["1.2.3", "::1"]),
            ("ipv6", vec!["::1"], vec!["1.2.3.4"]),
            ("cidr", vec!["10.0.0.0/8", "fd00::/64"], vec!["10.0.0.0", "10.0.0.0/33"]),
            ("mac", vec!["00:11:22:33:44:55"], vec!["00:11"]),
            ("uuid", vec!["7c9e6679-7425-40de-944b-e07fc1f90ae7"], vec!["7c9e"]),
            ("hostname", vec!["a.example.com"], vec!["-a", "a..b"]),
            ("email", vec!["a@example.com"], vec!["a", "@b"]),
            ("uri", vec!["https://example.com/x"], vec!["a b"]),
            ("byte", vec!["YQ=="], vec!["%"]),
            ("hexcolor", vec!["#fff"], vec!["#ffff"]),
        ] {
            let format = Format::named(name).unwrap();
            good.iter().for_each(|text| assert!(format.holds(&json!(text)), "{name} {text}"));
            bad.iter().for_each(|text| assert!(!format.holds(&json!(text)), "{name} {text}"));
        }
        let int32 = Format::named("int32").unwrap();
        let bounds = |format, number: Value| Format::bounds(format, number.as_number().unwrap());
        assert!(bounds(Some(int32), json!(7)) && !bounds(Some(int32), json!(1_i64 << 40)));
        assert!(bounds(None, json!(1_i64 << 40)) && bounds(None, json!(1e18)) && !bounds(None, json!(1e19)));
        assert!(!bounds(None, json!(1.5)) && !bounds(None, json!(u64::MAX)) && bounds(None, json!(i64::MIN)));
        assert_eq!(Format::named("nonsense"), None);
    }
}
