//! A network in simulated time, and what happens between it and the monitor.

use crate::core::health::*;

use super::MS;

/// One thing that happened, and how the uplink stood after it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) at: Instant,
    pub(super) what: Happening,
    pub(super) standing: Standing,
    pub(super) held_until: Option<Instant>,
}

/// What can happen. A target is known by its place; none is a look for a portal.
#[derive(Debug, Clone)]
pub(super) enum Happening {
    /// The monitor was polled; what it asked for follows.
    Polled,
    Asked(u64, Option<usize>),
    Landed(u64, Outcome),
    Sampled,
    /// Somebody did something to the monitor.
    Touched,
    /// The same; there are other targets.
    Retargeted,
    /// The same; what was in flight is void.
    Anew,
}

/// A network in simulated time: how each target answers, and what other traffic the link carries.
pub(super) struct Net {
    pub(super) start: Instant,
    pub(super) now: Instant,
    pub(super) monitor: Monitor,
    /// The round-trip time of each target; none where it does not answer.
    pub(super) targets: Vec<(Probe, Option<Duration>)>,
    /// What the portal checks meet; none for no answer.
    pub(super) page: Option<Outcome>,
    /// Packets a second, sent and received.
    pub(super) traffic: (u64, u64),
    /// So many percent of all answers get lost.
    pub(super) loss: u64,
    /// Who does not answer refuses at once.
    pub(super) refusing: bool,
    /// The target in whose place another answers.
    pub(super) impostor: Option<usize>,
    dice: u64,
    pub(super) log: Vec<Entry>,
    pub(super) sent: Vec<(Duration, Probe)>,
    pub(super) flying: Vec<(Instant, u64, Outcome)>,
    pub(super) counters: Counters,
    pub(super) counted: Instant,
    pub(super) turns: Vec<(Duration, Standing)>,
}

pub(super) fn probe(text: &str) -> Probe {
    text.parse().unwrap()
}

impl Net {
    pub(super) fn new(targets: &[&str]) -> Self {
        let start = Instant::now();
        let targets: Vec<_> = targets.iter().map(|text| (probe(text), Some(20 * MS))).collect();
        let mut net = Net {
            start,
            now: start,
            monitor: Monitor::new(Standing::Unproven, 0, start),
            targets,
            page: Some(Outcome::Answered(30 * MS)),
            traffic: (0, 0),
            loss: 0,
            refusing: false,
            impostor: None,
            dice: 1,
            log: Vec::new(),
            sent: Vec::new(),
            flying: Vec::new(),
            counters: Counters { sent: 1000, received: 1000 },
            counted: start,
            turns: Vec::new(),
        };
        net.configure(|_| {});
        net.monitor.set_open(true, start);
        net
    }

    pub(super) fn usual() -> Self {
        Net::new(&["icmp:1.1.1.1", "icmp:8.8.8.8", "dns:9.9.9.9", "tcp:208.67.222.222:443"])
    }

    pub(super) fn configure(&mut self, change: impl FnOnce(&mut Subject)) {
        let mut subject = Subject {
            targets: self.targets.iter().map(|(probe, _)| probe.clone()).collect(),
            checks: vec![probe("http://check.example/ status=204")],
            limits: Thresholds::DEFAULT,
            sparse: false,
        };
        change(&mut subject);
        self.monitor.configure(&subject, self.now);
    }

    pub(super) fn answers(&mut self, rtt: Option<Duration>) -> &mut Self {
        self.targets.iter_mut().for_each(|(_, answer)| *answer = rtt);
        self
    }

    /// Everything behind the link is gone: nothing answers, and nothing comes back.
    pub(super) fn cut(&mut self) {
        self.answers(None);
        (self.page, self.traffic.1) = (None, 0);
        self.flying.retain(|(_, _, outcome)| matches!(outcome, Outcome::Failed(_)));
    }

    pub(super) fn mend(&mut self) {
        self.answers(Some(20 * MS));
        (self.page, self.traffic.1) = (Some(Outcome::Answered(30 * MS)), self.traffic.0);
    }

    pub(super) fn standing(&self) -> Standing {
        self.monitor.opinion().standing
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, time: Duration) -> &mut Self {
        let end = self.now + time;
        while self.now <= end {
            self.step();
            // Straight to where something happens, by whole milliseconds.
            let next = self.next().map_or(end, |next| next.min(end)).saturating_duration_since(self.start);
            let next = Duration::from_millis(u64::try_from(next.as_nanos().div_ceil(1_000_000)).unwrap());
            self.now = (self.now + MS).max(self.start + next);
        }
        self
    }

    /// When something happens next.
    fn next(&self) -> Option<Instant> {
        let dues = [self.monitor.due(self.now), self.monitor.sample_due(self.now)];
        dues.into_iter().flatten().chain(self.flying.iter().map(|(at, ..)| *at)).min()
    }

    /// Takes down what has happened.
    pub(super) fn note(&mut self, what: Happening) {
        let (at, standing) = (self.now, self.standing());
        self.log.push(Entry { at, what, standing, held_until: self.monitor.opinion().held_until });
    }

    /// Lets time pass until it stands like this; returns for how long.
    pub(super) fn until(&mut self, standing: Standing, limit: Duration) -> Duration {
        let start = self.now;
        while self.standing() != standing {
            assert!(
                self.now - start < limit,
                "still {:?} after {limit:?}; {:?}",
                self.standing(),
                self.turns
            );
            self.run(Duration::ZERO);
        }
        self.now - start
    }

    fn step(&mut self) {
        let (send, receive) = self.traffic;
        let at = |time: Instant, rate: u64| (time - self.start).as_millis() as u64 * rate / 1000;
        let passed = |rate: u64| at(self.now, rate) - at(self.counted, rate);
        self.counters.sent += passed(send);
        self.counters.received += passed(receive);
        self.counted = self.now;
        let (landed, flying) =
            std::mem::take(&mut self.flying).into_iter().partition(|(at, ..)| *at <= self.now);
        self.flying = flying;
        let landed: Vec<(Instant, u64, Outcome)> = landed;
        for (_, id, outcome) in landed {
            let answered = matches!(outcome, Outcome::Answered(_));
            self.counters.received += u64::from(answered);
            self.monitor.answer(id, &outcome, Cost { bytes: 84, packets: 1 }, self.now);
            self.note(Happening::Landed(id, outcome));
        }
        if self.monitor.sample_due(self.now).is_some_and(|due| due <= self.now) {
            self.monitor.sample(self.counters, self.now);
            self.note(Happening::Sampled);
        }
        let mut polls = 0;
        while self.monitor.due(self.now).is_some_and(|due| due <= self.now) {
            polls += 1;
            assert!(polls < 6, "a busy loop, {:?}", self.turns);
            let requests = self.monitor.poll(self.now);
            self.note(Happening::Polled);
            requests.into_iter().for_each(|request| self.send(request));
        }
        let standing = self.standing();
        if self.turns.last().is_none_or(|(_, last)| *last != standing) {
            self.turns.push((self.now - self.start, standing));
        }
    }

    fn send(&mut self, Request { id, probe, limit }: Request) {
        self.counters.sent += 1;
        let target = self.targets.iter().position(|(known, _)| *known == probe);
        let page = target.is_none() || probe.kind() == crate::core::probe::Kind::Http;
        let outcome = match target.map(|at| self.targets[at].1) {
            Some(None) => None,
            Some(_) if target == self.impostor => Some(Outcome::Portal("status 503".into())),
            Some(Some(rtt)) if !page => Some(Outcome::Answered(rtt)),
            _ => self.page.clone(),
        };
        let outcome = outcome.filter(|_| self.roll() >= self.loss);
        let after = match &outcome {
            Some(Outcome::Answered(rtt)) => *rtt,
            Some(_) => 30 * MS,
            None if self.refusing => 5 * MS,
            None => limit,
        };
        // Who asks does not wait for longer.
        let (after, outcome) = if after > limit { (limit, None) } else { (after, outcome) };
        self.sent.push((self.now - self.start, probe));
        self.note(Happening::Asked(id, target));
        self.flying.push((self.now + after, id, outcome.unwrap_or(Outcome::Failed("no answer".into()))));
    }

    /// A number below 100 (a linear congruential generator).
    fn roll(&mut self) -> u64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) % 100
    }
}
