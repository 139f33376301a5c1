//! What systemd is told (sd_notify(3)); nothing happens where it did not start us.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{Interval, MissedTickBehavior, interval};

fn tell(states: &[NotifyState<'_>]) {
    // Whoever started us may not want to know.
    let _ = sd_notify::notify(states);
}

/// Started, or done with a reload.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// A reload has begun.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// One line for `systemctl status`.
pub fn status(line: &str) {
    tell(&[NotifyState::Status(line)]);
}

/// The loop turns.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// Ticks as often as systemd's watchdog wants to hear from us; where it does not, once an hour.
pub fn watchdog() -> Interval {
    let limit = sd_notify::watchdog_enabled().unwrap_or(Duration::from_secs(7200));
    let mut interval = interval(limit / 2);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
