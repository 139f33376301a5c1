//! How much goes over a link in a time, and the two ways that it goes.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::decimal;

/// A rate, in bits per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rate(pub u64);

/// What is written behind a number, and what it stands for: powers of ten, as providers count.
const UNITS: [(char, u64); 3] = [('G', 1_000_000_000), ('M', 1_000_000), ('k', 1000)];

impl Rate {
    /// The lowest that can be configured.
    pub const LOWEST: Rate = Rate(8_000);
    /// The highest that can be configured.
    pub const HIGHEST: Rate = Rate(1_000_000_000_000);
    /// What can be configured, as error messages say it.
    pub const ALLOWED: &str = "a rate from 8k to 1000G in bits per second, like 800k, 16.5M or 1G";

    /// So many bytes in a time; none in no time.
    pub fn of(bytes: u64, time: Duration) -> Option<Self> {
        let bits = u128::from(bytes) * 8 * 1_000_000_000;
        let rate = bits.checked_div(time.as_nanos())?;
        Some(Rate(u64::try_from(rate).unwrap_or(u64::MAX)))
    }

    /// So many percent of it.
    pub(super) fn percent(self, percent: u64) -> u128 {
        u128::from(self.0) * u128::from(percent)
    }
}

/// A number, with at most three digits behind a point, and `k`, `M` or `G`.
impl FromStr for Rate {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let unit = UNITS.into_iter().find_map(|(letter, unit)| Some((text.strip_suffix(letter)?, unit)));
        let (number, unit) = unit.ok_or(())?;
        // A thousandth of a unit is whole, as each is a thousand at least.
        let rate = Rate(decimal::thousandths(number, 7).ok_or(())? * (unit / 1000));
        (Rate::LOWEST..=Rate::HIGHEST).contains(&rate).then_some(rate).ok_or(())
    }
}

/// As people read it: `16.5 Mbit/s`.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((letter, unit)) = UNITS.into_iter().find(|(_, unit)| self.0 >= *unit) else {
            return write!(f, "{} bit/s", self.0);
        };
        write!(f, "{} {letter}bit/s", decimal::in_units(self.0, unit))
    }
}

/// A value for each way of a link, seen from this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Directions<T> {
    /// What is received.
    pub down: T,
    /// What is sent.
    pub up: T,
}

impl<T> Directions<T> {
    /// Both, turned into something else.
    pub fn map<U>(self, mut turn: impl FnMut(T) -> U) -> Directions<U> {
        Directions { down: turn(self.down), up: turn(self.up) }
    }

    /// Both, each beside the same of another.
    pub fn zip<U>(self, other: Directions<U>) -> Directions<(T, U)> {
        Directions { down: (self.down, other.down), up: (self.up, other.up) }
    }

    /// Both, one after the other.
    pub fn both(self) -> [T; 2] {
        [self.down, self.up]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_providers_write_them() {
        let read = |text: &str| text.parse::<Rate>().ok().map(|rate| rate.0);
        for (text, rate) in [
            ("8k", 8_000),
            ("800k", 800_000),
            ("16.5M", 16_500_000),
            ("0.05M", 50_000),
            ("109.344M", 109_344_000),
            ("1G", 1_000_000_000),
            ("1000G", 1_000_000_000_000),
        ] {
            assert_eq!(read(text), Some(rate), "{text}");
        }
        let wrong = [
            "",
            "M",
            "100",
            "7.999k",
            "1001G",
            "9999999999G",
            "100m",
            "100K",
            "100 M",
            "+1M",
            "-1M",
            "1.M",
            ".5M",
            "1.2345M",
            "1.2.3M",
            "100Mbit",
            "1e3k",
            "١M",
        ];
        for text in wrong {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn rates_are_shown_as_people_read_them() {
        let shown: Vec<_> = [0, 999, 1000, 1250, 800_000, 16_500_000, 100_000_000, 2_549_000_000]
            .map(|r| Rate(r).to_string())
            .into();
        let wanted = [
            "0 bit/s",
            "999 bit/s",
            "1 kbit/s",
            "1.2 kbit/s",
            "800 kbit/s",
            "16.5 Mbit/s",
            "100 Mbit/s",
            "2.5 Gbit/s",
        ];
        assert_eq!(shown, wanted);
        assert_eq!(Rate::of(125_000, Duration::from_secs(2)), Some(Rate(500_000)));
        assert_eq!(Rate::of(1, Duration::ZERO), None);
    }
}
