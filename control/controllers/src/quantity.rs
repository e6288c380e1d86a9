//! Amounts of resources (`resource.Quantity`): read, added, and written in the one form the API has for each.

use std::fmt;

use serde::{Deserialize, Deserializer};

/// Billionths in one.
const ONE: i128 = 1_000_000_000;
const BINARY: &[(&str, u32)] = &[("Ei", 60), ("Pi", 50), ("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];
const DECIMAL: &[(&str, i128)] = &[
    ("E", 1_000_000_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1_000),
];
const FRACTION: &[(&str, i128)] = &[("m", 1_000_000), ("u", 1_000), ("n", 1)];

/// An amount, exact to a billionth; `1Ki` and `1024` are the same.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Quantity {
    billionths: i128,
    /// Written in powers of two.
    is_binary: bool,
}

impl Quantity {
    pub(crate) fn whole(number: usize) -> Self {
        Self { billionths: i128::try_from(number).unwrap_or(i128::MAX / ONE) * ONE, is_binary: false }
    }

    /// What `text` says; `None` if that is no quantity.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let end = text.find(|letter: char| letter.is_ascii_alphabetic()).unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (factor, is_binary) = if let Some((_, bits)) = BINARY.iter().find(|(name, _)| *name == suffix) {
            (ONE << bits, true)
        } else if let Some((_, billionths)) = FRACTION.iter().find(|(name, _)| *name == suffix) {
            (*billionths, false)
        } else if let Some((_, ones)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
            (ONE * ones, false)
        } else if let Some(power) = suffix.strip_prefix(['e', 'E']) {
            (ONE.checked_mul(10_i128.checked_pow(power.parse().ok()?)?)?, false)
        } else if suffix.is_empty() {
            (ONE, false)
        } else {
            return None;
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let places = u32::try_from(fraction.len()).ok()?;
        let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
        // Of a billionth, a part counts whole.
        let scale = 10_i128.checked_pow(places)?;
        let product = digits.checked_mul(factor)?;
        let billionths = product.div_euclid(scale) + i128::from(product.rem_euclid(scale) != 0);
        Some(Self { billionths, is_binary })
    }

    pub(crate) fn is_zero(self) -> bool {
        self.billionths == 0
    }

    /// The sum, written as the first of the two that is not zero.
    pub(crate) fn plus(self, other: Self) -> Self {
        let is_binary = if self.is_zero() { other.is_binary } else { self.is_binary };
        Self { billionths: self.billionths.saturating_add(other.billionths), is_binary }
    }

    pub(crate) fn max(self, other: Self) -> Self {
        if other.billionths > self.billionths { other } else { self }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.billionths == other.billionths
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, billionths) = (self.billionths / ONE, self.billionths);
        if billionths % ONE != 0 {
            let unit = FRACTION.iter().find(|(_, unit)| billionths % unit == 0).copied();
            let (name, unit) = unit.unwrap_or(("n", 1));
            return write!(f, "{}{name}", billionths / unit);
        }
        if self.is_binary && number.abs() >= 1024 {
            let unit = BINARY.iter().find(|(_, bits)| number % (1 << bits) == 0);
            return match unit {
                Some((name, bits)) => write!(f, "{}{name}", number >> bits),
                None => write!(f, "{number}"),
            };
        }
        match DECIMAL.iter().find(|(_, unit)| number != 0 && number % unit == 0) {
            Some((name, unit)) => write!(f, "{}{name}", number / unit),
            None => write!(f, "{number}"),
        }
    }
}

impl<'de> Deserialize<'de> for Quantity {
    /// The API server stores no text that is no quantity. Should there be one all the same, it counts as nothing: with an
    /// error, nothing would be known of any object of the kind.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::read(&String::deserialize(deserializer)?).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_and_written_in_one_form() {
        for (text, want) in [
            ("500m", "500m"),
            ("0.5", "500m"),
            ("1.5", "1500m"),
            ("1000m", "1"),
            ("100u", "100u"),
            ("0.0000000001", "1n"),
            ("2000", "2k"),
            ("2e3", "2k"),
            ("252Mi", "252Mi"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("1Ki", "1Ki"),
            ("0.5Ki", "512"),
            ("0", "0"),
            ("-3", "-3"),
            ("12E", "12E"),
        ] {
            assert_eq!(Quantity::read(text).unwrap().to_string(), want, "{text}");
        }
        for text in ["", "much", "1Zi", "1.2.3", "m", "e3", "1e", "99999999999999999999999999999999999999Ei"]
        {
            assert_eq!(Quantity::read(text), None, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_counts_as_nothing() {
        let read = |text: &str| serde_json::from_value::<Quantity>(serde_json::json!(text)).unwrap();
        assert_eq!(read("much"), Quantity::default());
        assert_eq!(read("3"), Quantity::whole(3));
    }

    #[test]
    fn sums_keep_the_form_of_the_first_that_is_something() {
        let sum = |texts: &[&str]| {
            let parts = texts.iter().map(|text| Quantity::read(text).unwrap());
            parts.fold(Quantity::default(), Quantity::plus).to_string()
        };
        assert_eq!(sum(&["200Mi", "56Mi"]), "256Mi");
        assert_eq!(sum(&["1M", "1Mi"]), "2048576");
        assert_eq!(sum(&["250m", "750m"]), "1");
        assert_eq!(sum(&[]), "0");
        assert_eq!(Quantity::read("1Ki"), Quantity::read("1024"));
        assert_eq!(Quantity::whole(3).max(Quantity::whole(2)), Quantity::whole(3));
    }
}
