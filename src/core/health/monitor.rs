//! One family of one uplink under observation: results and the time go in, a verdict and the next wake-up come out.
//!
//! An uplink is asked lightly, one target a round, by turns. An answer that is missing, or silence on the link, calls
//! for a burst: every target at once, several volleys. Only a burst condemns. Refuses to know how probes are sent.

use std::time::{Duration, Instant};

use super::Outcome;
use super::damping::Damping;
use super::portal::{Landed, Portal, Sight};
use super::quality::{Quality, Window};
use super::round::{Burst, Pace, Phase, SHORTEST_WAIT};
use super::target::Targets;
use super::thresholds::Thresholds;
use super::traffic::{Counters, Traffic};
use super::{Connectivity, Opinion, Standing, Subject};
use crate::core::probe::Probe;

/// How often the counters are looked at while the link is busy, and while it is not.
const SAMPLING: Duration = Duration::from_millis(100);
const SAMPLING_IDLE: Duration = Duration::from_millis(500);
/// After so long without a look, the machine slept or was stopped, and what was waited for proves nothing.
const STALLED: Duration = Duration::from_secs(2);
/// Answers on the link put a verdict off for so long, where more than one protocol goes unanswered: a stranger's
/// packets look like answers too. Where only one is asked, it may be filtered, and they do so for as long as they come.
const LONGEST_VETO: Duration = Duration::from_secs(5);
/// A link that answered a burst is not asked again so soon for its silence: some traffic is one-way.
const SILENCE_REST: Duration = Duration::from_secs(2);
/// An answer that arrives so long after its uplink was condemned still disproves the verdict.
const LATE: Duration = Duration::from_secs(2);

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
    metered: bool,
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
    silence_rests: Option<Instant>,
    window: Window,
    damping: Damping,
    traffic: Traffic,
    last_look: Option<Instant>,
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
    /// Begins to observe. An uplink that carried traffic when we came is taken as it was found.
    pub fn new(standing: Standing, now: Instant) -> Self {
        Monitor {
            limits: Thresholds::DEFAULT,
            metered: false,
            targets: Targets::default(),
            portal: Portal::default(),
            opinion: Opinion::new(standing, now, "as it was found".to_owned()),
            open: false,
            phase: Phase::Rest(now),
            good: 0,
            condemned: None,
            proof: None,
            doubt: None,
            silence_rests: None,
            window: Window::default(),
            damping: Damping::default(),
            traffic: Traffic::default(),
            last_look: None,
            last_sample: None,
            next_id: 0,
            bytes: 0,
        }
    }

    /// Takes what to ask and by what to judge; what is known of targets that stay is kept.
    pub fn configure(&mut self, subject: &Subject, now: Instant) {
        if self.targets.replace(&subject.targets) {
            self.window.clear();
            self.phase = Phase::Rest(now);
        }
        self.portal.configure(&subject.checks);
        (self.limits, self.metered) = (subject.limits, subject.metered);
        if self.targets.is_empty() {
            self.stand(Standing::Up, now, "it is not probed".to_owned());
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
            self.portal.look_at(now);
        } else if !self.targets.is_empty() {
            if self.opinion.standing.lives() {
                self.damping.strike(now);
            }
            self.window.clear();
            self.stand(Standing::Unproven, now, "the link was away".to_owned());
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
        self.portal.forget_flying();
        self.traffic.forget();
        self.proof = None;
        self.last_look = Some(now);
        self.phase = Phase::Rest(now);
    }

    /// Does what is due; returns what is to be sent.
    pub fn poll(&mut self, now: Instant) -> Vec<Request> {
        if !self.is_active() {
            return Vec::new();
        }
        let expected = STALLED + self.limits.interval.max(self.limits.idle_interval);
        if self.last_look.is_some_and(|last| now.saturating_duration_since(last) > expected) {
            self.begin_anew(now);
        }
        self.last_look = Some(now);
        if self.opinion.held_until.is_some_and(|until| now >= until) {
            self.stand(Standing::Up, now, "stable for as long as it was held back".to_owned());
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
    pub fn due(&self) -> Option<Instant> {
        let phase = match &self.phase {
            Phase::Rest(until) => *until,
            Phase::Light { deadline, .. } => *deadline,
            Phase::Burst(burst) => burst.due(&self.pace()),
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
        match self.portal.land(id, outcome, self.metered, now) {
            Landed::Foreign => {}
            Landed::Wait => return,
            Landed::Seen(sight) => return self.see(sight, now),
        }
        let Some((target, sent)) = self.targets.land(id, outcome) else { return };
        match outcome {
            Outcome::Answered(rtt) => {
                self.window.add(now, target, Some(*rtt), self.limits.window);
                self.answered(target, sent, *rtt, now);
            }
            Outcome::Portal(_) => self.portal.look_at(now),
            Outcome::Failed(_) => {
                // One that never answers, because it is filtered, is no measure of loss.
                if self.window.has_answered(target) {
                    self.window.add(now, target, None, self.limits.window);
                }
            }
        }
        if let Phase::Light { deadline, .. } = &mut self.phase {
            if !answered && self.targets.nothing_flies() {
                *deadline = now;
            }
        }
        self.weigh(now);
    }

    /// The verdict as it stands.
    pub fn opinion(&self) -> &Opinion {
        &self.opinion
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

    fn is_active(&self) -> bool {
        self.open && !self.targets.is_empty()
    }

    /// Carries the phase on.
    fn advance(&mut self, now: Instant) -> Vec<Request> {
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

    fn light(&mut self, now: Instant) -> Vec<Request> {
        // What is down is asked at one more target, so that an outage of the one does not keep it down.
        let (spare, patience) = match self.opinion.standing {
            Standing::Down => (1, self.limits.timeout),
            _ => (0, self.patience()),
        };
        let wanted = self.targets.by_turns(self.quorum() + spare);
        self.phase = Phase::Light { answered: Vec::new(), deadline: now + patience };
        self.ask(&wanted, now)
    }

    /// The next volley of a burst, or its end.
    fn volley(&mut self, now: Instant) -> Vec<Request> {
        let pace = self.pace();
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

    fn ask(&mut self, targets: &[usize], now: Instant) -> Vec<Request> {
        let limit = self.longest_wait();
        let mut requests = Vec::new();
        for &target in targets {
            self.next_id += 1;
            let id = self.next_id;
            requests.extend(self.targets.launch(target, id, now).map(|probe| Request { id, probe, limit }));
        }
        requests
    }

    /// A target answered.
    fn answered(&mut self, target: usize, sent: Instant, rtt: Duration, now: Instant) {
        self.opinion.proven = true;
        self.doubt = None;
        let words = || format!("{} answered in {} ms", self.targets.words(target), rtt.as_millis());
        let standing = self.opinion.standing;
        let disproved = |at: Instant| sent <= at && now.saturating_duration_since(at) <= LATE;
        if standing == Standing::Down && self.condemned.is_some_and(disproved) {
            let why = format!("the verdict was wrong: {}", words());
            self.phase = Phase::Rest(now + self.limits.interval);
            return self.stand(Standing::Up, now, why);
        }
        let why = words();
        if self.phase.answered(target) < self.quorum() {
            return;
        }
        let was_burst = matches!(self.phase, Phase::Burst(_));
        self.phase = Phase::Rest(now + self.rest(now));
        match standing {
            Standing::Down => {
                self.good = self.good.saturating_add(1);
                self.phase = Phase::Rest(now + self.limits.interval);
                if self.good >= self.limits.up_after {
                    self.rise(now, format!("{} good rounds in a row", self.good));
                }
            }
            Standing::Unproven => {
                self.proof = Some(why);
                self.phase = Phase::Rest(self.portal.patience(now).unwrap_or(now));
            }
            _ if was_burst => self.silence_rests = Some(now + SILENCE_REST),
            _ => {}
        }
    }

    /// It works again, and may have to wait.
    fn rise(&mut self, now: Instant, why: String) {
        // What was lost while it was down says nothing of how it is now.
        self.window.clear();
        if self.opinion.standing == Standing::Down {
            self.portal.look_at(now);
        }
        let hold = self.damping.hold(self.limits.hold, now);
        if hold.is_zero() {
            return self.stand(Standing::Up, now, why);
        }
        let failures = self.damping.standing(now);
        self.stand(Standing::Held, now, format!("{why}, after {failures} failures"));
        self.good = 0;
        self.opinion.held_until = Some(now + hold);
    }

    /// A burst is over without enough answers.
    fn conclude(&mut self, burst: &Burst, now: Instant) {
        self.targets.miss_all();
        self.phase = Phase::Rest(now + self.rest(now));
        if self.targets.saw_portal() {
            return self.stand(Standing::Portal, now, "another answers in the place of a target".to_owned());
        }
        if let Some(doubt) = self.veto(burst, now) {
            self.doubt = Some(doubt);
            self.phase = Phase::Burst(burst.again(now));
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
        (self.good, self.condemned) = (0, Some(now));
        self.damping.strike(now);
        // A portal whose session has run out answers no target, but it does answer for a website.
        self.portal.look_at(now);
        self.stand(Standing::Down, now, why);
    }

    /// Why a burst without enough answers does not condemn.
    fn veto(&self, burst: &Burst, now: Instant) -> Option<String> {
        let Counters { received, sent } = self.traffic.answers(burst.since)?;
        let may_be_filtered = self.targets.kinds() < 2 || now < burst.first + LONGEST_VETO;
        (may_be_filtered && self.opinion.standing.lives())
            .then(|| format!("no probe is answered, but {received} packets came back on {sent} sent"))
    }

    /// What a look for a portal has shown.
    fn see(&mut self, sight: Sight, now: Instant) {
        match (sight, self.opinion.standing) {
            (Sight::Portal(why), _) => self.stand(Standing::Portal, now, why),
            (Sight::Open, Standing::Portal) => {
                self.stand(Standing::Up, now, "the portal lets us through".to_owned())
            }
            (Sight::Nothing, Standing::Portal) => {
                self.stand(Standing::Unproven, now, "the portal has gone silent".to_owned());
                self.hurry(now);
            }
            // It has waited for this alone.
            (_, Standing::Unproven) if self.proof.is_some() => self.hurry(now),
            _ => {}
        }
    }

    /// Loss, latency and jitter.
    fn weigh(&mut self, now: Instant) {
        let quality = self.window.quality();
        match self.opinion.standing {
            Standing::Up => {
                if let Some(flaw) = quality.flaw(&self.limits) {
                    self.stand(Standing::Degraded, now, flaw);
                }
            }
            Standing::Degraded if quality.is_fine(&self.limits) => {
                let latency = quality.latency.unwrap_or_default().as_millis();
                self.stand(Standing::Up, now, format!("loss {} %, latency {latency} ms", quality.loss));
            }
            _ => {}
        }
    }

    fn stand(&mut self, standing: Standing, now: Instant, why: String) {
        if self.opinion.standing == standing {
            return;
        }
        let proven = self.opinion.proven;
        self.opinion = Opinion { proven, ..Opinion::new(standing, now, why) };
        self.doubt = None;
    }

    /// Has the next round come now.
    fn hurry(&mut self, now: Instant) {
        if let Phase::Rest(until) = &mut self.phase {
            *until = now;
        }
    }

    /// Whether what happens on the link calls for a burst.
    fn calls_for_burst(&self, now: Instant) -> bool {
        let rested = self.silence_rests.is_none_or(|until| now >= until);
        let asked = matches!(self.phase, Phase::Burst(_));
        !asked && rested && self.opinion.standing.lives() && self.traffic.silence().is_some()
    }

    fn quorum(&self) -> usize {
        usize::from(self.limits.quorum).clamp(1, self.targets.len().max(1))
    }

    /// How long an answer is waited for: three times what the slowest lately took.
    fn patience(&self) -> Duration {
        let usual = self.window.slowest().map_or(self.limits.timeout, |slowest| slowest * 3);
        usual.max(SHORTEST_WAIT).min(self.limits.timeout)
    }

    /// How long an answer is welcome, though late.
    fn longest_wait(&self) -> Duration {
        self.limits.timeout * 3
    }

    /// The time between rounds.
    fn rest(&self, now: Instant) -> Duration {
        match self.opinion.standing {
            _ if !self.metered || self.traffic.is_busy(now) || self.good > 0 => self.limits.interval,
            // What is down is asked more often than what stands by, or nobody would know when it is back.
            Standing::Down => self.limits.idle_interval / 6,
            _ => self.limits.idle_interval,
        }
    }

    fn pace(&self) -> Pace {
        Pace::new(&self.limits, self.patience(), self.traffic.silence().is_some())
    }
}
