//! Resource quantities (`resource.Quantity`): `500m`, `1Gi`, `2e3`.

/// The value in thousandths, rounded up; `None` when the text is no quantity.
pub(crate) fn milli(text: &str) -> Option<i64> {
    let end = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let scale: f64 = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        "Ti" => 1024.0_f64.powi(4),
        "Pi" => 1024.0_f64.powi(5),
        "Ei" => 1024.0_f64.powi(6),
        exponent => 10.0_f64.powi(exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    let value: f64 = number.parse().ok()?;
    let thousandths = (value * scale * 1000.0).ceil();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a float beyond the range of i64 saturates, which is meant"
    )]
    Some(thousandths as i64)
}

/// The value in whole units, rounded up.
pub(crate) fn whole(text: &str) -> Option<i64> {
    milli(text).map(|thousandths| thousandths.div_euclid(1000) + i64::from(thousandths.rem_euclid(1000) > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read() {
        for (text, want) in [
            ("100m", Some(100)),
            ("2", Some(2000)),
            ("0.5", Some(500)),
            ("1500m", Some(1500)),
            ("1e3", Some(1_000_000)),
            ("1Ki", Some(1_024_000)),
            ("1u", Some(1)),
            ("", None),
            ("much", None),
            ("1Zi", None),
        ] {
            assert_eq!(milli(text), want, "{text}");
        }
        assert_eq!(whole("128Mi"), Some(128 << 20));
        assert_eq!(whole("100m"), Some(1));
        assert_eq!(whole("16Ei"), Some(i64::MAX / 1000 + 1), "saturates");
    }
}
