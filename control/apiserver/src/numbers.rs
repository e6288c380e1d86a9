//! Numbers as Go writes them, so that a client reads back from us what it would from kube-apiserver.
//!
//! Kubernetes reads a number without a fraction that fits 64 bits with a sign as such, and every other as a double
//! (`k8s.io/apimachinery/pkg/util/json`); Go's `encoding/json` writes a double as ECMAScript does: without an exponent from
//! 1e-6 to 1e21, and without a fraction where there is none.

use std::io;

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

/// Encodes as JSON.
pub fn write<W: io::Write>(writer: W, value: &impl Serialize) -> serde_json::Result<()> {
    value.serialize(&mut Serializer::with_formatter(writer, Numbers))
}

struct Numbers;

impl Formatter for Numbers {
    fn write_u64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: u64) -> io::Result<()> {
        match i64::try_from(value) {
            Ok(_fits) => CompactFormatter.write_u64(writer, value),
            Err(_larger) => self.write_f64(writer, value as f64),
        }
    }

    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        if value == 0.0 {
            // Also what is less than nothing.
            return writer.write_all(b"0");
        }
        if (1e-6..1e21).contains(&value.abs()) {
            return write!(writer, "{value}");
        }
        // 1.5e21 here is 1.5e+21 there.
        let text = format!("{value:e}");
        match text.split_once('e') {
            Some((digits, exponent)) if !exponent.starts_with('-') => write!(writer, "{digits}e+{exponent}"),
            _ => writer.write_all(text.as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn rewritten(text: &str) -> String {
        let value: Value = serde_json::from_str(text).unwrap();
        let mut bytes = Vec::new();
        write(&mut bytes, &value).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn numbers_are_written_as_by_go() {
        for (text, want) in [
            ("0", "0"),
            ("-7", "-7"),
            ("-0", "0"),
            ("-0.0", "0"),
            ("9223372036854775807", "9223372036854775807"),
            ("9223372036854775808", "9223372036854776000"),
            ("18446744073709551615", "18446744073709552000"),
            ("123456789012345678901234567890", "1.2345678901234568e+29"),
            ("1.0", "1"),
            ("-2.50", "-2.5"),
            ("1e3", "1000"),
            ("1e21", "1e+21"),
            ("999999999999999999999", "1e+21"),
            ("1.5E-7", "1.5e-7"),
            ("0.000001", "0.000001"),
            ("0.1", "0.1"),
            // The nearest double, which a quick reading misses by one.
            ("1.1111110000000001e48", "1.1111110000000001e+48"),
            ("52.51736479999999", "52.51736479999999"),
        ] {
            assert_eq!(rewritten(text), want, "{text}");
        }
        assert_eq!(rewritten(r#"{"a": [1.0, {"b": 2e0}], "c": "1.0"}"#), r#"{"a":[1,{"b":2}],"c":"1.0"}"#);
    }

    proptest! {
        #[test]
        fn a_double_stays_what_it_is(value in proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL) {
            let written = rewritten(&format!("{value:e}"));
            prop_assert_eq!(written.parse::<f64>().unwrap().to_bits(), value.to_bits(), "{}", written);
            prop_assert_eq!(&rewritten(&written), &written);
        }
    }
}
