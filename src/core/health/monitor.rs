//! One family of one uplink under observation: results and the time go in, a verdict and the next wake-up come out.
//!
//! An uplink is asked lightly, one target a round, by turns. An answer that is missing, or silence on the link, calls
//! for a burst: every target at once, several volleys. Only a burst condemns. Refuses to know how probes are sent.

mod rounds;
mod verdict;

use std::time::{Duration, Instant};

use super::Outcome;
use super::damping::Damping;
use super::portal::{Landed, Portal};
use super::quality::{Quality, Window};
use super::round::{Burst, Phase};
use super::target::Targets;
use super::thresholds::Thresholds;
use super::traffic::{Counters, Traffic};
use super::{Connectivity, Opinion, Standing, Subject};
use crate::core::probe::Probe;

/// How often the counters are looked at while the link is busy, and while it is not.
const SAMPLING: Duration = Duration::from_millis(100);
const SAMPLING_IDLE: Duration = Duration::from_millis(500);
/// Who looks so much later than was due has slept or was stopped, and what was waited for proves nothing.
const STALLED: Duration = Duration::from_secs(2);

/// Why an uplink is good that has no targets.
const NOT_PROBED: &str = "it is not probed";

/// How long a first verdict usually takes at most.
const PROVING: Duration = Duration::from_secs(3);

/// What is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// By which the answer is known.
    pub id: u64,
    /// What to ask.
    pub probe: Probe,
    /// How long an answer may take.
    pub limit: Duration,
}

/// What becomes of an uplink's health.
#[derive(Debug)]
pub struct Monitor {
    limits: Thresholds,
    sparse: bool,
    targets: Targets,
    portal: Portal,
    opinion: Opinion,
    /// Probes can go out.
    open: bool,
    phase: Phase,
    /// Good rounds in a row since it went down.
    good: u8,
    /// When a burst last took it down.
    condemned: Option<Instant>,
    /// Why a new uplink is good, while it waits for a look at the portal.
    proof: Option<String>,
    /// Why it is not condemned though nothing answers.
    doubt: Option<String>,
    /// Until when silence is not asked about again.
    silence_rests: Option<Instant>,
    /// When an answer last came too late, and how long it took.
    slow: Option<(Instant, Duration)>,
    /// When probes could last go out again.
    opened: Option<Instant>,
    window: Window,
    damping: Damping,
    traffic: Traffic,
    last_sample: Option<Instant>,
    next_id: u64,
    bytes: u64,
}

/// What is known of an uplink, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Loss, latency and jitter.
    pub quality: Quality,
    /// The limits in force.
    pub limits: Thresholds,
    /// Good rounds in a row since it went down.
    pub good: u8,
    /// Failures that are not forgiven yet.
    pub strikes: u32,
    /// Bytes spent on probes, both ways.
    pub bytes: u64,
    /// Why it is not condemned though nothing answers.
    pub doubt: Option<String>,
    /// Each target with what it last said.
    pub targets: Vec<(Probe, Option<Outcome>)>,
}

/// What a probe cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Bytes on the wire, both ways.
    pub bytes: u32,
    /// Packets sent.
    pub packets: u32,
}

impl Monitor {
    /// Begins to observe. An uplink that carried traffic when we came is taken as it was found. `born` counts the
    /// monitors, so that no answer to one is taken for an answer to another.
    pub fn new(standing: Standing, born: u64, now: Instant) -> Self {
        Monitor {
            limits: Thresholds::DEFAULT,
            sparse: false,
            targets: Targets::default(),
            portal: Portal::default(),
            opinion: Opinion::new(standing, "as it was found".to_owned()),
            open: false,
            phase: Phase::Rest(now),
            good: 0,
            condemned: None,
            proof: None,
            doubt: None,
            silence_rests: None,
            slow: None,
            opened: None,
            window: Window::default(),
            damping: Damping::default(),
            traffic: Traffic::default(),
            last_sample: None,
            next_id: born << 32,
            bytes: 0,
        }
    }

    /// Holds against it what was held against the same uplink before it went away.
    pub fn resume(&mut self, damping: Damping) {
        self.damping = damping;
    }

    /// Ends with the uplink's going away; returns what is to be remembered. That it is `cut` is a failure of one that
    /// worked; that it loses its configuration while its link stands is somebody's doing, as a manager's that is restarted.
    pub fn leave(mut self, cut: bool, now: Instant) -> Damping {
        if cut {
            self.set_open(false, now);
        }
        self.damping
    }

    /// Takes what to ask and by what to judge; what is known of targets that stay is kept.
    pub fn configure(&mut self, subject: &Subject, now: Instant) {
        let others = self.targets.replace(&subject.targets);
        if others {
            self.window.clear();
        }
        // What was asked of others, or by other limits, cannot be judged by these.
        if others || self.limits != subject.limits {
            self.phase = Phase::Rest(now);
        }
        self.portal.configure(&subject.checks, now);
        (self.limits, self.sparse) = (subject.limits, subject.sparse);
        if self.targets.is_empty() {
            self.portal.forget_flying(now);
            self.stand(Standing::Up, NOT_PROBED.to_owned());
            NOT_PROBED.clone_into(&mut self.opinion.why);
        } else if self.opinion.why == NOT_PROBED {
            "nothing is known against it since it is probed".clone_into(&mut self.opinion.why);
        } else if !self.portal.looks() && self.opinion.standing == Standing::Portal {
            // Only a look at a page could tell that the portal has gone.
            self.stand(Standing::Unproven, "no page is looked at any more".to_owned());
            self.hurry(now);
        }
    }

    /// Takes in whether probes can go out: the link has a carrier and a gateway, and its rule and routes stand.
    pub fn set_open(&mut self, open: bool, now: Instant) {
        if open == self.open {
            return;
        }
        self.open = open;
        self.begin_anew(now);
        if open {
            self.opened = Some(now);
            self.portal.look_at(now);
        } else if !self.targets.is_empty() {
            if self.opinion.standing.lives() {
                self.damping.strike(now);
            }
            self.window.clear();
            self.stand(Standing::Unproven, "the link was away".to_owned());
        }
    }

    /// Takes in what the network manager thinks.
    pub fn hear(&mut self, connectivity: Option<Connectivity>, now: Instant) {
        if self.portal.hear(connectivity) && connectivity.is_some_and(|c| c != Connectivity::Full) {
            self.portal.look_at(now);
            self.hurry(now);
        }
    }

    /// Takes in the link's counters.
    pub fn sample(&mut self, counters: Counters, now: Instant) {
        self.last_sample = Some(now);
        self.traffic.sample(now, counters);
        if self.calls_for_burst(now) {
            self.phase = Phase::Burst(Burst::begin(now));
        }
        let soon = now + self.rest(now);
        if let Phase::Rest(until) = &mut self.phase {
            *until = (*until).min(soon);
        }
    }

    /// What was in flight says nothing any more: the machine has slept, or the link was away.
    pub fn begin_anew(&mut self, now: Instant) {
        self.targets.forget_flying();
        self.portal.forget_flying(now);
        self.traffic.forget();
        self.proof = None;
        self.phase = Phase::Rest(now);
    }

    /// Does what is due; returns what is to be sent.
    pub fn poll(&mut self, now: Instant) -> Vec<Request> {
        if !self.is_active() {
            return Vec::new();
        }
        if self.due(now).is_some_and(|due| now.saturating_duration_since(due) > STALLED) {
            self.begin_anew(now);
        }
        if self.opinion.held_until.is_some_and(|until| now >= until) {
            self.stand(Standing::Up, "stable for as long as it was held back".to_owned());
        }
        let mut requests = self.advance(now);
        let limit = self.longest_wait();
        let next_id = &mut self.next_id;
        let checks = self.portal.checks(now, || {
            *next_id += 1;
            *next_id
        });
        requests.extend(checks.into_iter().map(|(id, probe)| Request { id, probe, limit }));
        self.traffic.own(u32::try_from(requests.len()).unwrap_or(u32::MAX), 0);
        requests
    }

    /// When [`poll`](Self::poll) is due again; none while there is nothing to wait for.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let phase = match &self.phase {
            Phase::Rest(until) => *until,
            Phase::Light { deadline, .. } => *deadline,
            Phase::Burst(burst) => burst.due(&self.pace(now)),
        };
        let others = [self.portal.due(), self.opinion.held_until];
        self.is_active().then(|| others.into_iter().flatten().fold(phase, Instant::min))
    }

    /// When the counters should be looked at again; none while they say nothing.
    pub fn sample_due(&self, now: Instant) -> Option<Instant> {
        let step = if self.traffic.is_busy(now) { SAMPLING } else { SAMPLING_IDLE };
        self.is_active().then(|| self.last_sample.map_or(now, |last| last + step))
    }

    /// Takes in what became of a probe.
    pub fn answer(&mut self, id: u64, outcome: &Outcome, cost: Cost, now: Instant) {
        self.bytes += u64::from(cost.bytes);
        let answered = matches!(outcome, Outcome::Answered(_));
        self.traffic.own(cost.packets.saturating_sub(1), if answered { cost.packets } else { 0 });
        match self.portal.land(id, outcome, self.sparse, now) {
            Landed::Foreign => {}
            Landed::Wait => return,
            Landed::Seen(sight) => return self.see(sight, now),
        }
        let Some((target, sent)) = self.targets.land(id, outcome) else { return };
        // Of an outage that is over, latency tells nothing.
        let counts = self.condemned.is_none_or(|at| sent > at);
        match outcome {
            Outcome::Answered(rtt) => {
                if counts {
                    self.window.add(now, target, Some(*rtt), self.limits.measured_over());
                }
                self.answered(target, sent, *rtt, now);
            }
            // No answer; whether it is a portal, a page tells that is known.
            Outcome::Portal(_) => self.portal.look_at(now),
            Outcome::Failed(_) => {
                // One that never answers, because it is filtered, is no measure of loss.
                if counts && self.window.has_answered(target) {
                    self.window.add(now, target, None, self.limits.measured_over());
                }
            }
        }
        if let Phase::Light { deadline, .. } = &mut self.phase {
            if !answered && self.targets.nothing_flies() {
                *deadline = now;
            }
        }
        self.weigh();
    }

    /// The verdict as it stands.
    pub fn opinion(&self) -> &Opinion {
        &self.opinion
    }

    /// The median round-trip time over the window, where there are answers enough to compare it by.
    pub fn latency(&self, now: Instant) -> Option<Duration> {
        self.window.fresh_latency(self.limits.measured_over(), now)
    }

    /// What is known, for people.
    pub fn report(&self, now: Instant) -> Report {
        Report {
            quality: self.window.quality(),
            limits: self.limits,
            good: self.good,
            strikes: self.damping.standing(now),
            bytes: self.bytes,
            doubt: self.doubt.clone(),
            targets: self.targets.said(),
        }
    }

    /// Whether a first verdict is on its way; one that takes very long is not waited for.
    pub fn is_proving(&self, now: Instant) -> bool {
        let lately = self.opened.is_some_and(|at| now.saturating_duration_since(at) < PROVING);
        lately && self.is_active() && self.opinion.standing == Standing::Unproven
    }

    fn is_active(&self) -> bool {
        self.open && !self.targets.is_empty()
    }
}
