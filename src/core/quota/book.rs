//! The ledgers of all uplinks, by slot: a slot is an uplink's for as long as it is remembered.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ledger::{Clock, Ledger};
use super::reading::Reading;
use super::{Amount, Quota, Usage};
use crate::core::layout::Slot;
use crate::core::slots::{Entry, Identity};

/// What is counted of every uplink that has, or had, a quota.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Book(BTreeMap<Slot, Kept>);

/// One ledger, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    identity: Identity,
    ledger: Ledger,
}

/// An uplink that is present, and the counters of its link.
#[derive(Debug, Clone)]
pub struct Line {
    /// Its slot.
    pub slot: Slot,
    /// Its quota, where it has one.
    pub quota: Option<Quota>,
    /// The counters; none where they cannot be read.
    pub reading: Option<Reading>,
}

impl Book {
    /// What has been used of every quota.
    pub fn usages(&self) -> BTreeMap<Slot, Usage> {
        self.0.iter().map(|(slot, kept)| (*slot, kept.ledger.usage())).collect()
    }

    /// The ledger of an uplink.
    pub fn ledger(&self, slot: Slot) -> Option<&Ledger> {
        self.0.get(&slot).map(|kept| &kept.ledger)
    }

    /// Takes in who is remembered: who is forgotten leaves nothing, and who gets the slot of another begins anew.
    ///
    /// Of one uplink more or less may be known, and it may be renamed: only two profiles are two uplinks, as for slots.
    pub fn follow(&mut self, entries: &[Entry]) {
        self.0.retain(|slot, kept| {
            let Some(entry) = entries.iter().find(|entry| entry.slot == *slot) else { return false };
            let profiles = (&entry.identity, &kept.identity);
            let another =
                matches!(profiles, (Identity::Profile(one), Identity::Profile(other)) if one != other);
            kept.identity = entry.identity.clone();
            !another
        });
    }

    /// Looks at the clock alone.
    pub fn look(&mut self, clock: Clock) {
        self.0.values_mut().for_each(|kept| kept.ledger.look(kept.ledger.day(), clock));
    }

    /// Takes in what the counters of those that are present say.
    pub fn count(&mut self, entries: &[Entry], lines: &[Line], clock: Clock) {
        for line in lines {
            let entry = entries.iter().find(|entry| entry.slot == line.slot);
            let (Some(quota), Some(entry)) = (line.quota, entry) else { continue };
            let anew = || Kept { identity: entry.identity.clone(), ledger: Ledger::new(quota.day) };
            let Kept { ledger, .. } = self.0.entry(line.slot).or_insert_with(anew);
            ledger.look(quota.day, clock);
            if let Some(reading) = &line.reading {
                ledger.count(reading, clock);
            }
        }
        // Two networks of one Wi-Fi interface share its counters.
        for (slot, Kept { ledger, .. }) in &mut self.0 {
            let Some(read) = ledger.read() else { continue };
            let others = lines.iter().filter(|line| line.slot != *slot);
            if others.filter_map(|line| line.reading.as_ref()).any(|reading| reading.is_of(read)) {
                ledger.leave();
            }
        }
    }

    /// Says how much of a quota was used; false where nothing is counted.
    pub fn correct(&mut self, slot: Slot, used: Amount) -> bool {
        self.0.get_mut(&slot).map(|kept| kept.ledger.correct(used)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use time::macros::date;

    use super::*;
    use crate::core::balance::Bytes;
    use crate::core::quota::Day;

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
        Line { slot: Slot::new(slot).unwrap(), quota: Some(QUOTA), reading: Some(reading) }
    }

    fn used(book: &Book) -> Vec<u64> {
        book.usages().values().map(|usage| usage.used.0).collect()
    }

    fn clock() -> Clock {
        Clock { today: date!(2026 - 11 - 22), uptime: Duration::from_secs(3600) }
    }

    #[test]
    fn two_networks_of_one_interface_do_not_count_each_others_traffic() {
        let entries = [profile(1, "home"), profile(2, "phone")];
        let mut book = Book::default();
        let mut count = |lines: &[Line]| {
            book.count(&entries, lines, clock());
            used(&book)
        };
        assert_eq!(count(&[line(1, 3, 1000)]), [0]);
        assert_eq!(count(&[line(1, 3, 1500)]), [500]);
        assert_eq!(count(&[line(2, 3, 1600)]), [500, 0]);
        assert_eq!(count(&[line(2, 3, 1700)]), [500, 100]);
        assert_eq!(count(&[line(1, 3, 1800)]), [500, 100]);
        assert_eq!(count(&[line(1, 3, 1850)]), [550, 100]);
        let unlimited = Line { quota: None, ..line(2, 3, 9000) };
        assert_eq!(count(&[unlimited]), [550, 100]);
        assert_eq!(count(&[line(1, 3, 9100)]), [550, 100]);
        assert_eq!(count(&[Line { reading: None, ..line(1, 3, 0) }]), [550, 100]);
    }

    #[test]
    fn what_was_counted_belongs_to_the_uplink_and_not_to_its_slot() {
        let mut book = Book::default();
        book.count(&[profile(1, "home")], &[line(1, 3, 0)], clock());
        book.count(&[profile(1, "home")], &[line(1, 3, 70)], clock());
        let mut follow = |entries: &[Entry]| {
            book.follow(entries);
            used(&book)
        };
        assert_eq!(follow(&[profile(1, "home"), profile(2, "phone")]), [70]);
        for name in ["lte", "mobile"] {
            let named = Identity::Name(name.to_owned().try_into().unwrap());
            assert_eq!(follow(&[entry(1, named)]), [70], "it got a name");
        }
        assert_eq!(follow(&[profile(1, "home")]), [70]);
        assert_eq!(follow(&[profile(1, "phone")]), [0; 0], "another in its slot");
        assert!(!book.correct(Slot::new(1).unwrap(), Amount(5)));
    }
}
