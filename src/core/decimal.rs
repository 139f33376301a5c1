//! Numbers with a point in front of a unit, as people write and read them.
//!
//! Refuses to know the units, and what is allowed of them.

/// A plain number in thousandths: from one to `most` digits, at most 16, and behind a point from one to three.
pub fn thousandths(number: &str, most: usize) -> Option<u64> {
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let are_digits =
        |text: &str, most| (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if !are_digits(whole, most) || !are_digits(part, 3) {
        return None;
    }
    let (whole, part): (u64, u64) = (whole.parse().ok()?, format!("{part:0<3}").parse().ok()?);
    whole.checked_mul(1000)?.checked_add(part)
}

/// So many of a unit, rounded down to one digit behind the point, and without a point where that is 0.
pub fn in_units(value: u64, unit: u64) -> String {
    match (value / unit, value % unit * 10 / unit) {
        (whole, 0) => whole.to_string(),
        (whole, tenth) => format!("{whole}.{tenth}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_to_three_digits_behind_the_point() {
        for (text, read) in [
            ("0", Some(0)),
            ("16.5", Some(16_500)),
            ("109.345", Some(109_345)),
            ("0.05", Some(50)),
            ("9999", Some(9_999_000)),
        ] {
            assert_eq!(thousandths(text, 4), read, "{text}");
        }
        for text in
            ["", ".", "1.", ".5", "1.2345", "10000", "+1", "-1", "1e3", "1.2.3", "1,5", " 1", "\u{661}"]
        {
            assert_eq!(thousandths(text, 4), None, "{text}");
        }
        assert_eq!(thousandths(&"9".repeat(16), 16), Some(9_999_999_999_999_999_000));
    }

    #[test]
    fn units_are_told_to_one_digit_rounded_down() {
        let told = [999, 1000, 1050, 1999, 16_500].map(|value| in_units(value, 1000));
        assert_eq!(told, ["0.9", "1", "1", "1.9", "16.5"]);
    }
}
