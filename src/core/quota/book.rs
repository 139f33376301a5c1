//! The ledgers of all uplinks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ledger::{Clock, Ledger};
use super::reading::Reading;
use super::{Amount, Quota, Usage};
use crate::core::layout::Slot;
use crate::core::noted::Noted;
use crate::core::slots::Entry;
use crate::core::uplink::Uplink;

/// What is counted of every uplink that has, or had, a quota.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Book(Noted<Ledger>);

/// An uplink that is present and has a quota, and the counters of its link.
#[derive(Debug, Clone)]
pub struct Line {
    /// Its slot.
    pub slot: Slot,
    /// Its quota.
    pub quota: Quota,
    /// The counters; none where they cannot be read.
    pub reading: Option<Reading>,
}

impl Book {
    /// What has been used of every quota.
    pub fn usages(&self) -> BTreeMap<Slot, Usage> {
        self.0.iter().map(|(slot, ledger)| (slot, ledger.usage())).collect()
    }

    /// The same, with whose it is.
    pub fn noted_usages(&self) -> Noted<Usage> {
        self.0.filter_map(|ledger| Some(ledger.usage()))
    }

    /// Takes in what another has of those that are not in this one.
    pub fn join(&mut self, other: Book) {
        self.0.join(other.0);
    }

    /// The ledger of an uplink.
    pub fn ledger(&self, slot: Slot) -> Option<&Ledger> {
        self.0.get(slot)
    }

    /// Takes in who is remembered, and who is present.
    ///
    /// Who is present says whose counters go on: two networks of one Wi-Fi interface share them, and what an uplink
    /// carries while it has no quota is never counted.
    pub fn follow(&mut self, entries: &[Entry], present: &[Uplink]) {
        self.0.follow(entries);
        for entry in entries {
            let Some(ledger) = self.0.get_mut(entry.slot) else { continue };
            let goes_on = match present.iter().find(|uplink| uplink.slot == entry.slot) {
                Some(uplink) => uplink.allowance.is_some(),
                None => present.iter().all(|other| other.dev.name.as_str() != entry.interface),
            };
            if !goes_on {
                ledger.leave();
            }
        }
    }

    /// Looks at the clock alone.
    pub fn look(&mut self, clock: Clock) {
        self.0.values_mut().for_each(|ledger| ledger.look(ledger.day(), clock));
    }

    /// Takes in what the counters of those that are present say.
    pub fn count(&mut self, entries: &[Entry], lines: &[Line], clock: Clock) {
        for line in lines {
            let entry = entries.iter().find(|entry| entry.slot == line.slot);
            let Some(entry) = entry else { continue };
            let ledger = self.0.or_insert_with(entry, || Ledger::new(line.quota.day));
            ledger.look(line.quota.day, clock);
            if let Some(reading) = &line.reading {
                ledger.count(reading, clock);
            }
        }
    }

    /// Says how much of a quota was used; false where nothing is counted.
    pub fn correct(&mut self, slot: Slot, used: Amount, clock: Clock) -> bool {
        self.0.get_mut(slot).map(|ledger| ledger.correct(used, clock)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use time::macros::date;

    use super::*;
    use crate::core::balance::Bytes;
    use crate::core::net::IfName;
    use crate::core::quota::{Allowance, Day};
    use crate::core::slots::Identity;
    use crate::core::uplink::Leg;

    const QUOTA: Quota = Quota { limit: Amount(1_000_000), day: Day::FIRST, soft: 80 };

    fn entry(slot: u8, identity: Identity) -> Entry {
        let entry = serde_json::json!({
            "slot": slot, "identity": identity, "name": "x", "interface": "eth0", "seen": 1
        });
        serde_json::from_value(entry).unwrap()
    }

    fn profile(slot: u8, uuid: &str) -> Entry {
        entry(slot, Identity::Profile(uuid.into()))
    }

    fn line(slot: u8, index: u32, down: u64) -> Line {
        let reading = Reading { boot: "a".into(), index, newest: 9, bytes: Bytes { down, up: 0 } };
        Line { slot: Slot::new(slot).unwrap(), quota: QUOTA, reading: Some(reading) }
    }

    fn used(book: &Book) -> Vec<u64> {
        book.usages().values().map(|usage| usage.used.0).collect()
    }

    fn clock() -> Clock {
        Clock { today: date!(2026 - 11 - 22), uptime: Duration::from_secs(3600) }
    }

    /// An uplink that is present on an interface, with a quota or without.
    fn present(slot: u8, interface: &str, limited: bool) -> Uplink {
        let allowance = limited.then(|| Allowance::of(QUOTA, None));
        let mut uplink = Uplink { allowance, ..Uplink::example(slot, Leg::default()) };
        uplink.dev.name = IfName::new(interface).unwrap();
        uplink
    }

    /// Follows who is present, and looks at the counters as the daemon does: of those that have a quota.
    fn live(book: &mut Book, uplinks: &[Uplink], reading: Option<Reading>) -> Vec<u64> {
        let entries = [profile(1, "home"), profile(2, "phone")];
        book.follow(&entries, uplinks);
        let limited = uplinks.iter().filter(|uplink| uplink.allowance.is_some());
        let line = |uplink: &Uplink| Line { slot: uplink.slot, quota: QUOTA, reading: reading.clone() };
        book.count(&entries, &limited.map(line).collect::<Vec<_>>(), clock());
        used(book)
    }

    #[test]
    fn two_networks_of_one_interface_do_not_count_each_others_traffic() {
        let mut book = Book::default();
        let mut by = |slot, limited, down| {
            live(&mut book, &[present(slot, "eth0", limited)], line(slot, 3, down).reading)
        };
        assert_eq!(by(1, true, 1000), [0]);
        assert_eq!(by(1, true, 1500), [500]);
        assert_eq!(by(2, true, 1600), [500, 0]);
        assert_eq!(by(2, true, 1700), [500, 100]);
        assert_eq!(by(1, true, 1800), [500, 100]);
        assert_eq!(by(1, true, 1850), [550, 100]);
        // Of one without a quota nobody looks at the counters.
        assert_eq!(by(2, false, 9000), [550, 100]);
        assert_eq!(by(1, true, 9100), [550, 100]);
        assert_eq!(by(1, true, 9200), [650, 100]);
        assert_eq!(live(&mut book, &[present(1, "eth0", true)], None), [650, 100]);
        assert_eq!(live(&mut book, &[], None), [650, 100]);
        // A reboot, in which the other comes first.
        let boot =
            |down| Some(Reading { boot: "b".into(), index: 3, newest: 9, bytes: Bytes { down, up: 0 } });
        assert_eq!(live(&mut book, &[present(2, "eth0", false)], boot(70_000)), [650, 100]);
        assert_eq!(live(&mut book, &[present(1, "eth0", true)], boot(80_000)), [650, 100]);
        assert_eq!(live(&mut book, &[present(1, "eth0", true)], boot(80_001)), [651, 100]);
    }

    #[test]
    fn what_is_carried_without_a_quota_is_never_counted() {
        let mut book = Book::default();
        let mut by =
            |limited, down| live(&mut book, &[present(1, "eth0", limited)], line(1, 3, down).reading);
        assert_eq!(by(true, 1000), [0]);
        assert_eq!(by(false, 5000), [0]);
        assert_eq!(by(true, 9000), [0]);
        assert_eq!(by(true, 9001), [1]);
        // Away for a moment, with nobody else on its interface, it goes on.
        assert_eq!(live(&mut book, &[present(2, "wwan0", false)], None), [1]);
        assert_eq!(live(&mut book, &[present(1, "eth0", true)], line(1, 3, 9011).reading), [11]);
    }

    #[test]
    fn what_was_counted_belongs_to_the_uplink_and_not_to_its_slot() {
        let mut book = Book::default();
        book.count(&[profile(1, "home")], &[line(1, 3, 0)], clock());
        book.count(&[profile(1, "home")], &[line(1, 3, 70)], clock());
        let mut follow = |entries: &[Entry]| {
            book.follow(entries, &[]);
            used(&book)
        };
        assert_eq!(follow(&[profile(1, "home"), profile(2, "phone")]), [70]);
        for name in ["lte", "mobile"] {
            let named = Identity::Name(name.to_owned().try_into().unwrap());
            assert_eq!(follow(&[entry(1, named)]), [70], "it got a name");
        }
        assert_eq!(follow(&[profile(1, "home")]), [70]);
        assert_eq!(follow(&[profile(1, "phone")]), [0; 0], "another in its slot");
        assert!(!book.correct(Slot::new(1).unwrap(), Amount(5), clock()));
    }
}
