//! When a billing period begins and ends, by dates of the local time zone.

use serde::{Deserialize, Serialize};
use time::Date;

/// The day of the month on which a quota is renewed; where a month has no such day, its last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Day(u8);

impl Day {
    /// The first of each month.
    pub const FIRST: Day = Day(1);

    /// What it can be, as error messages say it.
    pub const ALLOWED: &str = "a whole number from 1 to 31";

    /// Accepts 1 to 31.
    pub fn new(day: u8) -> Option<Self> {
        (1..=31).contains(&day).then_some(Day(day))
    }

    /// 1 to 31.
    pub fn get(self) -> u8 {
        self.0
    }

    /// When the period began in which this day lies.
    pub fn began(self, today: Date) -> Date {
        let here = self.in_month_of(today);
        match here <= today {
            true => here,
            false => self.in_month_of(first_of(today).previous_day().unwrap_or(today)),
        }
    }

    /// When the period ends that began then: the first day of the next.
    pub fn ends(self, began: Date) -> Date {
        let last = began.replace_day(began.month().length(began.year())).unwrap_or(began);
        self.in_month_of(last.next_day().unwrap_or(last))
    }

    fn in_month_of(self, date: Date) -> Date {
        date.replace_day(self.0.min(date.month().length(date.year()))).unwrap_or(date)
    }
}

fn first_of(date: Date) -> Date {
    date.replace_day(1).unwrap_or(date)
}

impl TryFrom<u8> for Day {
    type Error = String;

    fn try_from(day: u8) -> Result<Self, String> {
        Day::new(day).ok_or_else(|| format!("{day} is no day of a month"))
    }
}

impl From<Day> for u8 {
    fn from(Day(day): Day) -> u8 {
        day
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::Month;
    use time::macros::date;

    use super::*;

    #[test]
    fn a_period_begins_on_its_day_or_on_the_last_of_a_short_month() {
        for (day, today, began, ends) in [
            (15, date!(2026 - 11 - 21), date!(2026 - 11 - 15), date!(2026 - 12 - 15)),
            (15, date!(2026 - 11 - 15), date!(2026 - 11 - 15), date!(2026 - 12 - 15)),
            (15, date!(2026 - 11 - 14), date!(2026 - 10 - 15), date!(2026 - 11 - 15)),
            (1, date!(2026 - 12 - 31), date!(2026 - 12 - 01), date!(2027 - 01 - 01)),
            (20, date!(2027 - 01 - 05), date!(2026 - 12 - 20), date!(2027 - 01 - 20)),
            (31, date!(2027 - 02 - 27), date!(2027 - 01 - 31), date!(2027 - 02 - 28)),
            (31, date!(2027 - 02 - 28), date!(2027 - 02 - 28), date!(2027 - 03 - 31)),
            (31, date!(2028 - 02 - 28), date!(2028 - 01 - 31), date!(2028 - 02 - 29)),
            (31, date!(2027 - 03 - 30), date!(2027 - 02 - 28), date!(2027 - 03 - 31)),
            (31, date!(2027 - 04 - 30), date!(2027 - 04 - 30), date!(2027 - 05 - 31)),
            (30, date!(2027 - 03 - 01), date!(2027 - 02 - 28), date!(2027 - 03 - 30)),
        ] {
            let day = Day::new(day).unwrap();
            assert_eq!((day.began(today), day.ends(began)), (began, ends), "{} on {today}", day.get());
        }
        assert_eq!([0, 32].map(Day::new), [None, None]);
    }

    proptest! {
        #[test]
        fn every_day_lies_in_exactly_one_period(day in 1u8..=31, year in 1970i32..2100, ordinal in 1u16..=365) {
            let (day, today) = (Day::new(day).unwrap(), Date::from_ordinal_date(year, ordinal).unwrap());
            let began = day.began(today);
            let ends = day.ends(began);
            prop_assert!(began <= today && today < ends, "{} .. {}", began, ends);
            prop_assert_eq!(day.began(ends), ends);
            prop_assert_eq!(day.began(ends.previous_day().unwrap()), began);
            prop_assert!((28..=31).contains(&(ends - began).whole_days()));
            prop_assert!(began.day() == day.get() || began.day() == began.month().length(began.year()));
            prop_assert!(began.month() != Month::January || began.day() == day.get());
        }
    }
}
