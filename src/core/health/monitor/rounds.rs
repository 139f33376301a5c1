//! When to ask, whom, and how long to wait for an answer.

use std::time::{Duration, Instant};

use super::{Monitor, Request};
use crate::core::health::Standing;
use crate::core::health::round::{Burst, Pace, Phase, SHORTEST_WAIT};

/// For so long a link is given time on which an answer came too late for a verdict.
const SLOW_FOR: Duration = Duration::from_secs(300);

impl Monitor {
    /// Carries the phase on.
    pub(super) fn advance(&mut self, now: Instant) -> Vec<Request> {
        let standing = self.opinion.standing;
        match &self.phase {
            Phase::Rest(until) if now < *until => return Vec::new(),
            // Whether anything gets through is seen by what is looked at for the portal.
            _ if standing == Standing::Portal => {
                self.phase = Phase::Rest(now + self.limits.idle_interval);
                return Vec::new();
            }
            Phase::Rest(_) if standing == Standing::Unproven => {
                if let Some(why) = self.proof.take() {
                    self.phase = Phase::Rest(now + self.limits.interval);
                    self.rise(now, why);
                    return Vec::new();
                }
                self.phase = Phase::Burst(Burst::begin(now));
            }
            Phase::Rest(_) => return self.light(now),
            Phase::Light { deadline, .. } if now < *deadline => return Vec::new(),
            Phase::Light { .. } => {
                self.targets.miss_all();
                if standing == Standing::Down {
                    self.good = 0;
                    self.phase = Phase::Rest(now + self.rest(now));
                    return Vec::new();
                }
                self.phase = Phase::Burst(Burst::begin(now));
            }
            Phase::Burst(_) => {}
        }
        self.volley(now)
    }

    pub(super) fn light(&mut self, now: Instant) -> Vec<Request> {
        // What is down is asked at one more target, so that an outage of the one does not keep it down.
        let (spare, patience) = match self.opinion.standing {
            Standing::Down => (1, self.limits.timeout),
            _ => (0, self.patience(now)),
        };
        let wanted = self.targets.by_turns(self.quorum() + spare);
        self.phase = Phase::Light { answered: Vec::new(), deadline: now + patience };
        self.ask(&wanted, now)
    }

    /// The next volley of a burst, or its end.
    pub(super) fn volley(&mut self, now: Instant) -> Vec<Request> {
        let pace = self.pace(now);
        let Phase::Burst(burst) = &mut self.phase else { return Vec::new() };
        if burst.is_over(&pace, now) {
            let burst = burst.clone();
            self.conclude(&burst, now);
            return Vec::new();
        }
        match burst.next_volley(&pace, now) {
            true => self.ask(&self.targets.all(), now),
            false => Vec::new(),
        }
    }

    pub(super) fn ask(&mut self, targets: &[usize], now: Instant) -> Vec<Request> {
        let limit = self.longest_wait();
        let mut requests = Vec::new();
        for &target in targets {
            self.next_id += 1;
            let id = self.next_id;
            requests.extend(self.targets.launch(target, id, now).map(|probe| Request { id, probe, limit }));
        }
        requests
    }

    /// Has the next round come now.
    pub(super) fn hurry(&mut self, now: Instant) {
        if let Phase::Rest(until) = &mut self.phase {
            *until = now;
        }
    }

    /// Whether what happens on the link calls for a burst.
    pub(super) fn calls_for_burst(&self, now: Instant) -> bool {
        let rested = self.silence_rests.is_none_or(|until| now >= until);
        let asked = matches!(self.phase, Phase::Burst(_));
        !asked && rested && self.opinion.standing.lives() && self.traffic.silence().is_some()
    }

    pub(super) fn quorum(&self) -> usize {
        usize::from(self.limits.quorum).clamp(1, self.targets.len().max(1))
    }

    /// How long an answer is waited for: three times what the slowest lately took, and twice what was once too late.
    pub(super) fn patience(&self, now: Instant) -> Duration {
        let slow = self.slow.filter(|(at, _)| now.saturating_duration_since(*at) < SLOW_FOR);
        let usual = self.window.slowest().map_or(self.limits.timeout, |slowest| slowest * 3);
        let usual = usual.max(slow.map_or(Duration::ZERO, |(_, rtt)| rtt * 2));
        usual.max(SHORTEST_WAIT).min(self.limits.timeout)
    }

    /// How long an answer is welcome, though late.
    pub(super) fn longest_wait(&self) -> Duration {
        self.limits.timeout * 3
    }

    /// The time between rounds.
    pub(super) fn rest(&self, now: Instant) -> Duration {
        match self.opinion.standing {
            _ if !self.sparse || self.traffic.is_busy(now) || self.good > 0 => self.limits.interval,
            // Whether it is better again takes many answers to see.
            Standing::Degraded => self.limits.interval,
            // What is down is asked more often than what stands by, or nobody would know when it is back.
            Standing::Down => self.limits.idle_interval / 6,
            _ => self.limits.idle_interval,
        }
    }

    pub(super) fn pace(&self, now: Instant) -> Pace {
        Pace::new(&self.limits, self.patience(now), self.traffic.silence().is_some())
    }
}
