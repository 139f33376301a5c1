//! Loss, latency and jitter over a window of probes.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::thresholds::Thresholds;

/// Fewer samples say nothing.
const ENOUGH: usize = 10;
/// Fewer are no reason to choose one before another.
const ENOUGH_TO_COMPARE: usize = 3;
/// More are not kept, whatever the window and the rate.
const MOST: usize = 256;

/// What became of recent probes at targets that answer at all.
#[derive(Debug, Clone, Default)]
pub(super) struct Window {
    samples: VecDeque<Sample>,
}

#[derive(Debug, Clone)]
struct Sample {
    at: Instant,
    target: usize,
    rtt: Option<Duration>,
}

/// What a window shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quality {
    /// How many probes it rests on.
    pub samples: usize,
    /// Percent of them without an answer.
    pub loss: u8,
    /// The median round-trip time; none where nothing was answered.
    pub latency: Option<Duration>,
    /// The mean difference between successive round-trip times of one target.
    pub jitter: Option<Duration>,
}

impl Window {
    /// Takes in what became of a probe, and lets go of what is too old.
    pub(super) fn add(&mut self, at: Instant, target: usize, rtt: Option<Duration>, window: Duration) {
        self.samples.push_back(Sample { at, target, rtt });
        let old = |s: &Sample| at.saturating_duration_since(s.at) > window;
        while self.samples.len() > MOST || self.samples.front().is_some_and(old) {
            self.samples.pop_front();
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.samples.clear();
    }

    /// Whether a target has answered within the window.
    pub(super) fn has_answered(&self, target: usize) -> bool {
        self.samples.iter().any(|s| s.target == target && s.rtt.is_some())
    }

    /// The longest of the last few round-trip times: what one has to wait for.
    pub(super) fn slowest(&self) -> Option<Duration> {
        self.samples.iter().rev().filter_map(|s| s.rtt).take(ENOUGH).max()
    }

    /// The median round-trip time.
    fn latency(&self) -> Option<Duration> {
        median(self.samples.iter().filter_map(|s| s.rtt).collect())
    }

    /// The median round-trip time of what is no older than this; none where that is too little to compare by, as with one
    /// that is asked rarely.
    pub(super) fn fresh_latency(&self, window: Duration, now: Instant) -> Option<Duration> {
        let fresh = self.samples.iter().filter(|s| now.saturating_duration_since(s.at) <= window);
        let rtts: Vec<Duration> = fresh.filter_map(|s| s.rtt).collect();
        (rtts.len() >= ENOUGH_TO_COMPARE).then(|| median(rtts)).flatten()
    }

    /// What the window shows.
    pub(super) fn quality(&self) -> Quality {
        let answered = self.samples.iter().filter(|s| s.rtt.is_some()).count();
        let lost = self.lost();
        let samples = answered + lost;
        Quality {
            samples,
            loss: u8::try_from(lost * 100 / samples.max(1)).unwrap_or(100),
            latency: self.latency(),
            jitter: self.jitter(),
        }
    }

    /// Unanswered probes that an answer of the same target has followed: one that has stopped to answer may have an
    /// outage of its own.
    fn lost(&self) -> usize {
        let mut rows: BTreeMap<usize, usize> = BTreeMap::new();
        let mut lost = 0;
        for sample in &self.samples {
            let row = rows.entry(sample.target).or_default();
            match sample.rtt {
                Some(_) => lost += std::mem::take(row),
                None => *row += 1,
            }
        }
        lost
    }

    fn jitter(&self) -> Option<Duration> {
        let (mut sum, mut count) = (Duration::ZERO, 0);
        for (at, sample) in self.samples.iter().enumerate() {
            let earlier = self.samples.range(..at).rev();
            let before = earlier.filter(|s| s.target == sample.target).find_map(|s| s.rtt);
            if let (Some(rtt), Some(before)) = (sample.rtt, before) {
                sum += rtt.abs_diff(before);
                count += 1;
            }
        }
        (count > 0).then(|| sum / count)
    }
}

fn median(mut times: Vec<Duration>) -> Option<Duration> {
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

impl Quality {
    /// What is worse than allowed, in words; none where nothing is, or too little is known.
    pub(super) fn flaw(&self, limits: &Thresholds) -> Option<String> {
        if self.samples < ENOUGH {
            return None;
        }
        let latency = self.latency.filter(|latency| *latency > limits.max_latency);
        let jitter = self.jitter.filter(|jitter| *jitter > limits.max_jitter);
        let ms = |name, value: Duration, limit: Duration| {
            format!("{name} {} ms, {} allowed", value.as_millis(), limit.as_millis())
        };
        (self.loss > limits.max_loss)
            .then(|| format!("loss {} %, {} allowed", self.loss, limits.max_loss))
            .or_else(|| latency.map(|value| ms("latency", value, limits.max_latency)))
            .or_else(|| jitter.map(|value| ms("jitter", value, limits.max_jitter)))
    }

    /// Whether all is well by half of what is allowed: what was worse has to be clearly better.
    pub(super) fn is_fine(&self, limits: &Thresholds) -> bool {
        let half = Thresholds {
            max_loss: limits.max_loss / 2,
            max_latency: limits.max_latency / 2,
            max_jitter: limits.max_jitter / 2,
            ..*limits
        };
        self.samples >= ENOUGH && self.flaw(&half).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn window(rtts: &[Option<u32>]) -> Window {
        let (mut window, start) = (Window::default(), Instant::now());
        for (n, rtt) in (0..).zip(rtts) {
            window.add(start + n * MS, 0, rtt.map(|ms| ms * MS), Duration::from_secs(1));
        }
        window
    }

    #[test]
    fn loss_latency_and_jitter_are_what_they_are() {
        let answers =
            [Some(10), Some(30), None, Some(20), Some(20), None, Some(10), Some(10), Some(40), Some(50)];
        let quality = window(&answers).quality();
        assert_eq!((quality.samples, quality.loss), (10, 20));
        assert_eq!(quality.latency, Some(20 * MS));
        // 20, 10, 0, 10, 0, 30, 10 over seven.
        assert_eq!(quality.jitter.map(|j| j.as_micros()), Some(80_000 / 7));
        assert_eq!(Window::default().quality(), Quality::default());
    }

    #[test]
    fn uplinks_are_compared_by_what_is_fresh_and_more_than_one_answer() {
        let fresh = |answers: &[Option<u32>], after: u32| {
            window(answers).fresh_latency(Duration::from_secs(30), Instant::now() + after * MS)
        };
        assert_eq!(fresh(&[Some(10), Some(30), Some(20)], 10), Some(20 * MS));
        assert_eq!(fresh(&[Some(10), None, None, Some(20)], 10), None, "two of them say nothing");
        assert_eq!(fresh(&[Some(10), Some(30), Some(20)], 31_000), None, "it has not been asked since");
    }

    #[test]
    fn worse_than_allowed_is_told_and_half_of_it_is_fine() {
        let limits = Thresholds::DEFAULT;
        let flaw = |answers: &[Option<u32>]| window(answers).quality().flaw(&limits);
        let lossy = |lost, answered| flaw(&[vec![None; lost], vec![Some(9); answered]].concat());
        assert_eq!(lossy(8, 1), None, "too little is known");
        assert_eq!(lossy(2, 8), None, "as much as is allowed");
        assert_eq!(lossy(3, 7).as_deref(), Some("loss 30 %, 20 allowed"));
        assert_eq!(flaw(&[[Some(9); 10].as_slice(), &[None; 9]].concat()), None, "the outage of one target");
        assert_eq!(flaw(&[Some(800); 10]).as_deref(), Some("latency 800 ms, 600 allowed"));
        let jittery: Vec<_> = (0..10).map(|n| Some(if n % 2 == 0 { 10 } else { 400 })).collect();
        assert_eq!(flaw(&jittery).as_deref(), Some("jitter 390 ms, 300 allowed"));
        assert!(window(&[Some(300); 10]).quality().is_fine(&limits));
        assert!(!window(&[Some(301); 10]).quality().is_fine(&limits));
        assert!(!window(&[Some(1); 9]).quality().is_fine(&limits));
    }

    #[test]
    fn the_window_moves_on() {
        let (mut window, start) = (Window::default(), Instant::now());
        for n in 0..1000 {
            window.add(start + n * MS, 0, Some(MS), Duration::from_secs(60));
        }
        assert_eq!(window.quality().samples, MOST);
        window.add(start + Duration::from_secs(62), 1, Some(MS), Duration::from_secs(60));
        assert_eq!(window.quality(), Quality { samples: 1, loss: 0, latency: Some(MS), jitter: None });
        assert!(window.has_answered(1) && !window.has_answered(0));
    }
}
