//! Somebody who saw everything that the monitor saw, and asks it for the evidence of each verdict.

use std::collections::{BTreeMap, BTreeSet};

use super::net::{Entry, Happening};
use crate::core::health::*;

/// An answer disproves a verdict for so long.
const LATE: Duration = Duration::from_secs(2);
/// Quality rests on so many probes.
const ENOUGH: usize = 10;

/// What was seen.
pub(super) struct Witness {
    pub(super) limits: Thresholds,
    pub(super) hint: Option<Connectivity>,
    standing: Standing,
    targets: Vec<Seen>,
    flying: BTreeMap<u64, (Option<usize>, Instant)>,
    /// What the checks of the last look for a portal said.
    looked: Vec<Outcome>,
    /// Who has answered since somebody was last asked.
    round: BTreeSet<usize>,
    /// That round was broken off.
    broken: bool,
    /// The last probe that was sent by other limits: no round that is judged by those of now counts it.
    outdated: u64,
    /// Who has answered since nothing was and whether that was enough.
    answered: BTreeSet<usize>,
    proved: bool,
    /// Good rounds in a row since it went down.
    good: u8,
    condemned: Option<Instant>,
    held_until: Option<Instant>,
    /// What became of probes, with the time.
    samples: Vec<(Instant, Option<Duration>)>,
}

#[derive(Clone, Default)]
struct Seen {
    /// Asked so often since it last answered.
    unanswered: u32,
}

impl Witness {
    pub(super) fn new(limits: Thresholds, targets: usize) -> Self {
        Witness {
            limits,
            hint: None,
            standing: Standing::Unproven,
            targets: vec![Seen::default(); targets],
            flying: BTreeMap::new(),
            looked: Vec::new(),
            round: BTreeSet::new(),
            broken: false,
            outdated: 0,
            answered: BTreeSet::new(),
            proved: false,
            good: 0,
            condemned: None,
            held_until: None,
            samples: Vec::new(),
        }
    }

    /// Other limits, and perhaps other targets.
    pub(super) fn reconfigured(&mut self, limits: Thresholds, targets: usize) {
        if limits != self.limits {
            (self.round, self.broken) = (BTreeSet::new(), true);
            self.outdated = self.flying.keys().copied().max().unwrap_or(self.outdated);
        }
        self.limits = limits;
        if targets != self.targets.len() {
            self.targets = vec![Seen::default(); targets];
        }
    }

    fn quorum(&self) -> usize {
        usize::from(self.limits.quorum).min(self.targets.len()).max(1)
    }

    /// Takes in what happened; an error is a verdict without its evidence.
    pub(super) fn follow(&mut self, entry: &Entry) -> Result<(), String> {
        let now = entry.at;
        let mut late = false;
        match &entry.what {
            Happening::Polled | Happening::Sampled => {}
            Happening::Asked(id, None) => {
                self.looked.clear();
                self.flying.insert(*id, (None, now));
            }
            Happening::Asked(id, Some(target)) => {
                let first = self.flying.values().all(|(target, sent)| target.is_none() || *sent != now);
                if first {
                    if self.round.len() < self.quorum() && !self.broken {
                        self.good = 0;
                    }
                    (self.round, self.broken) = (BTreeSet::new(), false);
                }
                self.flying.insert(*id, (Some(*target), now));
                let seen = &mut self.targets[*target];
                seen.unanswered += 1;
            }
            Happening::Landed(id, outcome) => match self.flying.remove(id) {
                Some((Some(target), sent)) => {
                    late = self.landed(target, sent, *id > self.outdated, outcome, now);
                }
                Some((None, _)) => self.looked.push(outcome.clone()),
                None => {}
            },
            Happening::Touched => {}
            Happening::Retargeted => self.broken(),
            Happening::Anew => {
                self.broken();
                self.flying.clear();
                (self.answered, self.proved) = (BTreeSet::new(), false);
            }
        }
        let before = std::mem::replace(&mut self.standing, entry.standing);
        if before == entry.standing {
            return Ok(());
        }
        if entry.standing == Standing::Held {
            self.held_until = entry.held_until;
        }
        let fine = self.is_proved(before, entry, late);
        if entry.standing == Standing::Down {
            (self.condemned, self.good) = (Some(now), 0);
            self.round.clear();
        }
        if entry.standing == Standing::Unproven {
            (self.answered, self.proved) = (BTreeSet::new(), false);
        }
        fine.then_some(()).ok_or_else(|| format!("{before:?} to {:?} by {:?}", entry.standing, entry.what))
    }

    fn broken(&mut self) {
        self.flying.retain(|_, (target, _)| target.is_none());
        (self.round, self.broken) = (BTreeSet::new(), true);
    }

    /// Returns whether it disproves the last verdict; `counts` says that it is of the present round.
    fn landed(
        &mut self,
        target: usize,
        sent: Instant,
        counts: bool,
        outcome: &Outcome,
        now: Instant,
    ) -> bool {
        let quorum = self.quorum();
        let seen = &mut self.targets[target];
        match outcome {
            Outcome::Answered(rtt) => {
                // By then the monitor may have given up on it.
                if now - sent <= self.limits.timeout {
                    seen.unanswered = 0;
                }
                self.samples.push((now, Some(*rtt)));
                let full = self.round.len() >= quorum;
                if counts {
                    self.round.insert(target);
                }
                if !full && self.round.len() >= quorum {
                    self.good = self.good.saturating_add(1);
                }
                self.answered.insert(target);
                self.proved |= self.answered.len() >= quorum;
                self.condemned.is_some_and(|at| sent <= at && now - at <= LATE)
            }
            Outcome::Failed(_) => {
                self.samples.push((now, None));
                false
            }
            Outcome::Portal(_) => false,
        }
    }

    fn is_proved(&self, before: Standing, entry: &Entry, late: bool) -> bool {
        let (polled, landed, touched) = match entry.what {
            Happening::Polled => (true, false, false),
            Happening::Landed(..) => (false, true, false),
            Happening::Touched | Happening::Retargeted | Happening::Anew => (false, false, true),
            _ => return false,
        };
        let not_probed = touched && self.targets.is_empty();
        match (before, entry.standing) {
            (_, Standing::Up) if not_probed => true,
            (Standing::Held, Standing::Up) => {
                polled && self.held_until.is_some_and(|until| until <= entry.at)
            }
            (Standing::Down, Standing::Up | Standing::Held) if late => landed,
            // It was slow, as is seen at once.
            (Standing::Down, Standing::Degraded) => late && self.is_flawed(entry.at),
            (Standing::Down, Standing::Up | Standing::Held) => landed && self.good >= self.limits.up_after,
            (Standing::Unproven, Standing::Up | Standing::Held) => polled && self.proved,
            (Standing::Portal, Standing::Up | Standing::Held) => {
                landed && matches!(self.looked.last(), Some(Outcome::Answered(_)))
            }
            (Standing::Degraded, Standing::Up) => landed,
            (Standing::Up, Standing::Degraded) => landed && self.is_flawed(entry.at),
            (_, Standing::Portal) => {
                let seen = self.looked.iter().any(|said| matches!(said, Outcome::Portal(_)));
                landed && (seen || self.hint == Some(Connectivity::Portal))
            }
            (_, Standing::Down) => {
                let volleys = u32::from(self.limits.down_after);
                let alive = self.targets.iter().filter(|t| t.unanswered < volleys).count();
                polled && alive < self.quorum()
            }
            (Standing::Portal, Standing::Unproven) => landed || touched,
            (_, Standing::Unproven) => touched,
            _ => false,
        }
    }

    /// Whether something could be worse than is allowed, of enough probes.
    fn is_flawed(&self, now: Instant) -> bool {
        let recent = self.samples.iter().filter(|(at, _)| now - *at <= self.limits.measured_over());
        let recent: Vec<Option<Duration>> = recent.map(|(_, rtt)| *rtt).collect();
        let rtts: Vec<Duration> = recent.iter().copied().flatten().collect();
        let (least, most) = (rtts.iter().min(), rtts.iter().max());
        let (least, most) = (least.copied().unwrap_or_default(), most.copied().unwrap_or_default());
        let lost = rtts.len() < recent.len() && self.limits.max_loss < 100;
        let bad = lost || most > self.limits.max_latency || most - least > self.limits.max_jitter;
        recent.len() >= ENOUGH && bad
    }
}
