//! Keeps a monitor for each family of each uplink: gives it answers, counters and the time, sends what it asks for.
//!
//! Decides when to look at what; what it means is decided in [`crate::core::health`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use tokio::task::JoinSet;
use tracing::info;

use super::metering::Latencies;
use crate::core::change::Change;
use crate::core::health::{
    Cost, Damping, Health, Leaving, Manual, Monitor, Request, Standing, Subject, Vacated,
};
use crate::core::layout::Slot;
use crate::core::net::Family;
use crate::core::plan::Plan;
use crate::core::probe::{Kind, defaults, portal_checks};
use crate::core::rule::Selector;
use crate::core::uplink::{Gateway, Leg, State, Uplink};
use crate::kernel::counters::Links;
use crate::probes::{self, Answer, Way};
use crate::status::{HealthStatus, Status};

/// One family of one uplink.
type Key = (Slot, Family);

/// A monotonic clock that has fallen behind the one which counts sleep by so much has slept.
const SLEPT: Duration = Duration::from_millis(500);

/// All that is under observation.
#[derive(Default)]
pub(super) struct Probing {
    watched: BTreeMap<Key, Watched>,
    manual: BTreeMap<Slot, Manual>,
    leaving: Leaving,
    vacated: Vacated,
    /// What is held against those that are away just now.
    away: BTreeMap<Key, Damping>,
    asked: JoinSet<(Key, u64, Answer)>,
    /// What the last plan went by.
    told: Health,
    slept: Option<Duration>,
    /// How many monitors there were.
    born: u64,
}

struct Watched {
    monitor: Monitor,
    way: Way,
}

impl Probing {
    /// Begins with what was decided by hand since the machine was started.
    pub(super) fn new(manual: BTreeMap<Slot, Manual>) -> Self {
        Probing { manual, ..Probing::default() }
    }

    /// What is known of health, for a plan to go by.
    pub(super) fn health(&self) -> Health {
        let now = Instant::now();
        let opinions = self.watched.iter().map(|(key, watched)| (*key, watched.monitor.opinion().clone()));
        Health {
            probing: true,
            opinions: opinions.collect(),
            manual: self.manual.clone(),
            leaving: self.leaving.due(now),
            vacated: self.vacated.due(now),
        }
    }

    /// Whether a plan would come out otherwise than the last one.
    fn has_news(&self) -> bool {
        let now = Instant::now();
        let stand = self.watched.iter().map(|(key, watched)| (*key, watched.monitor.opinion().standing));
        let told = self.told.opinions.iter().map(|(key, opinion)| (*key, opinion.standing));
        !stand.eq(told)
            || self.leaving.due(now) != self.told.leaving
            || self.vacated.due(now) != self.told.vacated
    }

    /// Takes in what was decided by hand; returns all such decisions.
    pub(super) fn decide(&mut self, slot: Slot, decision: Option<Manual>) -> &BTreeMap<Slot, Manual> {
        match decision {
            Some(decision) => drop(self.manual.insert(slot, decision)),
            None => drop(self.manual.remove(&slot)),
        }
        &self.manual
    }

    /// Observes nothing any more, until the next round.
    pub(super) fn rest(&mut self) {
        *self = Probing { born: self.born, ..Probing::new(std::mem::take(&mut self.manual)) };
    }

    /// Takes in what a round found, which of its changes failed, and by what it was planned.
    pub(super) fn follow(&mut self, plan: &Plan, failed: &[Change], told: Health) {
        self.told = told;
        let now = Instant::now();
        let mut present = BTreeSet::new();
        for uplink in &plan.uplinks {
            for family in Family::BOTH.into_iter().filter(|&family| uplink.legs[family].configured()) {
                present.insert((uplink.slot, family));
                let subject = subject(uplink, &uplink.legs[family], family, plan.slots.multihomed());
                let stands = !failed.iter().any(|change| concerns(change, uplink, family));
                self.follow_leg(uplink, family, &subject, stands, now);
            }
        }
        let gone: Vec<Key> = self.watched.keys().filter(|key| !present.contains(key)).copied().collect();
        for key in gone {
            let cut = !plan.uplinks.iter().any(|uplink| uplink.slot == key.0 && uplink.carrier);
            self.away.extend(self.watched.remove(&key).map(|watched| (key, watched.monitor.leave(cut, now))));
        }
        // Who gets a slot that is free again begins without what was decided over it, or held against it.
        let known = |slot: Slot| plan.slots.entries().iter().any(|entry| entry.slot == slot);
        self.manual.retain(|slot, _| known(*slot));
        self.away.retain(|(slot, _), damping| known(*slot) && !damping.is_forgiven(now));
        self.leaving.follow(plan, now);
        self.vacated.follow(plan, now);
    }

    fn follow_leg(&mut self, uplink: &Uplink, family: Family, subject: &Subject, stands: bool, now: Instant) {
        let leg = &uplink.legs[family];
        let way = way(uplink, leg, family);
        let begin = || {
            self.born += 1;
            let mut monitor = Monitor::new(found(leg.state), self.born, now);
            monitor.resume(self.away.remove(&(uplink.slot, family)).unwrap_or_default());
            Watched { monitor, way: way.clone() }
        };
        let Watched { monitor, way: known } = self.watched.entry((uplink.slot, family)).or_insert_with(begin);
        if (known.index, known.gateway) != (way.index, way.gateway) {
            // Elsewhere: what leads nowhere there may lead out here, and what is in flight says nothing.
            if monitor.opinion().standing.lives() {
                monitor.begin_anew(now);
            } else {
                monitor.set_open(false, now);
            }
        }
        *known = way;
        monitor.configure(subject, now);
        monitor.hear(leg.connectivity, now);
        // What stood once goes on while a later round fails at something else.
        if !leg.link || stands {
            monitor.set_open(leg.link, now);
        }
    }

    /// Whether the first verdict on somebody is awaited; it comes within seconds.
    pub(super) fn is_proving(&self) -> bool {
        let now = Instant::now();
        self.watched.values().any(|watched| watched.monitor.is_proving(now))
    }

    /// Waits until a verdict has changed, or until flows are to be moved. May be dropped while it waits.
    pub(super) async fn changed(&mut self) {
        // Also what was found with the last round changes verdicts: other targets, or none.
        while !self.has_news() {
            let due = self.due(Instant::now());
            tokio::select! {
                Some(done) = self.asked.join_next() => self.take_in(done),
                () = sleep_until(due) => {}
            }
            // What is there already must not be called missing.
            while let Some(done) = self.asked.try_join_next() {
                self.take_in(done);
            }
            self.tick();
        }
    }

    fn due(&self, now: Instant) -> Option<Instant> {
        let monitors = self.watched.values().map(|watched| &watched.monitor);
        let dues = monitors.flat_map(|monitor| [monitor.due(now), monitor.sample_due(now)]);
        dues.flatten().chain(self.leaving.next(now)).chain(self.vacated.next(now)).min()
    }

    fn take_in(&mut self, done: Result<(Key, u64, Answer), tokio::task::JoinError>) {
        // A probe that panicked is one that was not answered; its time limit will tell.
        let Ok((key, id, Answer { outcome, bytes, packets })) = done else { return };
        if let Some(watched) = self.watched.get_mut(&key) {
            watched.monitor.answer(id, &outcome, Cost { bytes, packets }, Instant::now());
        }
    }

    /// Does what is due.
    fn tick(&mut self) {
        let now = Instant::now();
        let woke = self.has_slept();
        if woke {
            info!("the machine has slept; what was in flight counts for nothing");
        }
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let any = self.watched.values().any(|watched| is_due(watched.monitor.sample_due(now)));
        let mut links = any.then(Links::read).unwrap_or_default();
        for (&key, Watched { monitor, way }) in &mut self.watched {
            if woke {
                monitor.begin_anew(now);
            }
            if is_due(monitor.sample_due(now)) {
                let counters = links.of(&way.device).map(|both| both[key.1]);
                monitor.sample(counters.unwrap_or_default(), now);
            }
            if is_due(monitor.due(now)) {
                for Request { id, probe, limit } in monitor.poll(now) {
                    let way = way.clone();
                    self.asked.spawn(async move { (key, id, probes::ask(&probe, &way, limit).await) });
                }
            }
        }
    }

    /// Whether the machine has slept since this was last asked (`CLOCK_BOOTTIME`, clock_gettime(2)).
    fn has_slept(&mut self) -> bool {
        let read = |clock| clock_gettime(clock).map(Duration::from).ok();
        let clocks = read(ClockId::CLOCK_BOOTTIME).zip(read(ClockId::CLOCK_MONOTONIC));
        let slept = clocks.map(|(with, without)| with.saturating_sub(without));
        let before = std::mem::replace(&mut self.slept, slept);
        before.zip(slept).is_some_and(|(before, slept)| slept > before + SLEPT)
    }

    /// The median round-trip times.
    pub(super) fn latencies(&self) -> Latencies {
        let now = Instant::now();
        let known = |(key, watched): (&Key, &Watched)| Some((*key, watched.monitor.latency(now)?));
        self.watched.iter().filter_map(known).collect()
    }

    /// Adds to a status what is known of each uplink.
    pub(super) fn describe(&self, status: &mut Status) {
        let now = Instant::now();
        for uplink in &mut status.uplinks {
            let Some(slot) = Slot::new(uplink.slot) else { continue };
            uplink.manual = self.manual.get(&slot).copied();
            for (family, leg) in uplink.legs_mut() {
                let Some(Watched { monitor, .. }) = self.watched.get(&(slot, family)) else { continue };
                leg.health = Some(HealthStatus::of(monitor.opinion(), &monitor.report(now), now));
            }
        }
    }
}

/// Waits until then, or for ever.
pub(super) async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// Whether a probe that is bound to an uplink's device needs this change to go out by its gateway. Without its rule the
/// kernel would take every target for a neighbour, and a gateway that answers for everybody (proxy ARP) would answer.
fn concerns(change: &Change, uplink: &Uplink, family: Family) -> bool {
    match change {
        Change::PutRoute(route) => route.family() == family && route.key.table == uplink.slot.table(),
        Change::AddRule(rule) => {
            rule.family == family && rule.selector == Selector::Oif(uplink.dev.name.clone())
        }
        _ => false,
    }
}

/// How an uplink is taken that is seen for the first time.
fn found(state: State) -> Standing {
    match state {
        State::Up | State::Degraded | State::Held | State::Drained => Standing::Up,
        _ => Standing::Unproven,
    }
}

/// Where probes of a family go out.
pub(super) fn way(uplink: &Uplink, leg: &Leg, family: Family) -> Way {
    Way {
        uplink: uplink.name.clone(),
        device: uplink.dev.name.clone(),
        index: uplink.dev.index,
        mark: uplink.slot.mark(),
        family,
        gateway: leg.gateway.and_then(Gateway::ip),
        resolvers: leg.resolvers.clone(),
    }
}

/// Whom to ask, and by what to judge.
fn subject(uplink: &Uplink, leg: &Leg, family: Family, multihomed: bool) -> Subject {
    let connected: Vec<_> = leg.connected.iter().map(|(net, _)| *net).collect();
    let (targets, checks) = match &uplink.probes {
        None => (defaults(family, &leg.resolvers, &connected), portal_checks().to_vec()),
        Some(probes) => {
            let ours = probes.iter().filter(|probe| probe.family().is_none_or(|of| of == family));
            let targets: Vec<_> = ours.cloned().collect();
            let pages = targets.iter().filter(|probe| probe.kind() == Kind::Http).cloned().collect();
            (targets, pages)
        }
    };
    // Every byte costs, or there is no other to go to, or it is not to be used whatever they say.
    let sparse = uplink.metered || !multihomed || leg.state == State::Capped;
    Subject { targets, checks, limits: uplink.limits, sparse }
}
