//! Amounts of resources, as upstream reads, adds and writes them (`k8s.io/apimachinery/pkg/api/resource`).

use std::cmp::Ordering;
use std::fmt;

/// Nano-units in one.
const NANOS: i128 = 1_000_000_000;

/// Nano-units of a quantity; `None` when the text is no quantity.
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
    value = value.checked_mul(NANOS)?;
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

/// An amount, and the form it is written in. Amounts are equal whatever their form.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

impl Quantity {
    /// `None` when the text is no quantity.
    pub fn parse(text: &str) -> Option<Self> {
        nanos(text.trim()).map(|(nanos, format)| Self { nanos, format })
    }

    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// The sum, in the form of this one unless it is nothing.
    pub fn plus(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_add(other.nanos), format }
    }

    /// Whether this is more than `times` as much as `other`.
    pub fn exceeds(self, other: Self, times: Self) -> bool {
        self.nanos.saturating_mul(NANOS) > other.nanos.saturating_mul(times.nanos)
    }

    /// How many times as much as `other` this is.
    #[expect(clippy::cast_precision_loss, reason = "it is shown with six decimals")]
    pub fn ratio(self, other: Self) -> f64 {
        self.nanos as f64 / other.nanos as f64
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.nanos.partial_cmp(&other.nanos)
    }
}

impl fmt::Display for Quantity {
    /// The form in which upstream writes it: `1000m` is `1`, `1024Ki` is `1Mi`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (units, format) = (self.nanos / NANOS, self.format);
        if self.nanos % NANOS != 0 {
            let (name, divisor) = [("m", 1_000_000), ("u", 1_000), ("n", 1)]
                .into_iter()
                .find(|(_, divisor)| self.nanos % divisor == 0)
                .expect("everything is a multiple of one");
            return write!(formatter, "{}{name}", self.nanos / divisor);
        }
        // Below 1Ki upstream falls back to plain digits.
        let binary = || BINARY.iter().find(|(_, bits)| units % (1 << bits) == 0);
        let decimal = || DECIMAL.iter().find(|(_, power)| units % 10_i128.pow(*power) == 0);
        match format {
            _ if units == 0 => formatter.write_str("0"),
            Format::Binary => match binary() {
                Some((name, bits)) => write!(formatter, "{}{name}", units >> bits),
                None => write!(formatter, "{units}"),
            },
            Format::Decimal | Format::Exponent => match decimal() {
                Some((_, power)) if format == Format::Exponent => {
                    write!(formatter, "{}e{power}", units / 10_i128.pow(*power))
                }
                Some((name, power)) => write!(formatter, "{}{name}", units / 10_i128.pow(*power)),
                None => write!(formatter, "{units}"),
            },
        }
    }
}

/// The form in which upstream writes a quantity; `None` when the text is none.
pub fn canonical_quantity(text: &str) -> Option<String> {
    Quantity::parse(text).map(|quantity| quantity.to_string())
}

/// Thousandths of a quantity, rounded up; `None` when the text is no quantity.
pub fn quantity_millis(text: &str) -> Option<i128> {
    let value = Quantity::parse(text)?.nanos;
    Some(value.div_euclid(1_000_000) + i128::from(value.rem_euclid(1_000_000) != 0))
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
    fn a_sum_keeps_the_form_of_its_first_part_that_is_something() {
        for (one, other, want) in [
            ("1Gi", "1024", "1048577Ki"),
            ("1024", "1Gi", "1073742848"),
            ("512Mi", "512Mi", "1Gi"),
            ("0", "1Gi", "1Gi"),
            ("900m", "100m", "1"),
        ] {
            let sum = Quantity::parse(one).unwrap().plus(Quantity::parse(other).unwrap());
            assert_eq!(sum.to_string(), want, "{one} and {other}");
        }
    }
}
