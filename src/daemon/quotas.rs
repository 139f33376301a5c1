//! Keeps the book of quotas: gives it counters, the date and the time.
//!
//! What follows from a count, and when it is worth to be written down, is decided in [`crate::core::quota`]; when to look,
//! by [`super::sampler`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use tracing::warn;

use crate::core::layout::Slot;
use crate::core::noted::Noted;
use crate::core::plan::Plan;
use crate::core::quota::{Allowance, Amount, Book, Clock, Line, Place, Reading, Saving, Usage};
use crate::core::uplink::Uplink;
use crate::kernel::counters::{self, Links};
use crate::state::{self, Counted, Directories};
use crate::status::{QuotaStatus, Status};
use crate::world::chain;

/// All that is counted.
pub(super) struct Quotas {
    dirs: Directories,
    book: Book,
    saving: Saving,
    boot: String,
    /// The highest interface index at the last round.
    newest: u32,
    /// What a round was last asked to go by, as long as it does not.
    told: BTreeMap<Slot, Allowance>,
    /// Why the book could not be written, while it waits for that.
    unsaved: Option<String>,
    /// What of it could not be read.
    lost: Vec<String>,
}

impl Quotas {
    /// Goes on with what was counted before.
    pub(super) fn new(dirs: &Directories) -> Self {
        let Counted { mut book, from, lost } = state::load_quotas(dirs);
        lost.iter().for_each(|why| warn!("{why}"));
        let saving = Saving::new(book.clone(), from, Instant::now());
        book.look(clock());
        Quotas {
            dirs: dirs.clone(),
            book,
            saving,
            boot: counters::boot(),
            newest: u32::MAX,
            told: BTreeMap::new(),
            unsaved: None,
            lost,
        }
    }

    /// What a plan should go by.
    pub(super) fn usages(&self) -> Noted<Usage> {
        self.book.noted_usages()
    }

    /// Takes in what a round found.
    pub(super) fn follow(&mut self, plan: &Plan) {
        self.book.follow(plan.slots.entries(), &plan.uplinks);
        self.newest = counters::newest_index();
        // Who has gone is looked at no more.
        self.save(false);
    }

    /// Whether there is something to count.
    pub(super) fn is_needed(plan: &Plan) -> bool {
        plan.uplinks.iter().any(|uplink| uplink.allowance.is_some())
    }

    /// Takes in the counters; true where a plan would come out otherwise than the last one.
    pub(super) fn sample(&mut self, links: &Links, plan: &Plan) -> bool {
        let line = |uplink: &Uplink| {
            let reading = links.bytes(&uplink.dev).map(|bytes| Reading {
                boot: self.boot.clone(),
                index: uplink.dev.index.0,
                newest: self.newest,
                bytes,
            });
            Some(Line { slot: uplink.slot, quota: uplink.allowance?.quota, reading })
        };
        let lines: Vec<Line> = plan.uplinks.iter().filter_map(line).collect();
        self.book.count(plan.slots.entries(), &lines, clock());
        self.save(false);
        self.tell(plan)
    }

    /// Whether something is otherwise; once, as it is the round's own business when to try again what fails.
    fn tell(&mut self, plan: &Plan) -> bool {
        let usages = self.book.usages();
        let now = plan.uplinks.iter().filter_map(|uplink| {
            let planned = uplink.allowance?;
            let now = Allowance::of(planned.quota, usages.get(&uplink.slot));
            (now != planned).then_some((uplink.slot, now))
        });
        let now: BTreeMap<Slot, Allowance> = now.collect();
        let news = now.iter().any(|(slot, allowance)| self.told.get(slot) != Some(allowance));
        self.told = now;
        news
    }

    /// Says how much of a quota was used. What cannot be written down is not done.
    pub(super) fn correct(&mut self, slot: Slot, used: Amount, plan: &Plan) -> Result<(), String> {
        let mut book = self.book.clone();
        let uplink = plan.uplinks.iter().find(|uplink| uplink.slot == slot);
        // It may not have been counted yet, and it may have no quota any more.
        let quota = uplink.map(|uplink| uplink.allowance.map(|allowance| allowance.quota));
        let line = quota.flatten().map(|quota| Line { slot, quota, reading: None });
        book.count(plan.slots.entries(), line.as_slice(), clock());
        if quota == Some(None) || !book.correct(slot, used, clock()) {
            let entry = plan.slots.entries().iter().find(|entry| entry.slot == slot);
            return Err(format!("{} has no quota", entry.map_or("it", |entry| entry.name.as_str())));
        }
        self.write(&book, Place::Disk).map_err(|error| chain(&error))?;
        self.book = book;
        Ok(())
    }

    /// Writes down what is worth it. What cannot be written is tried again.
    pub(super) fn save(&mut self, stopping: bool) {
        let Some(place) = self.saving.due(&self.book, stopping, Instant::now()) else { return };
        let book = self.book.clone();
        let written = self.write(&book, place);
        let unsaved = written
            .err()
            .map(|error| format!("what is counted against quotas is not kept: {}", chain(&error)));
        if let Some(why) = unsaved.as_ref().filter(|why| self.unsaved.as_ref() != Some(why)) {
            warn!("{why}");
        }
        self.unsaved = unsaved;
    }

    fn write(&mut self, book: &Book, place: Place) -> Result<(), state::Error> {
        let written = state::save_quotas(&self.dirs, place, book);
        self.saving.tried(book, place, written.is_ok(), Instant::now());
        written
    }

    /// Adds to a status what has been used of each quota.
    pub(super) fn describe(&self, plan: &Plan, status: &mut Status) {
        for told in &mut status.uplinks {
            let uplink = plan.uplinks.iter().find(|uplink| uplink.slot.get() == told.slot);
            told.quota = uplink.and_then(|uplink| {
                Some(QuotaStatus::of(&uplink.allowance?.quota, self.book.ledger(uplink.slot)?))
            });
        }
        status.notes.extend(self.unsaved.clone());
        status.alerts.extend(self.lost.iter().cloned());
    }
}

/// The date where the machine is, as far as it knows, and for how long it has been up.
fn clock() -> Clock {
    let uptime = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
    Clock { today: crate::clock::local().date(), uptime }
}
