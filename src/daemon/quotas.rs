//! Keeps the book of quotas: gives it counters, the date and the time.
//!
//! Decides when to look; what follows from a count, and when it is worth to be written down, is decided in
//! [`crate::core::quota`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use tracing::warn;

use crate::core::layout::Slot;
use crate::core::net::UplinkName;
use crate::core::plan::Plan;
use crate::core::quota::{Allowance, Amount, Book, Clock, Line, Place, Reading, Saving, Usage};
use crate::core::uplink::Uplink;
use crate::kernel::counters::{self, Links};
use crate::state::{self, Directories};
use crate::status::{QuotaStatus, Status};
use crate::world::chain;

/// How often the counters are looked at where somebody has a quota: so long a limit is overrun.
const SAMPLING: Duration = Duration::from_secs(1);

/// All that is counted.
pub(super) struct Quotas {
    dirs: Directories,
    book: Book,
    saving: Saving,
    boot: String,
    /// The highest interface index at the last round.
    newest: u32,
    /// When the counters are to be looked at; none where nobody has a quota.
    due: Option<Instant>,
    /// Why the book could not be written, while it waits for that.
    unsaved: Option<String>,
}

impl Quotas {
    /// Goes on with what was counted before.
    pub(super) fn new(dirs: &Directories) -> Self {
        let read = state::load_quotas(dirs);
        let mut book = read.unwrap_or_else(|error| {
            warn!("what was counted against quotas is lost: {}", chain(&error));
            Book::default()
        });
        let saving = Saving::new(book.clone(), Instant::now());
        book.look(clock());
        let boot = counters::boot();
        Quotas { dirs: dirs.clone(), book, saving, boot, newest: u32::MAX, due: None, unsaved: None }
    }

    /// What a plan should go by.
    pub(super) fn usages(&self) -> BTreeMap<Slot, Usage> {
        self.book.usages()
    }

    /// Takes in what a round found.
    pub(super) fn follow(&mut self, plan: &Plan) {
        self.book.follow(plan.slots.entries(), &plan.uplinks);
        self.newest = counters::newest_index();
        let any = plan.uplinks.iter().any(|uplink| uplink.allowance.is_some());
        self.due = any.then(|| self.due.unwrap_or_else(Instant::now));
    }

    /// Looks at nothing any more, until the next round. The counters go on.
    pub(super) fn rest(&mut self) {
        self.due = None;
    }

    /// Waits until the counters are to be looked at. May be dropped while it waits.
    pub(super) async fn due(&self) {
        super::probing::sleep_until(self.due).await;
    }

    /// Looks at the counters; true where a plan would come out otherwise than the last one.
    pub(super) fn sample(&mut self, plan: &Plan) -> bool {
        self.due = Some(Instant::now() + SAMPLING);
        let links = Links::read();
        let line = |uplink: &Uplink| {
            let bytes = links.bytes(&uplink.dev.name);
            let reading = bytes.map(|bytes| Reading {
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
        let usages = self.usages();
        let now = |allowance: Allowance, slot| Allowance::of(allowance.quota, usages.get(&slot));
        plan.uplinks.iter().any(|u| u.allowance.is_some_and(|allowance| now(allowance, u.slot) != allowance))
    }

    /// Says how much of a quota was used. What cannot be written down is not done.
    pub(super) fn correct(&mut self, slot: Slot, name: &UplinkName, used: Amount) -> Result<(), String> {
        let mut book = self.book.clone();
        if !book.correct(slot, used) {
            return Err(format!("{name} has no quota"));
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
        state::save_quotas(&self.dirs, place, book)?;
        self.saving.written(book, place, Instant::now());
        Ok(())
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
    }
}

/// The date where the machine is, as far as it knows, and for how long it has been up.
fn clock() -> Clock {
    let uptime = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
    Clock { today: crate::clock::local().date(), uptime }
}
