//! What the status tells of the traffic on a link.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::core::balance::{Capacity, Directions, Rate};

/// What goes over a link, and what it can carry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficStatus {
    /// What is received.
    pub down: DirectionStatus,
    /// What is sent.
    pub up: DirectionStatus,
}

/// One way of a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectionStatus {
    /// The rate over the last three seconds, in bits per second; null before it is known.
    pub bps: Option<u64>,
    /// What the link can carry, in bits per second; null where that is not known.
    pub capacity_bps: Option<u64>,
    /// The capacity is not configured: it is the most that the link was seen to carry.
    pub learned: bool,
}

impl TrafficStatus {
    /// Tells of rates and capacities.
    pub fn of(rates: Option<Directions<Rate>>, capacities: Directions<Option<Capacity>>) -> Self {
        let one = |rate: Option<Rate>, capacity: Option<Capacity>| DirectionStatus {
            bps: rate.map(|rate| rate.0),
            capacity_bps: capacity.map(|capacity| capacity.rate.0),
            learned: capacity.is_some_and(|capacity| capacity.learned),
        };
        TrafficStatus {
            down: one(rates.map(|rates| rates.down), capacities.down),
            up: one(rates.map(|rates| rates.up), capacities.up),
        }
    }
}

/// As people read it: `1.2 Mbit/s of 100 Mbit/s (learned)`.
impl fmt::Display for DirectionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bps {
            Some(rate) => Rate(rate).fmt(f)?,
            None => f.write_str("not measured yet")?,
        }
        let learned = if self.learned { " (learned)" } else { "" };
        self.capacity_bps.map_or(Ok(()), |capacity| write!(f, " of {}{learned}", Rate(capacity)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_what_is_learned_and_what_is_not_known() {
        let capacities = Directions {
            down: Some(Capacity { rate: Rate(100_000_000), learned: false }),
            up: Some(Capacity { rate: Rate(16_500_000), learned: true }),
        };
        let rates = Directions { down: Rate(1_250_000), up: Rate(0) };
        let told = |rates, capacities| {
            let TrafficStatus { down, up } = TrafficStatus::of(rates, capacities);
            [down.to_string(), up.to_string()]
        };
        assert_eq!(
            told(Some(rates), capacities),
            ["1.2 Mbit/s of 100 Mbit/s", "0 bit/s of 16.5 Mbit/s (learned)"]
        );
        assert_eq!(told(Some(rates), Directions::default()), ["1.2 Mbit/s", "0 bit/s"]);
        assert_eq!(told(None, Directions::default()), ["not measured yet"; 2]);
    }
}
