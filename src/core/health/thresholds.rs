//! The one table of what health is judged by, and its defaults.
//!
//! Asymmetric throughout: it takes more to come back than to go, so that an uplink at the brink does not flap.

use std::time::Duration;

/// The limits of one uplink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// How often an uplink is asked.
    pub interval: Duration,
    /// How often one is asked that is metered, or the only one, while it carries nothing.
    pub idle_interval: Duration,
    /// The longest time that an answer is waited for before it counts as missing; a link that usually answers
    /// sooner is waited for less.
    pub timeout: Duration,
    /// How many targets have to answer.
    pub quorum: u8,
    /// So many unanswered volleys at all targets take it down.
    pub down_after: u8,
    /// So many good rounds in a row bring it back.
    pub up_after: u8,
    /// More loss than this, in percent, degrades it; half of it or less ends that. The same holds of the next two.
    pub max_loss: u8,
    /// Longer median round-trip times degrade it.
    pub max_latency: Duration,
    /// A larger mean difference between successive round-trip times of one target degrades it.
    pub max_jitter: Duration,
    /// What loss, latency and jitter are measured over.
    pub window: Duration,
    /// How long it is held back after its second failure in a short time; doubled with each further one.
    pub hold: Duration,
}

impl Thresholds {
    /// What holds where nothing is configured.
    pub const DEFAULT: Thresholds = Thresholds {
        interval: Duration::from_secs(1),
        idle_interval: Duration::from_secs(60),
        timeout: Duration::from_secs(1),
        quorum: 1,
        down_after: 3,
        up_after: 5,
        max_loss: 20,
        max_latency: Duration::from_millis(600),
        max_jitter: Duration::from_millis(300),
        window: Duration::from_secs(30),
        hold: Duration::from_secs(10),
    };
}

/// One limit that is other than usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the field of its name")]
pub enum Limit {
    Interval(Duration),
    Timeout(Duration),
    Quorum(u8),
    DownAfter(u8),
    UpAfter(u8),
    MaxLoss(u8),
    MaxLatency(Duration),
    MaxJitter(Duration),
    Window(Duration),
    Hold(Duration),
}

impl Thresholds {
    /// These limits, but for those that are set; of two for one thing the later.
    pub fn with(mut self, limits: &[Limit]) -> Self {
        for limit in limits {
            match *limit {
                Limit::Interval(time) => self.interval = time,
                Limit::Timeout(time) => self.timeout = time,
                Limit::Quorum(count) => self.quorum = count,
                Limit::DownAfter(count) => self.down_after = count,
                Limit::UpAfter(count) => self.up_after = count,
                Limit::MaxLoss(percent) => self.max_loss = percent,
                Limit::MaxLatency(time) => self.max_latency = time,
                Limit::MaxJitter(time) => self.max_jitter = time,
                Limit::Window(time) => self.window = time,
                Limit::Hold(time) => self.hold = time,
            }
        }
        self.idle_interval = self.idle_interval.max(self.interval);
        self
    }

    /// The window, but long enough for so many rounds that figures mean something.
    pub fn measured_over(&self) -> Duration {
        self.window.max(self.interval.saturating_mul(12))
    }
}

impl Default for Thresholds {
    fn default() -> Self {
        Thresholds::DEFAULT
    }
}
