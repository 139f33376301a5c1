//! What answers, and their absence, mean.

use std::time::{Duration, Instant};

use super::Monitor;
use crate::core::health::portal::Sight;
use crate::core::health::round::{Burst, Phase};
use crate::core::health::traffic::Counters;
use crate::core::health::{Opinion, Standing};

/// Answers on the link put a verdict off for so long, where more than one protocol goes unanswered: a stranger's
/// packets look like answers too. Where only one is asked, it may be filtered, and they do so for as long as they come.
const LONGEST_VETO: Duration = Duration::from_secs(5);
/// Until a page that looks like a portal's is looked at again.
const SECOND_LOOK: Duration = Duration::from_secs(2);
/// Until probes that may be filtered are sent again, while answers on the link keep it up.
const FILTERED_REST: Duration = Duration::from_secs(5);
/// A link that answered a burst is not asked again so soon for its silence: some traffic is one-way.
const SILENCE_REST: Duration = Duration::from_secs(2);
/// An answer that arrives so long after its uplink was condemned still disproves the verdict.
const LATE: Duration = Duration::from_secs(2);

impl Monitor {
    /// A target answered.
    pub(super) fn answered(&mut self, target: usize, sent: Instant, rtt: Duration, now: Instant) {
        self.opinion.proven = true;
        self.doubt = None;
        let words = || format!("{} answered in {} ms", self.targets.words(target), rtt.as_millis());
        let standing = self.opinion.standing;
        let disproved = |at: Instant| sent <= at && now.saturating_duration_since(at) <= LATE;
        if standing == Standing::Down && self.quorum() == 1 && self.condemned.is_some_and(disproved) {
            let why = format!("the verdict was wrong: {}", words());
            self.phase = Phase::Rest(now + self.limits.interval);
            self.slow = Some((now, rtt));
            return self.rise(now, why);
        }
        if self.phase.answered(target) < self.quorum() {
            return;
        }
        let was_burst = matches!(self.phase, Phase::Burst(_));
        match standing {
            Standing::Down => {
                self.good = self.good.saturating_add(1);
                self.phase = Phase::Rest(now + self.limits.interval);
                if self.good >= self.limits.up_after {
                    self.rise(now, format!("{} good rounds in a row", self.limits.up_after));
                }
            }
            Standing::Unproven => {
                self.proof = Some(words());
                self.phase = Phase::Rest(self.portal.patience(now).unwrap_or(now));
            }
            _ => {
                self.phase = Phase::Rest(now + self.rest(now));
                if was_burst {
                    self.silence_rests = Some(now + SILENCE_REST);
                }
            }
        }
    }

    /// It works again, and may have to wait.
    pub(super) fn rise(&mut self, now: Instant, why: String) {
        // What was lost while it was down says nothing of how it is now.
        self.window.clear();
        if self.opinion.standing == Standing::Down {
            self.portal.look_at(now);
        }
        let hold = self.damping.hold(self.limits.hold, now);
        if hold.is_zero() {
            return self.stand(Standing::Up, why);
        }
        let failures = self.damping.standing(now);
        self.stand(Standing::Held, format!("{why}, after {failures} failures"));
        self.opinion.held_until = Some(now + hold);
    }

    /// A burst is over without enough answers.
    pub(super) fn conclude(&mut self, burst: &Burst, now: Instant) {
        self.targets.miss_all();
        self.phase = Phase::Rest(now + self.rest(now));
        if let Some(doubt) = self.veto(burst, now) {
            self.doubt = Some(doubt);
            self.phase = match self.may_be_filtered() {
                true => Phase::Rest(now + FILTERED_REST),
                false => Phase::Burst(burst.again(now)),
            };
            return;
        }
        let silence = self.traffic.silence();
        let silence = silence.map(|c| format!("; {} packets sent and {} received", c.sent, c.received));
        let why = format!(
            "{} of {} targets answered {} volleys within {} ms{}",
            burst.answered.len(),
            self.targets.len(),
            burst.volleys,
            now.saturating_duration_since(burst.since).as_millis(),
            silence.unwrap_or_default()
        );
        self.condemned = Some(now);
        self.damping.strike(now);
        // A portal whose session has run out answers no target, but it does answer for a website.
        self.portal.look_at(now);
        self.stand(Standing::Down, why);
    }

    /// Why a burst without enough answers does not condemn.
    pub(super) fn veto(&self, burst: &Burst, now: Instant) -> Option<String> {
        let Counters { received, sent } = self.traffic.answers(burst.since)?;
        let in_time = self.may_be_filtered() || now < burst.first + LONGEST_VETO;
        (in_time && self.opinion.standing.lives())
            .then(|| format!("no probe is answered, but {received} packets came back on {sent} sent"))
    }

    /// Whether a firewall that drops one protocol would silence every probe.
    fn may_be_filtered(&self) -> bool {
        self.targets.kinds() < 2
    }

    /// What a look for a portal has shown.
    pub(super) fn see(&mut self, sight: Sight, now: Instant) {
        match (sight, self.opinion.standing) {
            // A page may be broken for a moment, so what works is looked at twice.
            (Sight::Portal(_), standing) if standing.lives() && !self.portal.is_sure() => {
                self.portal.look_at(now + SECOND_LOOK);
            }
            (Sight::Portal(why), standing) => {
                if standing.lives() {
                    self.damping.strike(now);
                }
                self.stand(Standing::Portal, why);
            }
            (Sight::Open, Standing::Portal) => self.rise(now, "the portal lets us through".to_owned()),
            (Sight::Nothing, Standing::Portal) => {
                self.stand(Standing::Unproven, "the portal has gone silent".to_owned());
                self.hurry(now);
            }
            // It has waited for this alone.
            (_, Standing::Unproven) if self.proof.is_some() => self.hurry(now),
            _ => {}
        }
    }

    /// Loss, latency and jitter.
    pub(super) fn weigh(&mut self) {
        let quality = self.window.quality();
        match self.opinion.standing {
            Standing::Up => {
                if let Some(flaw) = quality.flaw(&self.limits) {
                    self.stand(Standing::Degraded, flaw);
                }
            }
            Standing::Degraded if quality.is_fine(&self.limits) => {
                let latency = quality.latency.unwrap_or_default().as_millis();
                self.stand(Standing::Up, format!("loss {} %, latency {latency} ms", quality.loss));
            }
            _ => {}
        }
    }

    pub(super) fn stand(&mut self, standing: Standing, why: String) {
        if self.opinion.standing == standing {
            return;
        }
        (self.good, self.proof) = (0, None);
        let proven = self.opinion.proven;
        self.opinion = Opinion { proven, ..Opinion::new(standing, why) };
        self.doubt = None;
    }
}
