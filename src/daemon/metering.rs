//! Keeps a meter for each link and a choice for each who asks for one: gives them counters, figures and the time.
//!
//! Decides when what was learned is worth to be written down; what follows from a figure is decided in
//! [`crate::core::balance`], and when to look, by [`super::sampler`].

use std::collections::BTreeMap;
use std::iter::once;
use std::time::{Duration, Instant};

use tracing::info;

use crate::core::balance::{
    Choices, Choosers, Directions, Figures, KeptChoices, Meter, Method, Pick, Pool, Rate,
};
use crate::core::layout::Slot;
use crate::core::net::{Family, PerFamily};
use crate::core::noted::Noted;
use crate::core::plan::Plan;
use crate::kernel::counters::Links;
use crate::status::{Status, TrafficStatus};

/// What was learned is written down this often at most.
const SAVING: Duration = Duration::from_secs(600);

/// The highest rates that lasted, of all uplinks that are remembered.
pub(super) type Learned = Noted<Directions<Rate>>;

/// The median round-trip times.
pub(super) type Latencies = BTreeMap<(Slot, Family), Duration>;

/// All that is measured.
pub(super) struct Metering {
    /// Of all uplinks that are remembered, as it is here that their capacities are.
    meters: Noted<Meter>,
    choosers: Choosers,
    /// Whom a round was last asked to use, as long as it does not.
    told: BTreeMap<(Pool, Family), Vec<Slot>>,
    saved: Learned,
    saved_at: Instant,
    kept: KeptChoices,
}

impl Metering {
    /// Begins with what was learned, and chosen, before.
    pub(super) fn new(learned: Learned, kept: KeptChoices) -> Self {
        Metering {
            meters: learned.filter_map(|rates| Some(Meter::new(*rates))),
            saved: learned,
            choosers: kept.clone().into(),
            told: BTreeMap::new(),
            saved_at: Instant::now(),
            kept,
        }
    }

    /// What a plan should go by.
    pub(super) fn choices(&self) -> Choices {
        self.choosers.choices()
    }

    /// For whom a choice is kept: the default route, and whoever asks for one that changes by itself.
    fn pools(plan: &Plan, method: Method) -> impl Iterator<Item = Pool> {
        let measured = plan.picks.keys().filter(|pool| pool.method.goes_by_figures()).cloned();
        once(Pool::of_all(method)).chain(measured)
    }

    /// Whether some choice goes by round-trip times.
    pub(super) fn asks_for_latencies(plan: &Plan, method: Method) -> bool {
        Self::pools(plan, method).any(|pool| pool.method == Method::LowestLatency)
    }

    /// Whether there is something to choose that changes by itself.
    pub(super) fn is_needed(plan: &Plan, method: Method) -> bool {
        plan.uplinks.len() > 1 && Self::pools(plan, method).any(|pool| pool.method.goes_by_figures())
    }

    /// Takes in what a round found.
    pub(super) fn follow(&mut self, plan: &Plan, now: Instant) {
        self.meters.follow(plan.slots.entries());
        for entry in plan.slots.entries() {
            let meter = self.meters.or_insert_with(entry, Meter::default);
            if plan.name_of(entry.slot).is_none() {
                meter.sample(None, now);
            }
        }
    }

    /// Measures nothing any more, until the next round.
    pub(super) fn rest(&mut self, now: Instant) {
        self.meters.values_mut().for_each(|meter| meter.sample(None, now));
        self.choosers = Choosers::default();
    }

    /// Takes in the counters; true where a plan would come out otherwise than the last one.
    pub(super) fn sample(
        &mut self,
        links: &Links,
        plan: &Plan,
        method: Method,
        latencies: &Latencies,
        now: Instant,
    ) -> bool {
        for uplink in &plan.uplinks {
            if let Some(meter) = self.meters.get_mut(uplink.slot) {
                meter.sample(links.bytes(&uplink.dev), now);
            }
        }
        self.choosers.follow(Self::pools(plan, method));
        self.choosers.look(&plan.uplinks, &self.figures(plan, latencies), now);
        let usual = Pool::of_all(method);
        let picks: Vec<(Pool, Family, Pick)> = self.choosers.picks(&plan.uplinks).collect();
        let mut news = false;
        // Each of them, as each has to be told.
        for (pool, family, pick) in picks {
            let last = match plan.picks.get(&pool).filter(|_| pool != usual) {
                Some(picks) => &picks[family].active,
                None => &plan.active[family],
            };
            news |= self.tell(plan, (pool, family), pick.active, last);
        }
        news
    }

    /// Says once that others are to carry what is new; while a round fails, when to try again is its own business.
    fn tell(&mut self, plan: &Plan, key: (Pool, Family), chosen: Vec<Slot>, last: &[Slot]) -> bool {
        if chosen == last {
            self.told.remove(&key);
            return false;
        }
        let news = self.told.get(&key) != Some(&chosen);
        if news {
            let (pool, family) = &key;
            let names = chosen.iter().filter_map(|slot| plan.name_of(*slot)).map(ToString::to_string);
            info!("{family}: new flows {pool} go over {}", Vec::from_iter(names).join(", "));
            self.told.insert(key, chosen);
        }
        news
    }

    /// What is known of each uplink.
    fn figures(&self, plan: &Plan, latencies: &Latencies) -> PerFamily<BTreeMap<Slot, Figures>> {
        PerFamily::from_fn(|family| {
            let figures = plan.uplinks.iter().filter_map(|uplink| {
                let meter = self.meters.get(uplink.slot)?;
                let latency = latencies.get(&(uplink.slot, family)).copied();
                let capacity = meter.capacity(uplink.capacity);
                Some((uplink.slot, Figures { rate: meter.rate(), capacity, latency }))
            });
            figures.collect()
        })
    }

    /// What was learned, where it is worth to be written down: now and then, or when we stop.
    pub(super) fn unsaved(&mut self, stopping: bool, now: Instant) -> Option<Learned> {
        if !stopping && now.saturating_duration_since(self.saved_at) < SAVING {
            return None;
        }
        let known = |meter: &Meter| Some(meter.learned()).filter(|rates| *rates != Directions::default());
        let learned = self.meters.filter_map(known);
        self.saved_at = now;
        (learned != self.saved).then(|| {
            self.saved = learned.clone();
            learned
        })
    }

    /// What is chosen, where that is not what was last written down.
    pub(super) fn unsaved_choices(&mut self) -> Option<KeptChoices> {
        let kept = self.choosers.kept();
        (kept != self.kept).then(|| {
            self.kept = kept.clone();
            kept
        })
    }

    /// Adds to a status what goes over each link, and what it can carry.
    pub(super) fn describe(&self, plan: &Plan, status: &mut Status) {
        for told in &mut status.uplinks {
            let uplink = plan.uplinks.iter().find(|uplink| uplink.slot.get() == told.slot);
            let measured = uplink.and_then(|u| Some((u, self.meters.get(u.slot)?)));
            told.traffic = measured
                .map(|(uplink, meter)| TrafficStatus::of(meter.rate(), meter.capacity(uplink.capacity)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::net::UplinkName;
    use crate::core::slots::{Identity, Slots};
    use crate::core::uplink::{Gateway, Leg, State, Uplink};

    const RATES: Directions<Rate> = Directions { down: Rate(40_000_000), up: Rate(8_000_000) };

    fn profile(uuid: &str) -> Identity {
        Identity::Profile(uuid.into())
    }

    /// A machine with uplinks of these profiles on one interface, in the slots from 1 on.
    fn plan_of(profiles: &[&str]) -> Plan {
        let entry = |(slot, uuid): (u8, &&str)| {
            serde_json::json!({
                "slot": slot, "identity": profile(uuid), "name": uuid, "interface": "eth1", "seen": 1
            })
        };
        let entries: Vec<_> = (1..).zip(profiles).map(entry).collect();
        let slots: Slots = serde_json::from_value(serde_json::json!({ "entries": entries })).unwrap();
        let uplink = |(slot, uuid): (u8, &&str)| {
            let mut uplink = Uplink::example(slot, up());
            uplink.name = UplinkName::new(uuid).unwrap();
            uplink
        };
        let uplinks: Vec<_> = (1..).zip(profiles).map(uplink).collect();
        Plan { uplinks, slots, ..Plan::default() }
    }

    fn up() -> Leg {
        Leg { state: State::Up, link: true, gateway: Some(Gateway::Link), ..Leg::default() }
    }

    /// What was learned before, of the fibre.
    fn learned() -> Learned {
        let mut learned = Learned::default();
        plan_of(&["fibre"])
            .slots
            .entries()
            .iter()
            .for_each(|entry| *learned.or_insert_with(entry, || RATES) = RATES);
        learned
    }

    fn metering() -> Metering {
        Metering::new(learned(), KeptChoices::new())
    }

    #[test]
    fn what_was_learned_belongs_to_the_uplink_and_not_to_its_slot() {
        let (mut metering, now) = (metering(), Instant::now());
        let mut learned = |names: &[&str]| {
            metering.follow(&plan_of(names), now);
            metering.meters.iter().map(|(_, meter)| meter.learned()).collect::<Vec<_>>()
        };
        let nothing = Directions::default();
        assert_eq!(learned(&["fibre"]), [RATES]);
        assert_eq!(learned(&["cable", "fibre"]), [nothing, RATES], "the memory of slots was lost");
        assert_eq!(learned(&["cable"]), [nothing], "another is in its slot");
        assert_eq!(learned(&["fibre"]), [nothing], "it was forgotten");
    }

    #[test]
    fn what_is_new_is_written_down_when_we_stop_and_seldom_before() {
        let (mut metering, now) = (metering(), Instant::now());
        assert_eq!(metering.unsaved(true, now), None, "nothing is new");
        let plan = plan_of(&["fibre", "cable"]);
        metering.follow(&plan, now);
        assert_eq!(metering.unsaved(true, now), None, "of the other nothing is known");
        *metering.meters.get_mut(plan.uplinks[1].slot).unwrap() = Meter::new(RATES);
        assert_eq!(metering.unsaved(false, now), None, "it was read a moment ago");
        assert_eq!(metering.unsaved(false, now + SAVING).map(|learned| learned.iter().count()), Some(2));
        assert_eq!(metering.unsaved(true, now + SAVING), None);
    }

    #[test]
    fn what_is_chosen_is_written_down_when_it_is_another() {
        let mut metering = metering();
        assert_eq!(metering.unsaved_choices(), None, "nothing was chosen yet");
        let plan = plan_of(&["fibre"]);
        metering.sample(&Links::read(), &plan, Method::Overflow, &Latencies::new(), Instant::now());
        let kept = metering.unsaved_choices().expect("it is another method");
        assert_eq!(metering.unsaved_choices(), None);
        let mut later = Metering::new(Learned::default(), kept.clone());
        assert_eq!((later.unsaved_choices(), &later.kept), (None, &kept), "a restart changes nothing");
    }

    #[test]
    fn it_is_said_once_who_is_chosen_while_rounds_fail() {
        let (mut metering, plan) = (metering(), plan_of(&["fibre", "cable"]));
        let mut news = |plan: &Plan| {
            metering.sample(&Links::read(), plan, Method::Priority, &Latencies::new(), Instant::now())
        };
        assert_eq!([news(&plan), news(&plan), news(&plan)], [true, false, false], "nothing is routed yet");
        let mut done = plan.clone();
        done.active.v4 = vec![plan.uplinks[0].slot];
        assert_eq!([news(&done), news(&plan)], [false, true]);
    }

    #[test]
    fn counters_are_needed_where_figures_decide_among_several() {
        let needed = |names: &[&str], method| Metering::is_needed(&plan_of(names), method);
        assert!(needed(&["fibre", "cable"], Method::LeastUsed));
        assert!(!needed(&["fibre"], Method::LeastUsed));
        assert!(!needed(&["fibre", "cable"], Method::Weighted));
    }
}
