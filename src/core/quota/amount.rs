//! Bytes as people write and read them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::core::decimal;

/// An amount of data, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Amount(pub u64);

/// What is written behind a number, and what it stands for: powers of ten, as providers count, and of two (IEC 80000-13).
const UNITS: [(&str, u64); 9] = [
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1000),
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

impl Amount {
    /// The smallest quota.
    pub const LEAST: Amount = Amount(1_000_000);
    /// The largest quota.
    pub const MOST: Amount = Amount(1_000_000_000_000_000);
    /// What can be a quota, as error messages say it.
    pub const ALLOWED: &str = "an amount from 1 MB to 1000 TB, like 500 MB, 50 GB or 1.5 TiB";
    /// How any amount is written, as error messages say it.
    pub const WRITTEN: &str =
        "a number with B, kB, MB, GB, TB, KiB, MiB, GiB or TiB behind it, up to 1000 TB, like 12.5 GB";

    /// Whether a quota can be so large.
    pub fn can_be_a_quota(self) -> bool {
        (Amount::LEAST..=Amount::MOST).contains(&self)
    }

    /// What remains of it after so much.
    pub fn less(self, used: Amount) -> Amount {
        Amount(self.0.saturating_sub(used.0))
    }
}

/// A number, with at most three digits behind a point, and a unit, perhaps behind a space.
impl FromStr for Amount {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(())?;
        let (number, unit) = text.split_at(end);
        let unit = unit.strip_prefix(' ').unwrap_or(unit);
        let (_, unit) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or(())?;
        let thousandths = decimal::thousandths(number, 16).ok_or(())?;
        let bytes = u128::from(thousandths) * u128::from(unit) / 1000;
        let amount = Amount(u64::try_from(bytes).map_err(|_| ())?);
        (amount <= Amount::MOST).then_some(amount).ok_or(())
    }
}

/// As people read it: `12.5 GB`.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((name, unit)) = UNITS[..4].iter().find(|(_, unit)| self.0 >= *unit) else {
            return write!(f, "{} B", self.0);
        };
        write!(f, "{} {name}", decimal::in_units(self.0, *unit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_providers_write_them() {
        let read = |text: &str| text.parse::<Amount>().ok().map(|amount| amount.0);
        for (text, bytes) in [
            ("0 B", 0),
            ("0GB", 0),
            ("17B", 17),
            ("50 GB", 50_000_000_000),
            ("50GB", 50_000_000_000),
            ("1.5 TiB", 1_649_267_441_664),
            ("12.345GB", 12_345_000_000),
            ("0.5 KiB", 512),
            ("999.9kB", 999_900),
            ("1000 TB", 1_000_000_000_000_000),
        ] {
            assert_eq!(read(text), Some(bytes), "{text}");
        }
        let wrong = [
            "",
            "B",
            "50",
            "GB",
            "50 gb",
            "50G",
            "50 Gb",
            "50  GB",
            "50 GB ",
            " 50 GB",
            "-1 GB",
            "+1 GB",
            "1,5 GB",
            "1. GB",
            ".5 GB",
            "1.2.3 GB",
            "1.2345 GB",
            "1001 TB",
            "99999999999999999 B",
            "9999999999999999 TiB",
            "1e3 GB",
            "٥ GB",
        ];
        for text in wrong {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn amounts_are_shown_as_people_read_them() {
        let shown: Vec<_> = [0, 999, 1000, 1_250_000, 12_500_000_000, 1_999_999_999_999]
            .map(|n| Amount(n).to_string())
            .into();
        assert_eq!(shown, ["0 B", "999 B", "1 kB", "1.2 MB", "12.5 GB", "1.9 TB"]);
        assert_eq!(Amount(5).less(Amount(7)), Amount(0));
    }
}
