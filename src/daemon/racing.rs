//! Runs the races of policies by fastest response: hears first packets, has handshakes made, and writes down who has won.
//!
//! Decides when to listen; whom a race is run for is decided in [`crate::core::race`].

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use tokio::task::JoinSet;
use tracing::{debug, warn};

use super::probing::way;
use crate::core::layout::Slot;
use crate::core::net::Family;
use crate::core::nft::Verdict;
use crate::core::plan::{Plan, PolicyPlan};
use crate::core::policy::Way as Method;
use crate::core::race::{Course, End, GROUP, LIMIT, REMEMBERED, Races, called};
use crate::kernel::nflog::{Copied, Listener};
use crate::kernel::winners;
use crate::probes::{self, Finish, Way};
use crate::status::{RaceStatus, Status};
use crate::world::chain;

/// All races, and what is known of who follows their winners.
#[derive(Default)]
pub(super) struct Racing {
    listener: Option<Listener>,
    /// Why nothing is heard.
    deaf: Option<String>,
    courses: BTreeMap<Course, Vec<(Slot, Way)>>,
    races: Races,
    running: JoinSet<(Course, IpAddr, End)>,
    /// What the kernel said when it was last asked.
    seen: BTreeMap<Course, Seen>,
}

/// What the kernel knows of a course.
#[derive(Debug, Default)]
struct Seen {
    hits: u64,
    /// How many destinations each mark leads.
    led: BTreeMap<u32, usize>,
}

impl Racing {
    /// Takes in what a round found.
    pub(super) async fn follow(&mut self, plan: &Plan) {
        self.courses = plan.policies.iter().flat_map(|policy| courses(policy, plan)).collect();
        let courses = &self.courses;
        self.races.retain(|course| courses.contains_key(course));
        self.seen.retain(|course, _| courses.contains_key(course));
        if self.courses.is_empty() {
            (self.listener, self.deaf) = (None, None);
        } else if self.listener.is_none() {
            let opened = Listener::open(GROUP).await;
            let why = opened.as_ref().err().map(|error| format!("no races are run: {}", chain(error)));
            if let Some(why) = why.as_ref().filter(|why| self.deaf.as_ref() != Some(why)) {
                warn!("{why}");
            }
            (self.listener, self.deaf) = (opened.ok(), why);
        }
    }

    /// Runs nothing any more, until the next round.
    pub(super) fn rest(&mut self) {
        *self = Racing::default();
    }

    /// Runs races, for as long as it is waited for. May be dropped while it waits; nothing is lost.
    pub(super) async fn run(&mut self) {
        loop {
            let heard = async {
                match &mut self.listener {
                    Some(listener) => listener.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(done) = self.running.join_next() => {
                    if let Ok((course, to, end)) = done {
                        self.races.end(&course, to, end);
                    }
                }
                heard = heard => match heard {
                    Ok(copies) => copies.iter().for_each(|copied| self.hear(copied)),
                    Err(error) => {
                        warn!("first packets are heard no longer: {error}");
                        self.listener = None;
                    }
                }
            }
        }
    }

    fn hear(&mut self, copied: &Copied) {
        let now = Instant::now();
        let Some(to) = called(&copied.packet) else { return };
        let Some(course) = Course::named(&copied.prefix) else { return };
        let Some(runners) = self.courses.get(&course) else { return };
        if self.races.begin(&course, to.ip(), runners.len(), now) {
            self.running.spawn(run(course, to, runners.clone(), now));
        }
    }

    /// Asks the kernel who follows whom.
    pub(super) async fn look(&mut self) {
        if self.courses.is_empty() {
            return;
        }
        let hits = winners::counted().await.unwrap_or_default();
        for course in self.courses.keys() {
            let led = winners::led(course).await.unwrap_or_default();
            let hits = hits.get(&course.hits()).copied().unwrap_or_default();
            self.seen.insert(course.clone(), Seen { hits, led });
        }
    }

    /// Adds to a status what became of the races.
    pub(super) fn describe(&self, plan: &Plan, status: &mut Status) {
        let name =
            |mark: u32| Some(plan.uplinks.iter().find(|u| u.slot.mark().value() == mark)?.name.to_string());
        for policy in status.policies.iter_mut().filter(|one| one.method == Method::Fastest.as_str()) {
            let course = Family::BOTH.map(|family| Course::of(&policy.name, family));
            for ((_, leg), course) in policy.legs_mut().into_iter().zip(course) {
                let (hits, led) =
                    self.seen.get(&course).map_or((0, None), |seen| (seen.hits, Some(&seen.led)));
                let leads =
                    led.into_iter().flatten().filter_map(|(mark, count)| Some((name(*mark)?, *count)));
                leg.races = Some(RaceStatus::of(&self.races.tally(&course), hits, leads.collect()));
            }
        }
        status.notes.extend(self.deaf.clone());
    }
}

/// Who races for a policy, in each family.
fn courses(policy: &PolicyPlan, plan: &Plan) -> Vec<(Course, Vec<(Slot, Way)>)> {
    let runners = |family: Family| {
        let Verdict::Take(shares) = &policy.verdict[family] else { return Vec::new() };
        let of = |slot: &Slot| plan.uplinks.iter().find(|uplink| uplink.slot == *slot);
        let uplinks = shares.iter().filter_map(|(slot, _)| of(slot));
        uplinks.map(|uplink| (uplink.slot, way(uplink, &uplink.legs[family], family))).collect()
    };
    let is_one = policy.way == Method::Fastest;
    let families = Family::BOTH.into_iter().filter(|_| is_one);
    families.map(|family| (Course::of(&policy.name, family), runners(family))).collect()
}

/// Runs a race, and writes down who has won.
async fn run(
    course: Course,
    to: SocketAddr,
    runners: Vec<(Slot, Way)>,
    heard: Instant,
) -> (Course, IpAddr, End) {
    let (slots, ways): (Vec<Slot>, Vec<Way>) = runners.into_iter().unzip();
    let Finish { winner, bytes } = probes::race(to, &ways, LIMIT).await;
    let mut end = End { winner: None, bytes };
    if let Some((slot, time)) = winner.and_then(|(n, time)| Some((*slots.get(n)?, time))) {
        match winners::put(&course, to.ip(), slot.mark(), REMEMBERED).await {
            Ok(()) => end.winner = Some((slot, heard.elapsed())),
            // The policy may be gone, or know as many as it can.
            Err(error) => debug!("{}", chain(&error)),
        }
        debug!("race to {to}: slot {slot} after {time:?}, known after {:?}", heard.elapsed());
    }
    (course, to.ip(), end)
}
