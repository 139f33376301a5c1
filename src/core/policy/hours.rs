//! Times of the week, at which a policy is in force.
//!
//! All in local time, by the clock on the wall: in the night in which clocks are changed, an hour is missing or there twice.

use std::str::FromStr;
use std::time::Duration;

use time::OffsetDateTime;

const MINUTES: u16 = 24 * 60;
const SECONDS: u32 = 24 * 3600;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// A second of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment {
    /// 0 for Monday.
    day: u8,
    /// Seconds since midnight.
    second: u32,
}

impl Moment {
    /// The second of the week in which a time lies.
    pub fn of(now: OffsetDateTime) -> Self {
        let (hour, minute, second) = now.to_hms();
        let second = (u32::from(hour) * 60 + u32::from(minute)) * 60 + u32::from(second);
        Moment { day: now.weekday().number_days_from_monday(), second }
    }
}

/// Hours of some days. Those that end on the next morning belong to the day on which they begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    /// Bit n for day n.
    days: u8,
    /// Minutes since midnight.
    from: u16,
    /// The same; the first that is no more.
    to: u16,
}

impl Hours {
    /// What can be written, for error messages.
    pub const ALLOWED: &str = "days and hours of local time like \"mon-fri 08:00-18:00\", \"sat,sun\" or \"22:00-06:00\", or a list \
                               of them";

    /// Whether a moment is one of them.
    pub fn has(&self, moment: Moment) -> bool {
        let (from, to) = (u32::from(self.from) * 60, u32::from(self.to) * 60);
        let on = |day: u8| self.days >> (day % 7) & 1 == 1;
        let (begun, over) = (moment.second >= from, moment.second >= to);
        match from < to {
            true => on(moment.day) && begun && !over,
            false => on(moment.day) && begun || on(moment.day + 6) && !over,
        }
    }

    /// After what time at the earliest that is otherwise.
    pub fn changes_after(&self, moment: Moment) -> Duration {
        let after = |minute: u16| {
            let then = u32::from(minute % MINUTES) * 60;
            (then + SECONDS - moment.second - 1) % SECONDS + 1
        };
        Duration::from_secs(after(self.from).min(after(self.to)).into())
    }
}

/// Days, hours or both, in this order.
impl FromStr for Hours {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut words = text.split_whitespace().peekable();
        let days = words.next_if(|word| word.starts_with(|c: char| c.is_ascii_alphabetic()));
        let days = days.map_or(Some(0x7f), days_of).ok_or(())?;
        let hours = match words.next() {
            Some(hours) => hours_of(hours).ok_or(())?,
            // Every day and all the time is no time at all.
            None if days == 0x7f => return Err(()),
            None => (0, MINUTES),
        };
        let (from, to) = hours;
        (words.next().is_none() && from != to).then_some(Hours { days, from, to }).ok_or(())
    }
}

/// Single days and ranges of them, which may go over the end of the week.
fn days_of(text: &str) -> Option<u8> {
    let day = |name: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(name));
    text.split(',').try_fold(0, |days, part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        let count = (last + DAYS.len() - first) % DAYS.len();
        Some((first..=first + count).fold(days, |days, day| days | 1 << (day % DAYS.len())))
    })
}

fn hours_of(text: &str) -> Option<(u16, u16)> {
    let (from, to) = text.split_once('-')?;
    Some((minute_of(from).filter(|from| *from < MINUTES)?, minute_of(to)?))
}

/// The minute of a time like `08:00`; `24:00` is the end of the day.
fn minute_of(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let digits = |text: &str| {
        let two = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        two.then(|| text.parse::<u16>().ok()).flatten()
    };
    let (hour, minute) = (digits(hour)?, digits(minute).filter(|minute| *minute < 60)?);
    Some(hour * 60 + minute).filter(|all| *all <= MINUTES)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hours(text: &str) -> Hours {
        text.parse().unwrap_or_else(|()| panic!("{text}"))
    }

    fn at(day: u8, hour: u32, minute: u32) -> Moment {
        Moment { day, second: (hour * 60 + minute) * 60 }
    }

    #[test]
    fn days_and_hours_are_met() {
        let office = hours("mon-fri 08:00-18:00");
        for (day, hour, minute, is) in
            [(0, 7, 59, false), (0, 8, 0, true), (4, 17, 59, true), (4, 18, 0, false), (5, 9, 0, false)]
        {
            assert_eq!(office.has(at(day, hour, minute)), is, "{day} {hour}:{minute}");
        }
        let weekend = hours("sat,SUN");
        assert!([4, 5, 6, 0].map(|day| weekend.has(at(day, 23, 59))) == [false, true, true, false]);
        let night = hours("fri 22:00-06:00");
        assert!(night.has(at(4, 22, 0)) && night.has(at(5, 5, 59)) && !night.has(at(5, 6, 0)));
        assert!(!night.has(at(4, 5, 0)) && !night.has(at(5, 22, 0)));
        let over_the_end = hours("sun-mon 23:00-01:00");
        assert!(
            over_the_end.has(at(0, 0, 30))
                && over_the_end.has(at(1, 0, 30))
                && !over_the_end.has(at(2, 0, 30))
        );
        assert!(hours("20:00-24:00").has(at(3, 23, 59)));
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "",
            "mon-sun",
            "monday",
            "mon 8:00-18:00",
            "mon 08:00",
            "08:00-08:00",
            "24:00-06:00",
            "08:00-24:01",
            "08:60-09:00",
            "08:00-18:00 mon",
            "mon tue",
            "mon-fri 08:00-18:00 x",
            "mon-",
            "-",
            "mon,,tue",
            "+1:00-02:00",
            "1é:00-02:00",
        ] {
            assert_eq!(text.parse::<Hours>(), Err(()), "{text}");
        }
    }

    #[test]
    fn a_moment_is_that_of_the_wall() {
        // A Saturday.
        let now = OffsetDateTime::from_unix_timestamp(1_795_287_600).unwrap();
        assert_eq!(
            (now.to_string().as_str(), Moment::of(now)),
            ("2026-11-21 19:00:00.0 +00:00:00", at(5, 19, 0))
        );
    }

    proptest! {
        /// Nothing changes before it is said to.
        #[test]
        fn changes_come_when_they_are_foretold(days in 1u8..0x80, from in 0u16..1440, to in 0u16..=1440, second in 0u32..604_800) {
            prop_assume!(from != to);
            let hours = Hours { days, from, to };
            let moment = |second: u32| Moment { day: (second / SECONDS % 7) as u8, second: second % SECONDS };
            let after = hours.changes_after(moment(second)).as_secs() as u32;
            prop_assert!((1..=SECONDS).contains(&after));
            let is = hours.has(moment(second));
            for step in [1, after / 3, after / 2, after - 1] {
                prop_assert!(step == after || hours.has(moment(second + step)) == is, "{} of {}", step, after);
            }
        }
    }
}
