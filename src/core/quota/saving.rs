//! When a book is worth to be written down, and where: flash wears, and a restart is to lose nothing.
//!
//! The kernel goes on counting while nobody looks, so even an old book loses nothing to a daemon that is killed; only
//! a device that goes, or power that fails, takes what was not written.

use std::time::{Duration, Instant};

use super::{Book, Usage};
use crate::core::layout::Slot;

/// Where a book is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In memory, where it outlives the daemon.
    Memory,
    /// In memory and on disk, where it outlives the machine.
    Disk,
}

/// In memory this often at most.
const BRIEFLY: Duration = Duration::from_secs(5);
/// On disk this often at most, but for what is worth more.
const SELDOM: Duration = Duration::from_secs(600);
/// Also this often where much has been used since.
const SOMETIMES: Duration = Duration::from_secs(60);
/// Where the disk has refused it, it is asked again after so long.
const AGAIN: Duration = Duration::from_secs(60);
/// So many bytes are much.
const MUCH: u64 = 100_000_000;

/// What was written down, and when.
#[derive(Debug, Clone)]
pub struct Saving {
    in_memory: Book,
    on_disk: Book,
    memory_at: Option<Instant>,
    disk_at: Instant,
    /// When the disk last refused it.
    refused: Option<Instant>,
}

impl Saving {
    /// Begins with a book that was just read there; what was not on disk has yet to get there.
    pub fn new(book: Book, from: Option<Place>, now: Instant) -> Self {
        let on_disk = if from == Some(Place::Disk) { book.clone() } else { Book::default() };
        Saving { in_memory: book, on_disk, memory_at: None, disk_at: now, refused: None }
    }

    /// Where a book is to be written now, if anywhere; `stopping` says that nobody will ask again.
    pub fn due(&self, book: &Book, stopping: bool, now: Instant) -> Option<Place> {
        let age = now.saturating_duration_since(self.disk_at);
        let worth = stopping || age >= SELDOM || (age >= SOMETIMES && self.used_since(book) >= MUCH);
        let fresh = self.memory_at.is_some_and(|at| now.saturating_duration_since(at) < BRIEFLY);
        let refused = self.refused.is_some_and(|at| now.saturating_duration_since(at) < AGAIN);
        if *book != self.on_disk && (worth || self.is_turned(book)) && (stopping || !refused) {
            Some(Place::Disk)
        } else {
            (*book != self.in_memory && (stopping || !fresh)).then_some(Place::Memory)
        }
    }

    /// It was tried; what failed is tried again after a while.
    pub fn tried(&mut self, book: &Book, place: Place, done: bool, now: Instant) {
        self.memory_at = Some(now);
        if done {
            self.in_memory = book.clone();
        }
        match (place, done) {
            (Place::Disk, true) => (self.on_disk, self.disk_at, self.refused) = (book.clone(), now, None),
            (Place::Disk, false) => self.refused = Some(now),
            (Place::Memory, _) => {}
        }
    }

    /// Something is otherwise that does not change with every byte: a period, who is kept; or less was used than thought.
    fn is_turned(&self, book: &Book) -> bool {
        let (before, now) = (self.on_disk.usages(), book.usages());
        let turned = |slot: &Slot, usage: &Usage| {
            before.get(slot).is_none_or(|was| was.renewed != usage.renewed || was.used > usage.used)
        };
        before.len() != now.len() || now.iter().any(|(slot, usage)| turned(slot, usage))
    }

    fn used_since(&self, book: &Book) -> u64 {
        let before = self.on_disk.usages();
        let grown = book.usages().into_iter().map(|(slot, usage)| {
            let written = before.get(&slot).map_or(0, |before| before.used.0);
            usage.used.0.saturating_sub(written)
        });
        grown.max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use time::macros::date;

    use super::*;
    use crate::core::balance::Bytes;
    use crate::core::quota::{Amount, Clock, Day, Line, Quota, Reading};

    const SECOND: Duration = Duration::from_secs(1);

    /// A book after so many bytes, on this day.
    fn book(before: &Book, bytes: u64, today: time::Date) -> Book {
        let slot = Slot::new(1).unwrap();
        let entry = serde_json::json!({
            "slot": 1, "identity": { "profile": "x" }, "name": "x", "interface": "eth0", "seen": 1
        });
        let reading = Reading { boot: "a".into(), index: 2, newest: 2, bytes: Bytes { down: bytes, up: 0 } };
        let quota = Quota { limit: Amount(1 << 40), day: Day::FIRST, soft: 80 };
        let line = Line { slot, quota, reading: Some(reading) };
        let mut book = before.clone();
        let clock = Clock { today, uptime: 3600 * SECOND };
        book.count(&[serde_json::from_value(entry).unwrap()], &[line], clock);
        book
    }

    #[test]
    fn what_changes_all_the_time_wears_no_flash() {
        let (start, today) = (Instant::now(), date!(2026 - 11 - 22));
        let first = book(&Book::default(), 0, today);
        let mut saving = Saving::new(first.clone(), Some(Place::Disk), start);
        let (mut memory, mut disk) = (0, 0);
        let mut last = first;
        for second in 1..=3600 {
            let now = start + second * SECOND;
            last = book(&last, u64::from(second) * 1000, today);
            let due = saving.due(&last, false, now);
            due.into_iter().for_each(|place| saving.tried(&last, place, true, now));
            memory += u32::from(due == Some(Place::Memory));
            disk += u32::from(due == Some(Place::Disk));
        }
        assert_eq!((memory, disk), (715, 6), "each five seconds, and each ten minutes");
        assert_eq!(saving.due(&last, true, start + 3600 * SECOND), None, "all of it was written this second");
        let more = book(&last, 4_000_000, today);
        assert_eq!(saving.due(&more, false, start + 3601 * SECOND), None);
        assert_eq!(saving.due(&more, true, start + 3601 * SECOND), Some(Place::Disk));
    }

    #[test]
    fn what_was_only_in_memory_gets_to_disk_at_once() {
        let (start, today) = (Instant::now(), date!(2026 - 11 - 22));
        let read = book(&Book::default(), 5, today);
        let due = |from| Saving::new(read.clone(), from, start).due(&read, false, start);
        assert_eq!(due(Some(Place::Memory)), Some(Place::Disk), "the daemon was killed");
        assert_eq!(
            [
                due(Some(Place::Disk)),
                Saving::new(Book::default(), None, start).due(&Book::default(), true, start)
            ],
            [None; 2]
        );
    }

    #[test]
    fn a_disk_that_refuses_is_asked_each_minute() {
        let (start, today) = (Instant::now(), date!(2026 - 11 - 22));
        let mut saving = Saving::new(Book::default(), None, start);
        let (mut memory, mut disk, mut last) = (0, 0, Book::default());
        for second in 0..300 {
            let now = start + second * SECOND;
            last = book(&last, u64::from(second), today);
            let due = saving.due(&last, false, now);
            due.into_iter().for_each(|place| saving.tried(&last, place, place == Place::Memory, now));
            memory += u32::from(due == Some(Place::Memory));
            disk += u32::from(due == Some(Place::Disk));
        }
        assert_eq!(disk, 5);
        assert!((50..=60).contains(&memory), "{memory}: it outlives the daemon meanwhile");
        assert_eq!(saving.due(&last, true, start + 301 * SECOND), Some(Place::Disk), "the last chance");
    }

    #[test]
    fn what_matters_is_on_disk_at_once() {
        let (start, today) = (Instant::now(), date!(2026 - 11 - 22));
        let first = book(&Book::default(), 0, today);
        let saving = Saving::new(first.clone(), Some(Place::Disk), start);
        let due = |book: &Book, seconds| saving.due(book, false, start + seconds * SECOND);
        assert_eq!(due(&first, 1000), None, "nothing is new");
        assert_eq!(due(&book(&first, 1, date!(2026 - 12 - 01)), 1), Some(Place::Disk), "a new period");
        assert_eq!(due(&Book::default(), 1), Some(Place::Disk), "it is forgotten");
        let much = book(&first, 2 * MUCH, today);
        assert_eq!(due(&much, 30), Some(Place::Memory));
        assert_eq!(due(&much, 60), Some(Place::Disk));
        assert_eq!(due(&book(&first, 1, today), 60), Some(Place::Memory));
    }
}
