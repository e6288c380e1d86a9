//! Canonical forms of scalars with rules of their own: quantities and times.

/// Nano-units of a quantity: `1` is 1,000,000,000; `None` when the text is no quantity.
fn nanos(text: &str) -> Option<(i128, Format)> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(digits);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || whole.len() > 27 {
        return None;
    }
    let scale = scale(suffix)?;
    let mut value: i128 =
        whole.parse::<i128>().or_else(|error| if whole.is_empty() { Ok(0) } else { Err(error) }).ok()?;
    value = value.checked_mul(1_000_000_000)?;
    let mut unit = 100_000_000;
    for digit in fraction.bytes().take(9) {
        value += i128::from(digit - b'0') * unit;
        unit /= 10;
    }
    let scaled = match scale.factor {
        Factor::Times(factor) => value.checked_mul(factor)?,
        Factor::Divided(divisor) => value.div_euclid(divisor) + i128::from(value.rem_euclid(divisor) != 0),
    };
    Some((sign * scaled, scale.format))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Binary,
    Decimal,
    Exponent,
}

enum Factor {
    Times(i128),
    Divided(i128),
}

struct Scale {
    factor: Factor,
    format: Format,
}

const BINARY: &[(&str, u32)] = &[("Ei", 60), ("Pi", 50), ("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];
const DECIMAL: &[(&str, u32)] = &[("E", 18), ("P", 15), ("T", 12), ("G", 9), ("M", 6), ("k", 3)];
const FRACTION: &[(&str, u32)] = &[("m", 3), ("u", 6), ("n", 9)];

fn scale(suffix: &str) -> Option<Scale> {
    let decimal = |factor| Some(Scale { factor, format: Format::Decimal });
    if suffix.is_empty() {
        return decimal(Factor::Times(1));
    }
    if let Some((_, bits)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        return Some(Scale { factor: Factor::Times(1 << bits), format: Format::Binary });
    }
    if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return decimal(Factor::Times(10_i128.pow(*power)));
    }
    if let Some((_, power)) = FRACTION.iter().find(|(name, _)| *name == suffix) {
        return decimal(Factor::Divided(10_i128.pow(*power)));
    }
    let power: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let magnitude = 10_i128.checked_pow(power.unsigned_abs()).filter(|_| power.abs() <= 18)?;
    let factor = if power < 0 { Factor::Divided(magnitude) } else { Factor::Times(magnitude) };
    Some(Scale { factor, format: Format::Exponent })
}

/// The form in which upstream writes a quantity: `1000m` is `1`, `1024Ki` is `1Mi`.
pub fn canonical_quantity(text: &str) -> Option<String> {
    let (value, format) = nanos(text.trim())?;
    let whole = value % 1_000_000_000 == 0;
    let units = value / 1_000_000_000;
    if whole && format == Format::Binary && units != 0 {
        let name = BINARY.iter().find(|(_, bits)| units % (1 << bits) == 0);
        // Below 1Ki upstream falls back to the decimal form.
        if let Some((name, bits)) = name {
            return Some(format!("{}{name}", units >> bits));
        }
        return Some(units.to_string());
    }
    if value == 0 {
        return Some("0".to_owned());
    }
    if whole {
        let name = DECIMAL.iter().find(|(_, power)| units % 10_i128.pow(*power) == 0);
        return Some(match (name, format) {
            (Some((_, power)), Format::Exponent) => format!("{}e{power}", units / 10_i128.pow(*power)),
            (Some((name, power)), _) => format!("{}{name}", units / 10_i128.pow(*power)),
            (None, _) => units.to_string(),
        });
    }
    let (name, divisor) = [("m", 1_000_000), ("u", 1_000), ("n", 1)]
        .into_iter()
        .find(|(_, divisor)| value % divisor == 0)
        .expect("everything is a multiple of one");
    Some(format!("{}{name}", value / divisor))
}

/// Thousandths of a quantity, rounded up; `None` when the text is no quantity.
pub fn quantity_millis(text: &str) -> Option<i128> {
    let (value, _) = nanos(text.trim())?;
    Some(value.div_euclid(1_000_000) + i128::from(value.rem_euclid(1_000_000) != 0))
}

/// RFC 3339 in UTC with whole seconds, or with microseconds when `micro`.
pub(super) fn canonical_time(text: &str, micro: bool) -> Option<String> {
    let time: jiff::Timestamp = text.parse().ok()?;
    let form = if micro { "%Y-%m-%dT%H:%M:%S.%6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
    Some(time.strftime(form).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_take_the_form_upstream_writes() {
        let cases = [
            ("1000m", "1"),
            ("100m", "100m"),
            ("0.5", "500m"),
            ("1.5Gi", "1536Mi"),
            ("1024Ki", "1Mi"),
            ("128Mi", "128Mi"),
            ("1000", "1k"),
            ("1e3", "1e3"),
            ("0", "0"),
            ("110", "110"),
            ("-1", "-1"),
            ("0.0001", "100u"),
        ];
        for (given, want) in cases {
            assert_eq!(canonical_quantity(given).as_deref(), Some(want), "{given}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", "abc", "1x", "1.2.3", "Mi", "--1", "1e99"] {
            assert_eq!(canonical_quantity(text), None, "{text}");
        }
    }

    #[test]
    fn times_are_written_in_utc() {
        assert_eq!(
            canonical_time("2024-01-02T03:04:05+01:00", false).as_deref(),
            Some("2024-01-02T02:04:05Z")
        );
        assert_eq!(
            canonical_time("2024-01-02T03:04:05Z", true).as_deref(),
            Some("2024-01-02T03:04:05.000000Z")
        );
        assert_eq!(canonical_time("yesterday", false), None);
    }
}
