//! What the counters of a link tell between probes: that nothing comes back, or that something does.
//!
//! Counters cannot tell an answer from a stranger's packet, so they never decide: silence only calls for probes, and
//! answers only put off a verdict.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Silence has to last this long.
const SILENCE: Duration = Duration::from_millis(250);
/// What lies further back is over.
const MEMORY: Duration = Duration::from_secs(2);
/// Fewer packets of a time say nothing.
const ENOUGH: u64 = 3;
/// An uplink that sent within this time is busy.
const BUSY: Duration = Duration::from_secs(1);

/// Packets of one family on a link since it exists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Received.
    pub received: u64,
    /// Sent.
    pub sent: u64,
}

/// The recent past of a link's counters, without our own probes.
#[derive(Debug, Clone, Default)]
pub(super) struct Traffic {
    samples: VecDeque<(Instant, Counters)>,
    own: Counters,
    /// As it was last counted, our own probes among it.
    raw_sent: u64,
}

impl Traffic {
    /// Takes in the counters as they are now.
    pub(super) fn sample(&mut self, now: Instant, counters: Counters) {
        let foreign = Counters {
            received: counters.received.saturating_sub(self.own.received),
            sent: counters.sent.saturating_sub(self.own.sent),
        };
        // A link that was made anew begins at nothing.
        if counters.sent < std::mem::replace(&mut self.raw_sent, counters.sent) {
            self.forget();
            return;
        }
        self.samples.push_back((now, foreign));
        while self.samples.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > MEMORY) {
            self.samples.pop_front();
        }
    }

    /// Our own packets are no traffic.
    pub(super) fn own(&mut self, sent: u32, received: u32) {
        self.own.sent += u64::from(sent);
        self.own.received += u64::from(received);
    }

    /// Forgets everything.
    pub(super) fn forget(&mut self) {
        *self = Traffic::default();
    }

    /// What was sent and received from a time on.
    fn since(&self, start: Instant) -> Counters {
        let Some((_, last)) = self.samples.back() else { return Counters::default() };
        let first = self.samples.iter().find(|(at, _)| *at >= start).map_or(last, |(_, counters)| counters);
        Counters {
            received: last.received.saturating_sub(first.received),
            sent: last.sent.saturating_sub(first.sent),
        }
    }

    /// Whether something is sent at present.
    pub(super) fn is_busy(&self, now: Instant) -> bool {
        now.checked_sub(BUSY).is_some_and(|start| self.since(start).sent > 0)
    }

    /// What was sent in vain: packets went out, and next to nothing came back for a while.
    pub(super) fn silence(&self) -> Option<Counters> {
        let (last, _) = self.samples.back()?;
        // The youngest sample that is old enough: what came back before it does not break the silence.
        let start = self.samples.iter().rev().map(|(at, _)| *at).find(|at| *last - *at >= SILENCE)?;
        let Counters { received, sent } = self.since(start);
        (sent >= ENOUGH && received * 8 <= sent).then_some(Counters { received, sent })
    }

    /// What came back, where it is about as much as answers to what was sent would be.
    pub(super) fn answers(&self, start: Instant) -> Option<Counters> {
        let Counters { received, sent } = self.since(start);
        (received >= ENOUGH && sent >= ENOUGH && received * 4 >= sent).then_some(Counters { received, sent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples each 100 ms: how much was received and sent since the one before.
    fn traffic(steps: &[(u64, u64)]) -> (Traffic, Instant) {
        let (mut traffic, start) = (Traffic::default(), Instant::now());
        let mut sum = Counters { received: 1000, sent: 1000 };
        let mut now = start;
        for &(received, sent) in steps {
            sum = Counters { received: sum.received + received, sent: sum.sent + sent };
            now += Duration::from_millis(100);
            traffic.sample(now, sum);
        }
        (traffic, now)
    }

    #[test]
    fn what_is_sent_in_vain_for_a_while_is_silence() {
        let silent = |steps: &[(u64, u64)]| traffic(steps).0.silence().is_some();
        assert!(silent(&[(9, 9), (9, 9), (0, 9), (0, 9), (0, 9)]));
        assert!(silent(&[(9, 9), (9, 9), (1, 9), (0, 9), (1, 9)]), "a stranger's packet does not break it");
        assert!(!silent(&[(9, 9), (9, 9), (0, 9), (0, 9)]), "too short");
        assert!(!silent(&[(9, 9), (0, 0), (0, 0), (0, 1), (0, 1)]), "too little was sent");
        assert!(!silent(&[(9, 9), (0, 9), (0, 9), (5, 9)]), "something came back");
        assert!(!silent(&[]));
    }

    #[test]
    fn what_comes_back_in_proportion_is_an_answer() {
        let (traffic, now) = traffic(&[(0, 0), (1, 9), (3, 9), (3, 9), (5, 9)]);
        let since = |ms| traffic.answers(now - Duration::from_millis(ms));
        assert_eq!(since(200), Some(Counters { received: 8, sent: 18 }));
        assert_eq!(since(0), None);
    }

    #[test]
    fn our_own_probes_are_no_traffic() {
        let (mut traffic, mut now) = traffic(&[(0, 0); 3]);
        for n in 1..5 {
            traffic.own(5, 1);
            now += Duration::from_millis(100);
            traffic.sample(now, Counters { received: 1000 + n, sent: 1000 + 5 * n });
        }
        assert_eq!(traffic.silence(), None);
        assert!(!traffic.is_busy(now));
    }
}
