//! From what a link's counters say to how much went over it since they were last read.
//!
//! A counter begins at nothing with its device, with a reboot, or when a driver feels like it; and one of 32 bits does so
//! each 4 GiB (`net_device_stats` is of `unsigned long`, include/linux/netdevice.h).

use serde::{Deserialize, Serialize};

use crate::core::balance::Bytes;

/// The counters of a link at a moment, with what tells which counters they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// The boot of the machine, as `/proc/sys/kernel/random/boot_id` names it.
    pub boot: String,
    /// The link's interface index: a device that is made anew has another.
    pub index: u32,
    /// The highest index that any link had: what has a higher one was made later (`dev_index_reserve`, net/core/dev.c).
    pub newest: u32,
    /// What its counters say.
    pub bytes: Bytes,
}

/// A wrap is believed where a counter was above three quarters of 32 bits, and is below one.
const NEARLY_FULL: u64 = 3 << 30;
const NEARLY_EMPTY: u64 = 1 << 30;

impl Reading {
    /// What went over the link since an earlier reading; without one nothing is known, and nothing is counted.
    pub fn since(&self, earlier: Option<&Reading>) -> u64 {
        let Some(earlier) = earlier else { return 0 };
        let all = self.bytes.down.saturating_add(self.bytes.up);
        if self.boot != earlier.boot {
            return all;
        }
        if self.index != earlier.index {
            // One that was there before carried others' traffic.
            return if self.index > earlier.newest { all } else { 0 };
        }
        // Each for itself: one that begins anew says nothing of what the other has counted in all its life.
        let [down, up] = earlier.bytes.zip(self.bytes).map(|(then, now)| passed(then, now)).both();
        down.saturating_add(up)
    }

    /// The same, where a counter that stepped back a little stands where it was: what it counts again is not new.
    pub fn behind(self, earlier: Option<&Reading>) -> Reading {
        let same = |other: &&Reading| (&other.boot, other.index) == (&self.boot, self.index);
        let Some(earlier) = earlier.filter(same) else { return self };
        let bytes = earlier.bytes.zip(self.bytes);
        let bytes = bytes.map(|(then, now)| if steps_back(then, now) { then } else { now });
        Reading { bytes, ..self }
    }
}

/// By how much a counter has grown.
fn passed(then: u64, now: u64) -> u64 {
    match now.checked_sub(then) {
        Some(grown) => grown,
        None if wrapped(then, now) => FULL - then + now,
        None if steps_back(then, now) => 0,
        None => now,
    }
}

/// The end of a counter of 32 bits.
const FULL: u64 = 1 << 32;

fn wrapped(then: u64, now: u64) -> bool {
    (NEARLY_FULL..FULL).contains(&then) && now < NEARLY_EMPTY
}

/// It went back, and not to its beginning: a sum that was read while its parts were changed.
fn steps_back(then: u64, now: u64) -> bool {
    now < then && now > then / 2 && !wrapped(then, now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(boot: &str, index: u32, newest: u32, down: u64, up: u64) -> Reading {
        Reading { boot: boot.into(), index, newest, bytes: Bytes { down, up } }
    }

    #[test]
    fn counters_that_begin_anew_are_understood() {
        let then = read("a", 3, 5, 5000, 700);
        let since = |now: Reading| now.since(Some(&then));
        assert_eq!(since(read("a", 3, 5, 5100, 710)), 110);
        assert_eq!(since(read("a", 3, 5, 5000, 700)), 0);
        assert_eq!(since(read("a", 3, 5, 90, 710)), 100, "one of them was reset, and the other one was not");
        assert_eq!(since(read("a", 6, 6, 40, 2)), 42, "made anew since");
        assert_eq!(since(read("a", 4, 6, 40, 2)), 0, "another that was there before");
        assert_eq!(since(read("a", 2, 6, 40, 2)), 0);
        assert_eq!(since(read("b", 3, 5, 90_000, 1)), 90_001, "a reboot");
        assert_eq!(read("a", 3, 5, 5000, 700).since(None), 0, "seen for the first time");
    }

    #[test]
    fn a_counter_of_32_bits_goes_round_and_a_larger_one_does_not() {
        let full = 1u64 << 32;
        let since = |then, now| read("a", 3, 5, now, 1000).since(Some(&read("a", 3, 5, then, 1000)));
        assert_eq!(since(full - 100, 50), 150);
        assert_eq!(since(full + 100, 50), 50, "it has more bits, so it was reset");
        assert_eq!(since(full / 2, 50), 50, "too far from its end: reset");
        assert_eq!(since(full - 100, full / 2 - 51), full / 2 - 51);
        assert_eq!(read("a", 3, 5, u64::MAX, u64::MAX).since(Some(&read("b", 1, 1, 0, 0))), u64::MAX);
    }

    #[test]
    fn a_counter_that_steps_back_a_little_counts_nothing_twice() {
        let then = read("a", 3, 5, 1 << 40, 1 << 39);
        let mut last = then.clone();
        let mut count = |down: u64, up: u64| {
            let now = read("a", 3, 5, down, up);
            let fresh = now.since(Some(&last));
            last = now.behind(Some(&last));
            fresh
        };
        let down = then.bytes.down;
        assert_eq!(
            count(down - 1500, 7 + (1 << 39)),
            7,
            "neither all of its life, nor what it carried before"
        );
        assert_eq!([count(down, 7 + (1 << 39)), count(down - 1, 7 + (1 << 39))], [0, 0]);
        assert_eq!(count(down + 9, 7 + (1 << 39)), 9);
        assert_eq!(count(20, 30), 50, "both were reset");
        assert_eq!(count(21, 30), 1);
        let nothing = read("a", 3, 5, 0, 0);
        assert_eq!(
            nothing.clone().behind(Some(&read("a", 3, 5, 1, 1))),
            nothing,
            "at nothing it has begun anew"
        );
        assert_eq!(read("b", 3, 5, 4, 4).behind(Some(&then)), read("b", 3, 5, 4, 4));
    }
}
