use proptest::prelude::*;
use time::macros::date;

use super::*;
use crate::core::balance::Bytes;

const DAY: Duration = Duration::from_secs(86_400);

fn reading(boot: &str, index: u32, down: u64) -> Reading {
    Reading { boot: boot.into(), index, newest: index, bytes: Bytes { down, up: 0 } }
}

fn on(today: Date) -> Clock {
    Clock { today, uptime: DAY }
}

/// On a machine that was just started, whose clock nobody has set yet.
fn early(today: Date) -> Clock {
    Clock { today, uptime: Duration::from_secs(20) }
}

/// A ledger that is renewed on the 15th, has counted 1000 in the present period and stands at the counters of a link.
fn ledger() -> Ledger {
    let mut ledger = Ledger::new(Day::new(15).unwrap());
    ledger.count(&reading("a", 2, 500), on(date!(2026 - 10 - 20)));
    ledger.count(&reading("a", 2, 800), on(date!(2026 - 11 - 14)));
    ledger.count(&reading("a", 2, 1800), on(date!(2026 - 11 - 15)));
    ledger
}

fn used(ledger: &Ledger) -> u64 {
    ledger.usage().used.0
}

#[test]
fn a_new_period_begins_at_nothing_and_the_former_is_remembered() {
    let mut ledger = ledger();
    assert_eq!(ledger.usage(), Usage { used: Amount(1000), renewed: Some(date!(2026 - 12 - 15)) });
    assert_eq!(ledger.former(), Some(Amount(300)), "what was there when it was first seen does not count");
    ledger.look(ledger.day, on(date!(2026 - 12 - 15)));
    assert_eq!(ledger.usage(), Usage { used: Amount(0), renewed: Some(date!(2027 - 01 - 15)) });
    assert_eq!((ledger.former(), ledger.began()), (Some(Amount(1000)), Some(date!(2026 - 12 - 15))));
    // Nobody was there at the end of the year.
    ledger.count(&reading("a", 2, 1900), on(date!(2027 - 06 - 01)));
    assert_eq!((used(&ledger), ledger.former()), (100, Some(Amount(0))));
}

#[test]
fn a_clock_that_begins_long_ago_is_not_believed_until_it_is_set() {
    let mut ledger = ledger();
    ledger.count(&reading("b", 2, 50), early(date!(1970 - 01 - 01)));
    assert_eq!(ledger.usage(), Usage { used: Amount(1050), renewed: Some(date!(2026 - 12 - 15)) });
    let mut renewed = ledger.clone();
    ledger.count(&reading("b", 2, 60), early(date!(2026 - 11 - 30)));
    assert_eq!((used(&ledger), ledger.unplaced), (1060, Amount(0)));
    // The machine was off over the day of renewal: what it has counted since it is on belongs to the new period.
    renewed.count(&reading("b", 2, 60), early(date!(2026 - 12 - 20)));
    assert_eq!(used(&renewed), 1060, "not yet believed");
    renewed.count(&reading("b", 2, 70), on(date!(2026 - 12 - 20)));
    assert_eq!((used(&renewed), renewed.former()), (70, Some(Amount(1000))));
}

#[test]
fn a_clock_that_is_ahead_renews_nothing_once_it_is_set_right() {
    let mut ledger = ledger();
    ledger.count(&reading("b", 2, 50), early(date!(2036 - 01 - 01)));
    assert_eq!(used(&ledger), 1050);
    // Nobody sets it right for long.
    ledger.count(&reading("b", 2, 60), on(date!(2036 - 01 - 01)));
    assert_eq!((used(&ledger), ledger.former()), (60, Some(Amount(1000))));
    let mut later = ledger.clone();
    ledger.count(&reading("b", 2, 70), on(date!(2026 - 11 - 22)));
    assert_eq!(used(&ledger), 1070, "nothing is lost");
    ledger.count(&reading("b", 2, 80), on(date!(2026 - 12 - 15)));
    assert_eq!((used(&ledger), ledger.former()), (10, Some(Amount(1070))), "and nothing counts twice");
    // It is set right after the period has ended.
    later.count(&reading("b", 2, 70), on(date!(2026 - 12 - 16)));
    assert_eq!((used(&later), later.former()), (70, Some(Amount(1000))));
    later.count(&reading("b", 2, 90), on(date!(2027 - 01 - 15)));
    assert_eq!((used(&later), later.former()), (20, Some(Amount(70))));
}

#[test]
fn a_clock_that_goes_back_for_a_while_finds_the_month_again() {
    let mut ledger = ledger();
    ledger.count(&reading("b", 2, 50), on(date!(2026 - 10 - 20)));
    assert_eq!(used(&ledger), 1350, "all of October, and what was counted since");
    ledger.count(&reading("b", 2, 60), on(date!(2026 - 11 - 22)));
    assert_eq!((used(&ledger), ledger.former()), (1010, Some(Amount(350))));
    // So does one who travels west on the day of renewal.
    ledger.count(&reading("b", 2, 70), on(date!(2026 - 12 - 15)));
    ledger.count(&reading("b", 2, 80), on(date!(2026 - 12 - 14)));
    assert_eq!(used(&ledger), 1030);
    ledger.count(&reading("b", 2, 90), on(date!(2026 - 12 - 15)));
    assert_eq!((used(&ledger), ledger.former()), (20, Some(Amount(1020))));
}

/// On a machine that has been up for an hour.
fn hour(today: Date) -> Clock {
    Clock { today, uptime: Duration::from_secs(3600) }
}

#[test]
fn a_clock_that_lies_years_back_makes_no_month_of_all_that_were() {
    let mut ledger = ledger();
    let mut today = date!(2026 - 12 - 15);
    for (month, down) in (1..=12u64).zip((2800..).step_by(1000)) {
        ledger.count(&reading("a", 2, down), on(today));
        assert_eq!(used(&ledger), 1000, "month {month}");
        today = ledger.day.ends(today);
    }
    let present = ledger.usage();
    // The battery is empty, and nobody sets the clock: that would need an uplink.
    for clock in [early, hour] {
        ledger.count(&reading("b", 2, 5), clock(date!(1970 - 01 - 01)));
        assert_eq!(ledger.usage(), Usage { used: Amount(1005), ..present }, "as it was last believed");
    }
    // Nobody ever will. What is over is over, and it is renewed when a month has passed.
    let mut alone = ledger.clone();
    alone.look(ledger.day, on(date!(1970 - 01 - 02)));
    assert_eq!(alone.usage(), Usage { used: Amount(1005), renewed: Some(date!(1970 - 01 - 15)) });
    alone.count(&reading("b", 2, 7), on(date!(1970 - 01 - 15)));
    assert_eq!((used(&alone), alone.former()), (2, Some(Amount(1005))));
    alone.correct(Amount(9), on(date!(1970 - 01 - 15)));
    assert_eq!(used(&alone), 9);
    alone.look(Day::FIRST, on(date!(1970 - 01 - 20)));
    assert_eq!(used(&alone), 9);
    // It is set right after all.
    ledger.count(&reading("b", 2, 8), hour(today.previous_day().unwrap()));
    assert_eq!(ledger.usage(), Usage { used: Amount(1008), ..present });
}

#[test]
fn another_day_of_renewal_keeps_what_was_counted() {
    for (day, renewed) in
        [(1, date!(2026 - 12 - 01)), (20, date!(2026 - 12 - 20)), (31, date!(2026 - 11 - 30))]
    {
        let mut ledger = ledger();
        let day = Day::new(day).unwrap();
        ledger.look(day, early(date!(1970 - 01 - 01)));
        assert_eq!(ledger.usage().renewed, Some(date!(2026 - 12 - 15)), "not before the clock is believed");
        ledger.look(day, on(date!(2026 - 11 - 22)));
        assert_eq!(ledger.usage(), Usage { used: Amount(1000), renewed: Some(renewed) });
        ledger.look(day, on(renewed));
        assert_eq!((used(&ledger), ledger.former()), (0, Some(Amount(1000))));
    }
}

#[test]
fn what_is_corrected_counts_from_there_on() {
    let mut ledger = ledger();
    ledger.correct(Amount(12_000), on(date!(2026 - 11 - 21)));
    ledger.count(&reading("a", 2, 1801), on(date!(2026 - 11 - 22)));
    assert_eq!((used(&ledger), ledger.former()), (12_001, Some(Amount(300))));
    let mut blank = Ledger::new(Day::new(1).unwrap());
    blank.correct(Amount(7), early(date!(1970 - 01 - 01)));
    assert_eq!(blank.usage(), Usage { used: Amount(7), renewed: None });
    blank.look(blank.day, on(date!(2026 - 11 - 22)));
    assert_eq!(used(&blank), 7);
    // Also while a clock that was ahead is forgiven.
    ledger.count(&reading("a", 2, 1900), on(date!(2030 - 01 - 01)));
    ledger.look(ledger.day, on(date!(2026 - 11 - 22)));
    ledger.correct(Amount(5), on(date!(2026 - 11 - 22)));
    assert_eq!(used(&ledger), 5);
}

#[test]
fn what_is_corrected_early_in_a_boot_is_of_the_period_that_it_turns_out_to_be() {
    let mut ledger = ledger();
    ledger.count(&reading("b", 2, 5), early(date!(2026 - 12 - 15)));
    ledger.correct(Amount(700), early(date!(2026 - 12 - 15)));
    assert_eq!(used(&ledger), 700);
    let mut wrong = ledger.clone();
    ledger.count(&reading("b", 2, 6), on(date!(2026 - 12 - 15)));
    assert_eq!(ledger.usage(), Usage { used: Amount(701), renewed: Some(date!(2027 - 01 - 15)) });
    wrong.count(&reading("b", 2, 6), on(date!(2026 - 12 - 14)));
    assert_eq!(wrong.usage(), Usage { used: Amount(701), renewed: Some(date!(2026 - 12 - 15)) });
}

#[test]
fn a_year_is_remembered_and_no_more() {
    let mut ledger = ledger();
    let mut today = date!(2026 - 12 - 15);
    for _ in 0..30 {
        ledger.look(ledger.day, on(today));
        today = ledger.day.ends(today);
    }
    assert_eq!(ledger.counts.len(), REMEMBERED + 1);
}

/// What can happen to a machine; each with what goes over the link meanwhile.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The counters are read.
    Read,
    /// The daemon is killed and started anew: it goes on with what was last written down.
    Killed,
    /// What was counted is written down.
    Written,
    /// The device is deleted and made again; the traffic comes after.
    Remade,
    /// A driver begins to count anew; the traffic comes after.
    Reset,
    /// The machine is rebooted in good order, with a clock that nobody has set.
    Rebooted,
    /// The clock is set, so many days ahead or back.
    Set(i64),
    /// Days go by.
    Passed(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Read),
        2 => Just(Step::Killed),
        2 => Just(Step::Written),
        1 => Just(Step::Remade),
        1 => Just(Step::Reset),
        1 => Just(Step::Rebooted),
        2 => (-800i64..800).prop_map(Step::Set),
        2 => (0u8..40).prop_map(Step::Passed),
    ]
}

/// Everything that a ledger has, in whatever period.
fn total(ledger: &Ledger) -> u64 {
    ledger.counts.values().map(|counted| counted.0).sum::<u64>() + ledger.unplaced.0
}

/// A machine, its link and its clock.
struct Machine {
    ledger: Ledger,
    written: Ledger,
    boot: u32,
    index: u32,
    down: u64,
    clock: Clock,
}

impl Machine {
    fn read(&mut self) {
        let boot = self.boot.to_string();
        let reading = Reading { boot, ..reading("", self.index, self.down) };
        self.ledger.count(&reading, self.clock);
    }

    fn take(&mut self, step: Step, traffic: u64) {
        match step {
            Step::Read => {}
            Step::Killed => self.ledger = self.written.clone(),
            Step::Written => self.written = self.ledger.clone(),
            Step::Remade => {
                // Whoever is killed now has not seen the last of the old one.
                self.read();
                self.written = self.ledger.clone();
                (self.index, self.down) = (self.index + 1, 0);
            }
            Step::Reset => {
                self.read();
                // It is read before it is above what it was, as it is each second.
                self.down = 0;
                self.read();
                self.written = self.ledger.clone();
            }
            Step::Rebooted => {
                self.read();
                self.written = self.ledger.clone();
                (self.boot, self.index, self.down) = (self.boot + 1, 2, 0);
                self.clock = early(self.clock.today);
            }
            Step::Set(days) => self.clock.today += time::Duration::days(days),
            Step::Passed(days) => {
                self.clock.today += time::Duration::days(days.into());
                self.clock.uptime += u32::from(days) * DAY;
            }
        }
        self.down += traffic;
    }
}

proptest! {
    #[test]
    fn nothing_is_lost_or_counted_twice_whatever_begins_anew(
        steps in prop::collection::vec((step(), 0u64..1000), 0..60),
        day in 1u8..=31,
    ) {
        let ledger = Ledger::new(Day::new(day).unwrap());
        let clock = on(date!(2026 - 11 - 22));
        let mut machine = Machine { written: ledger.clone(), ledger, boot: 1, index: 2, down: 1_000_000, clock };
        machine.read();
        machine.written = machine.ledger.clone();
        let (mut all, mut forgotten) = (0, false);
        for (step, traffic) in steps {
            machine.take(step, traffic);
            all += traffic;
            let before = machine.ledger.clone();
            machine.read();
            let after = &machine.ledger;
            // What is older than a year may go.
            forgotten |= after.counts.len() > REMEMBERED;
            prop_assert!(total(after) == all || (forgotten && total(after) < all), "after {:?}", step);
            prop_assert!(used(after) <= all);
            if after.began() == before.began() {
                prop_assert!(used(after) >= used(&before), "it went back within a period, after {:?}", step);
            }
            let written = serde_json::to_string(after).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Ledger>(&written).unwrap(), after);
        }
    }
}
