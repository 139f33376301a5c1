//! What flows met, counted.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::address::isp_of;
use super::recovery::Recovery;

/// How many connections went by which ISP.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shares {
    by_isp: BTreeMap<u8, usize>,
    /// Connections that failed, with what went wrong.
    pub failures: Vec<String>,
    /// Connections that came from an address that no ISP has.
    pub strange: Vec<IpAddr>,
}

impl Shares {
    /// How many went by ISP `number`.
    pub fn of(&self, number: u8) -> usize {
        self.by_isp.get(&number).copied().unwrap_or(0)
    }

    /// How many were answered.
    pub fn answered(&self) -> usize {
        self.by_isp.values().sum::<usize>() + self.strange.len()
    }

    /// The ISPs that carried any, in order.
    pub fn isps(&self) -> Vec<u8> {
        self.by_isp.keys().copied().collect()
    }

    /// Count one that was answered.
    pub fn add(&mut self, seen: IpAddr) {
        match isp_of(seen) {
            Some(isp) => *self.by_isp.entry(isp).or_default() += 1,
            None => self.strange.push(seen),
        }
    }
}

/// One datagram of a flow and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// When it was sent, from the start of the flow.
    pub sent: Duration,
    /// When the answer came, from the start of the flow, and the address that the other side saw.
    pub answer: Option<(Duration, IpAddr)>,
    /// Why it could not be sent, or was given up.
    pub error: Option<String>,
}

/// What became of a flow of datagrams, or of many flows of one datagram each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpReport {
    /// When it started.
    pub start: Instant,
    /// All that were tried, in order.
    pub packets: Vec<Packet>,
    /// How long the sender ran.
    pub ran: Duration,
}

/// Answers that followed each other by one ISP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// Which; none for an address that no ISP has.
    pub isp: Option<u8>,
    /// When the first of them arrived, from the start of the flow.
    pub from: Duration,
    /// When the last of them did.
    pub to: Duration,
    /// How many there were.
    pub answers: usize,
}

/// [`UdpReport`] where every packet is a flow, or a connection, of its own.
pub type NewFlowsReport = UdpReport;

impl UdpReport {
    pub(super) fn begin() -> UdpReport {
        UdpReport { start: Instant::now(), packets: Vec::new(), ran: Duration::ZERO }
    }

    /// How many were tried.
    pub fn sent(&self) -> usize {
        self.packets.len()
    }

    /// How many were answered.
    pub fn answered(&self) -> usize {
        self.packets.iter().filter(|packet| packet.answer.is_some()).count()
    }

    /// How many were not answered.
    pub fn lost(&self) -> usize {
        self.sent() - self.answered()
    }

    /// How many of those sent in this span of the flow's time were lost, and how many were sent.
    pub fn lost_between(&self, from: Duration, to: Duration) -> (usize, usize) {
        let span = self.packets.iter().filter(|packet| (from..to).contains(&packet.sent));
        let (lost, sent): (Vec<_>, Vec<_>) = span.partition(|packet| packet.answer.is_none());
        (lost.len(), lost.len() + sent.len())
    }

    /// What a fault did to it, by when answers arrived. While only a part of all new flows fails there is no silence: see
    /// [`UdpReport::failed_until`].
    pub fn recovery(&self, fault: Instant) -> Recovery {
        let last_sent = self.packets.last().map_or(Duration::ZERO, |packet| packet.sent);
        Recovery::of(&self.answers(), fault.saturating_duration_since(self.start), last_sent)
    }

    /// [`Recovery::recovered`].
    pub fn recovered_after(&self, fault: Instant) -> Option<Duration> {
        self.recovery(fault).recovered
    }

    /// From a fault to when the last of those that failed was sent; zero when none sent after it failed.
    pub fn failed_until(&self, fault: Instant) -> Duration {
        let fault = fault.saturating_duration_since(self.start);
        let last = self.packets.iter().rfind(|packet| packet.answer.is_none());
        last.map_or(Duration::ZERO, |packet| packet.sent.saturating_sub(fault))
    }

    /// When each answer arrived, from the start of the flow, and by which ISP, in the order of arrival.
    pub fn answers(&self) -> Vec<(Duration, Option<u8>)> {
        let answers = self.packets.iter().filter_map(|packet| packet.answer);
        let mut answers: Vec<_> = answers.map(|(at, seen)| (at, isp_of(seen))).collect();
        answers.sort_unstable();
        answers
    }

    /// The ISPs that answers came by one after another: since when, and how many.
    pub fn ways(&self) -> Vec<Way> {
        let mut ways: Vec<Way> = Vec::new();
        for (at, isp) in self.answers() {
            match ways.last_mut().filter(|way| way.isp == isp) {
                Some(way) => (way.to, way.answers) = (at, way.answers + 1),
                None => ways.push(Way { isp, from: at, to: at, answers: 1 }),
            }
        }
        ways
    }

    /// The longest time between two answers that followed each other; before the first and after the last count too.
    pub fn longest_silence(&self) -> Duration {
        let mut times: Vec<Duration> =
            self.packets.iter().filter_map(|packet| Some(packet.answer.as_ref()?.0)).collect();
        times.sort_unstable();
        let last_sent = self.packets.last().map_or(Duration::ZERO, |packet| packet.sent);
        times.push(times.last().copied().unwrap_or_default().max(last_sent));
        let mut before = Duration::ZERO;
        let gaps = times.into_iter().map(|time| {
            let gap = time - before;
            before = time;
            gap
        });
        gaps.max().unwrap_or_default()
    }

    /// From sending the first lost packet to sending the last, the time in which packets were lost.
    pub fn loss_window(&self) -> Duration {
        let mut lost = self.packets.iter().filter(|packet| packet.answer.is_none());
        let Some(first) = lost.next() else {
            return Duration::ZERO;
        };
        lost.next_back().unwrap_or(first).sent - first.sent
    }

    /// Which addresses the other side saw, how often, in the order of their first appearance.
    pub fn seen(&self) -> Vec<(IpAddr, usize)> {
        let mut all: Vec<(IpAddr, usize)> = Vec::new();
        for (_, seen) in self.packets.iter().filter_map(|packet| packet.answer.as_ref()) {
            match all.iter_mut().find(|(known, _)| known == seen) {
                Some((_, count)) => *count += 1,
                None => all.push((*seen, 1)),
            }
        }
        all
    }

    /// The answered ones by ISP.
    pub fn shares(&self) -> Shares {
        let mut shares = Shares::default();
        for (_, seen) in self.packets.iter().filter_map(|packet| packet.answer.as_ref()) {
            shares.add(*seen);
        }
        shares
    }

    /// One line for people.
    pub fn summary(&self) -> String {
        format!(
            "{} sent, {} lost within {:?}, longest silence {:?}, {:?}",
            self.sent(),
            self.lost(),
            self.loss_window(),
            self.longest_silence(),
            self.seen()
        )
    }
}
