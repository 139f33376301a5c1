//! Fastest response: on first contact with a destination, TCP handshakes race over the uplinks of a policy.
//!
//! The flow that makes the contact waits for nothing: it takes an uplink by weight, while a copy of its first packet comes
//! to us. The uplink by which a handshake with the same address and port is answered first is written into the table of
//! policies, and leads what goes there for a while. So the kernel is the memory: nothing of it is kept here, and nothing is
//! lost with the daemon.
//!
//! Only an acceptance wins. A refusal is an answer too, but what stands near and filters refuses faster than anybody who is
//! asked, and would lead all to where nothing works. There are no ties, as the kernel hands us one answer after the other;
//! and near-equals need no hysteresis, as the next race for a destination is run after [`REMEMBERED`].
//!
//! Decides who may be raced for, and how many at once. Refuses to know how a handshake is made, and reads no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::layout::Slot;
use super::net::Family;
use super::scope::is_public;
use super::stream::TCP;
use super::text::hash;

/// So long a winner leads; then the next contact makes another race.
pub const REMEMBERED: Duration = Duration::from_secs(600);
/// So long a destination is not asked for again, whatever came of it.
pub const PAUSE: Duration = Duration::from_secs(30);
/// So long an answer is waited for: less than the second after which Linux would send the first packet again
/// (`TCP_TIMEOUT_INIT`, net/tcp.h), so that each uplink is asked once.
pub const LIMIT: Duration = Duration::from_millis(900);
/// Destinations that each policy knows of each family; what does not fit is led by weight.
pub const DESTINATIONS: u32 = 16_384;
/// Clients whose share is minded, of each policy and family; while there are more, nobody new is raced for.
pub const CLIENTS: u32 = 4096;
/// Races a second that one client can cause, and how many at once after a rest.
pub const OF_ONE: (u32, u32) = (5, 20);
/// Races a second that all can cause, and how many at once after a rest.
pub const OF_ALL: (u32, u32) = (20, 60);
/// Races that run at the same time.
pub const AT_ONCE: usize = 32;
/// The group of nflog by which first packets are copied to us (nfnetlink_log has 65536, of which programs use low ones).
pub const GROUP: u16 = 7000;

/// As much of a packet as is copied: the headers of IPv6 and TCP, or of IPv4 with all options and TCP.
pub const SNAP: u32 = 80;

/// A policy's destinations of one family, by the name that the objects of our table have for them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Course(String);

impl Course {
    /// That of a policy: who is called otherwise is another.
    pub fn of(policy: &str, family: Family) -> Self {
        Course(format!("{:016x}_{}", hash(policy), family.version()))
    }

    /// The one that is meant by a text which [`fmt::Display`] has made.
    pub fn named(text: &str) -> Option<Self> {
        let (hex, family) = text.split_once('_')?;
        let is_one = hex.len() == 16 && u64::from_str_radix(hex, 16).is_ok() && ["4", "6"].contains(&family);
        is_one.then(|| Course(text.to_owned()))
    }

    /// Of which family its destinations are.
    pub fn family(&self) -> Family {
        if self.0.ends_with('4') { Family::V4 } else { Family::V6 }
    }

    /// The map from a destination to the mark of its winner.
    pub fn winners(&self) -> String {
        format!("winners_{self}")
    }

    /// The counter of flows that followed a winner.
    pub fn hits(&self) -> String {
        format!("hits_{self}")
    }
}

impl fmt::Display for Course {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// RFC 9293, 3.1
const SYN_AND_ACK: u8 = 0x12;
const SYN: u8 = 0x02;

/// Whom a packet calls, read from its beginning, which is its IP header; none where it begins no TCP connection.
pub fn called(packet: &[u8]) -> Option<SocketAddr> {
    let (ip, segment): (IpAddr, &[u8]) = match packet.first()? >> 4 {
        4 => {
            let header = usize::from(packet[0] & 0xf) * 4;
            let is_fragment = u16::from_be_bytes(*packet.get(6..)?.first_chunk()?) & 0x1fff != 0;
            let is_tcp = header >= 20 && !is_fragment && packet.get(9) == Some(&TCP);
            let to = packet.get(16..)?.first_chunk::<4>()?;
            (Ipv4Addr::from(*to).into(), packet.get(header..).filter(|_| is_tcp)?)
        }
        6 => {
            let to = packet.get(24..)?.first_chunk::<16>()?;
            let is_tcp = packet.get(6) == Some(&TCP);
            (Ipv6Addr::from(*to).into(), packet.get(40..).filter(|_| is_tcp)?)
        }
        _ => return None,
    };
    let port = u16::from_be_bytes(*segment.get(2..)?.first_chunk()?);
    let begins = segment.get(13)? & SYN_AND_ACK == SYN;
    (begins && port != 0).then_some(SocketAddr::new(ip, port))
}

/// How a race ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Who was answered first, and after what time from the copy's arrival that was written down; none where nobody was.
    pub winner: Option<(Slot, Duration)>,
    /// Bytes on the wire, IP headers included, both directions.
    pub bytes: u32,
}

/// What became of the races of a course since the daemon was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Those that were run, and ended.
    pub run: u64,
    /// Those of them that somebody has won.
    pub won: u64,
    /// Destinations that were not raced for: too many at once, or not public.
    pub left_out: u64,
    /// Bytes on the wire.
    pub bytes: u64,
    /// How long it took to know all the winners.
    took: Duration,
}

impl Tally {
    /// How long it takes to know a winner, on average; none where there was none.
    pub fn mean(&self) -> Option<Duration> {
        u32::try_from(self.won).ok().filter(|won| *won > 0).map(|won| self.took / won)
    }
}

/// The races that run, and what became of the others.
#[derive(Debug, Default)]
pub struct Races {
    running: BTreeSet<(Course, IpAddr)>,
    /// When all that were allowed would be paid for at the usual rate.
    paid: Option<Instant>,
    tallies: BTreeMap<Course, Tally>,
}

impl Races {
    /// Whether there is to be a race to an address, over so many uplinks. One that is allowed has to [end](Self::end).
    pub fn begin(&mut self, course: &Course, to: IpAddr, uplinks: usize, now: Instant) -> bool {
        let key = (course.clone(), to);
        if uplinks < 2 || self.running.contains(&key) {
            return false;
        }
        let (rate, burst) = OF_ALL;
        let each = Duration::from_secs(1) / rate;
        let paid = self.paid.map_or(now, |paid| paid.max(now));
        let allowed = is_public(to)
            && self.running.len() < AT_ONCE
            && paid.saturating_duration_since(now) + each <= each * burst;
        if allowed {
            self.paid = Some(paid + each);
            self.running.insert(key);
        } else {
            self.tallies.entry(course.clone()).or_default().left_out += 1;
        }
        allowed
    }

    /// Takes in how one ended.
    pub fn end(&mut self, course: &Course, to: IpAddr, end: End) {
        self.running.remove(&(course.clone(), to));
        let tally = self.tallies.entry(course.clone()).or_default();
        tally.run += 1;
        tally.bytes += u64::from(end.bytes);
        if let Some((_, took)) = end.winner {
            tally.won += 1;
            tally.took += took;
        }
    }

    /// What became of the races of a course.
    pub fn tally(&self, course: &Course) -> Tally {
        self.tallies.get(course).copied().unwrap_or_default()
    }

    /// Forgets what became of the races of all other courses.
    pub fn retain(&mut self, keep: impl Fn(&Course) -> bool) {
        self.tallies.retain(|course, _| keep(course));
    }
}

#[cfg(test)]
mod tests;
