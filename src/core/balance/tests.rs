use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::core::layout::Slot;
use crate::core::net::{Family, Metric, Tier, Weight};
use crate::core::policy::Way;
use crate::core::uplink::{Gateway, Leg, Rank, State, Uplink};

const SECOND: Duration = Duration::from_secs(1);
const MBIT: u64 = 1_000_000;

fn slot(n: u8) -> Slot {
    Slot::new(n).unwrap()
}

/// Candidates with the slots from 1 on, by preference and tier.
fn candidates_of(ranks: &[(u8, u8)]) -> Vec<Candidate> {
    let one = |(n, &(preference, tier))| Candidate {
        slot: slot(n),
        rank: Rank { preference, spared: false, tier: Tier::new(tier).unwrap() },
    };
    let mut all: Vec<_> = (1..).zip(ranks).map(one).collect();
    all.sort_by_key(|c| (c.rank, c.slot));
    all
}

/// So many Mbit/s of a capacity in each direction, and a round-trip time in milliseconds.
fn figures(down: u64, up: u64, capacity: Option<u64>, latency: Option<u64>) -> Figures {
    let capacity = capacity.map(|m| Capacity { rate: Rate(m * MBIT), learned: false });
    Figures {
        rate: Some(Directions { down: Rate(down * MBIT), up: Rate(up * MBIT) }),
        capacity: Directions { down: capacity, up: capacity },
        latency: latency.map(Duration::from_millis),
    }
}

/// A chooser, its uplinks, and the time.
struct Run {
    method: Method,
    chooser: Chooser,
    candidates: Vec<Candidate>,
    now: Instant,
}

impl Run {
    fn new(method: Method, ranks: &[(u8, u8)]) -> Self {
        let chooser = Chooser::default();
        Run { method, chooser, candidates: candidates_of(ranks), now: Instant::now() }
    }

    fn active(&self) -> Vec<u8> {
        let slots = active(self.method, &self.candidates, self.chooser.choice());
        slots.into_iter().map(Slot::get).collect()
    }

    /// A second passes with these figures, by slot.
    fn tick(&mut self, figures: &[Figures]) -> Vec<u8> {
        let figures: BTreeMap<_, _> = (1..).map(slot).zip(figures.iter().copied()).collect();
        self.now += SECOND;
        self.chooser.look(self.method, &self.candidates, &figures, self.now);
        self.active()
    }

    /// After how many seconds of these figures the choice is another one, if it is within a minute.
    fn changes_after(&mut self, figures: &[Figures]) -> Option<(u64, Vec<u8>)> {
        let before = self.active();
        (1..=60).find_map(|second| Some((second, self.tick(figures))).filter(|(_, active)| *active != before))
    }
}

#[test]
fn priority_goes_by_health_tier_weight_and_metric() {
    let uplink = |n, state, tier, weight, metric: Option<u32>| {
        let metric = metric.map(Metric);
        let leg = Leg { state, metric, link: true, gateway: Some(Gateway::Link), ..Leg::default() };
        let (tier, weight) = (Tier::new(tier).unwrap(), Weight::new(weight).unwrap());
        Uplink { tier, weight, ..Uplink::example(n, leg) }
    };
    let twin = {
        let mut twin = uplink(9, State::Up, 1, 9, Some(1));
        twin.legs.v4.twin = true;
        twin
    };
    let uplinks = [
        uplink(1, State::Degraded, 1, 9, Some(1)),
        uplink(2, State::Up, 2, 9, Some(1)),
        uplink(3, State::Up, 1, 1, None),
        uplink(4, State::Up, 1, 1, Some(200)),
        uplink(5, State::Up, 1, 1, Some(100)),
        uplink(6, State::Up, 1, 2, Some(300)),
        uplink(7, State::Down, 1, 9, Some(1)),
        twin,
    ];
    let found = candidates(&uplinks, Family::V4);
    assert_eq!(found.iter().map(|c| c.slot.get()).collect::<Vec<_>>(), [6, 5, 4, 3, 2, 1]);
    let active = |method| active(method, &found, &Choice::default());
    assert_eq!(active(Method::Weighted), [3, 4, 5, 6].map(slot));
    for method in Method::ALL.into_iter().filter(|method| *method != Method::Weighted) {
        assert_eq!(active(method), [slot(6)], "{method:?} before anything is known");
    }
    assert_eq!(ready(&found).len(), 4);
    assert_eq!(super::active(Method::Overflow, &[], &Choice::default()), []);
}

#[test]
fn every_method_has_its_word() {
    for method in Method::ALL {
        assert_eq!(Way::named(method.as_str()), Some(Way::By(method)));
        assert!(Way::ALLOWED.contains(method.as_str()));
    }
    for other in ["", "Weighted", "persistence", "enforced", "fastest-response", "random"] {
        assert!(!matches!(Way::named(other), Some(Way::By(_))), "{other}");
    }
}

#[test]
fn overflow_spills_when_full_and_comes_back_when_there_is_room() {
    let mut run = Run::new(Method::Overflow, &[(0, 1), (0, 1), (0, 2)]);
    let at = |load: [u64; 3]| load.map(|load| figures(load, 0, Some(100), None));
    assert_eq!(run.changes_after(&at([84, 0, 0])), None);
    assert_eq!(run.changes_after(&at([85, 0, 0])), Some((4, vec![2])), "full for three seconds");
    assert_eq!(
        run.changes_after(&at([90, 90, 0])),
        Some((5, vec![3])),
        "into the next tier where all of it is full"
    );
    assert_eq!(
        run.changes_after(&at([90, 90, 90])),
        Some((5, vec![1, 2, 3])),
        "each has its share of what is too much"
    );
    assert_eq!(run.changes_after(&at([75, 75, 75])), None, "neither full nor roomy");
    assert_eq!(run.changes_after(&at([75, 69, 75])), Some((11, vec![2])));
    assert_eq!(run.changes_after(&at([69, 69, 75])), Some((11, vec![1])));
}

#[test]
fn the_fuller_direction_tells_whether_it_is_full() {
    let mut run = Run::new(Method::Overflow, &[(0, 1), (0, 1)]);
    let up = figures(1, 90, Some(100), None);
    assert_eq!(run.changes_after(&[up, up]), Some((4, vec![1, 2])));
    let mut run = Run::new(Method::Overflow, &[(0, 1), (0, 1)]);
    assert_eq!(run.changes_after(&[figures(1000, 1000, None, None); 2]), None, "nobody knows what is full");
}

#[test]
fn what_was_learned_fills_nothing() {
    let learned = |rate: u64| {
        let capacity = Some(Capacity { rate: Rate(rate * MBIT), learned: true });
        let told = figures(rate, 0, None, None);
        Figures { capacity: Directions { down: capacity, up: None }, ..told }
    };
    let mut run = Run::new(Method::Overflow, &[(0, 1), (0, 1)]);
    assert_eq!(
        run.changes_after(&[learned(40), learned(1)]),
        None,
        "it has never carried more, and may well"
    );
    let told = Figures { capacity: figures(0, 0, Some(100), None).capacity, ..learned(90) };
    assert_eq!(run.changes_after(&[told, learned(1)]), Some((4, vec![2])));
    let half = Figures { capacity: Directions { down: told.capacity.down, ..learned(90).capacity }, ..told };
    assert_eq!(run.changes_after(&[half, learned(1)]), None, "one direction is told, and that is full");
}

#[test]
fn the_least_used_has_the_most_that_is_free() {
    let mut run = Run::new(Method::LeastUsed, &[(0, 1), (0, 1)]);
    let free = |one: u64, other: u64| {
        [figures(0, 100 - one, Some(100), None), figures(100 - other, 0, Some(100), None)]
    };
    assert_eq!(run.tick(&free(50, 40)), [1]);
    assert_eq!(run.changes_after(&free(50, 60)), None, "not better by more than a fifth");
    assert_eq!(run.changes_after(&free(50, 61)), Some((11, vec![2])));
    assert_eq!(run.changes_after(&free(50, 61)), None);
    let used = |one, other| [figures(one, 0, Some(100), None), figures(0, other, None, None)];
    assert_eq!(run.changes_after(&used(10, 12)), None);
    assert_eq!(run.changes_after(&used(10, 13)), Some((11, vec![1])), "the capacity of one is not known");
    assert_eq!(run.changes_after(&[Figures::default(); 2]), None, "nothing is known");
}

#[test]
fn idle_links_are_as_good_as_each_other() {
    let mut run = Run::new(Method::LeastUsed, &[(0, 1), (0, 1)]);
    let trickle =
        |bits| Figures { rate: Some(Directions { down: Rate(bits), up: Rate(0) }), ..Figures::default() };
    assert_eq!(run.changes_after(&[trickle(90_000), trickle(0)]), None);
}

#[test]
fn the_lowest_latency_leads() {
    let mut run = Run::new(Method::LowestLatency, &[(0, 1), (0, 1), (0, 2)]);
    let at = |latencies: [Option<u64>; 3]| latencies.map(|latency| figures(0, 0, None, latency));
    assert_eq!(
        run.changes_after(&at([Some(40), Some(36), Some(1)])),
        None,
        "within a sixth, and tiers come first"
    );
    assert_eq!(run.changes_after(&at([Some(9), Some(5), None])), None, "within 5 ms");
    assert_eq!(run.changes_after(&at([Some(40), Some(30), None])), Some((11, vec![2])));
    assert_eq!(run.changes_after(&at([None, Some(30), None])), None, "of the other nothing is known");
    assert_eq!(run.changes_after(&at([Some(30), None, None])), Some((11, vec![1])));
    let mut flickering = (0..60).map(|n| at([Some(40), Some(if n % 9 == 8 { 39 } else { 20 }), None]));
    assert!(flickering.all(|figures| run.tick(&figures) == [1]), "it is never better for long enough");
}

#[test]
fn who_stands_next_leads_at_once_when_the_leader_is_out() {
    let mut run = Run::new(Method::LowestLatency, &[(0, 1), (0, 1), (0, 1)]);
    let latencies = [20, 35, 10].map(|ms| figures(0, 0, None, Some(ms)));
    assert_eq!(run.changes_after(&latencies), Some((11, vec![3])));
    run.candidates.retain(|candidate| candidate.slot != slot(3));
    assert_eq!(run.active(), [1], "before anything is looked at again");
    assert_eq!(run.tick(&latencies), [1]);
    run.candidates = candidates_of(&[(0, 1), (0, 1), (0, 1)]);
    assert_eq!(run.changes_after(&latencies), Some((11, vec![3])), "it has to be better for a while again");
}

#[test]
fn a_restart_goes_on_with_what_was_chosen() {
    let restarted = |run: &mut Run| {
        let text = serde_json::to_string(&run.chooser.kept()).unwrap();
        run.chooser = serde_json::from_str::<Kept>(&text).unwrap().into();
    };
    let mut run = Run::new(Method::Overflow, &[(0, 1), (0, 1)]);
    let at = |load| [figures(load, 0, Some(100), None), figures(0, 0, Some(100), None)];
    assert_eq!(run.changes_after(&at(90)), Some((4, vec![2])));
    restarted(&mut run);
    run.candidates.retain(|candidate| candidate.slot != slot(1));
    run.tick(&[Figures::default(); 2]);
    run.candidates = candidates_of(&[(0, 1), (0, 1)]);
    assert_eq!(run.tick(&[Figures::default(); 2]), [2], "before anything is measured, and once it is proven");
    assert_eq!(run.changes_after(&at(90)), None);
    assert_eq!(run.changes_after(&at(10)), Some((11, vec![1])));

    let mut run = Run::new(Method::LowestLatency, &[(0, 1), (0, 1)]);
    let latencies = [40, 20].map(|ms| figures(0, 0, None, Some(ms)));
    assert_eq!(run.changes_after(&latencies), Some((11, vec![2])));
    restarted(&mut run);
    assert_eq!(run.tick(&[Figures::default(); 2]), [2]);
    assert_eq!(run.changes_after(&latencies), None);
}

#[test]
fn another_method_begins_anew() {
    let mut run = Run::new(Method::LowestLatency, &[(0, 1), (0, 1)]);
    let figures = [figures(99, 0, Some(100), Some(40)), figures(0, 0, Some(100), Some(20))];
    assert_eq!(run.changes_after(&figures), Some((11, vec![2])));
    run.method = Method::LeastUsed;
    assert_eq!(run.tick(&figures), [2], "who led goes on");
    run.method = Method::Overflow;
    assert_eq!(run.tick(&figures), [1]);
    assert_eq!(run.changes_after(&figures), Some((3, vec![2])));
    run.method = Method::Priority;
    run.tick(&figures);
    run.method = Method::Overflow;
    assert_eq!(run.tick(&figures), [1], "who was full is asked anew");
}

/// What there is for some seconds: the ranks of three uplinks, where they can be used, and their figures.
type Scene = (u8, [Option<(u8, u8)>; 3], [Figures; 3]);

fn scene() -> impl Strategy<Value = Scene> {
    let rank = prop::option::weighted(0.8, (select(vec![0u8, 0, 0, 1, 2]), 1..3u8));
    let load = || select(vec![0u64, 1, 50, 69, 70, 84, 85, 100, 130]);
    let latency = prop::option::weighted(0.9, select(vec![1u64, 9, 10, 15, 20, 23, 24, 40]));
    let capacity = prop::option::weighted(0.8, select(vec![100u64, 110]));
    let one = (load(), load(), capacity, latency).prop_map(|(d, u, c, l)| figures(d, u, c, l));
    (1..20u8, prop::array::uniform3(rank), prop::array::uniform3(one))
}

fn ranked(ranks: &[Option<(u8, u8)>; 3]) -> Vec<Candidate> {
    let mut all = candidates_of(&ranks.map(|rank| rank.unwrap_or((0, 1))));
    all.retain(|candidate| ranks[usize::from(candidate.slot.get()) - 1].is_some());
    all
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens, the choice is among the healthiest, of the best tier unless that is full, and changes by its own
    /// will at most once in a hold time.
    #[test]
    fn a_choice_keeps_to_health_and_tiers_and_does_not_flap(
        method in select(Method::ALL.to_vec()),
        scenes in prop::collection::vec(scene(), 1..12),
    ) {
        let mut run = Run::new(method, &[]);
        let mut changed: Option<Instant> = None;
        for (seconds, ranks, figures) in scenes {
            run.candidates = ranked(&ranks);
            for second in 0..seconds {
                let before = run.active();
                let after = run.tick(&figures);
                let best = run.candidates.first().copied();
                prop_assert_eq!(after.is_empty(), best.is_none(), "somebody is chosen where anybody can be");
                for chosen in run.candidates.iter().filter(|c| after.contains(&c.slot.get())) {
                    let best = best.unwrap();
                    prop_assert_eq!(chosen.rank.preference, best.rank.preference);
                    prop_assert!(method == Method::Overflow || chosen.rank.tier == best.rank.tier);
                    let full = &run.chooser.choice().full;
                    let better = run.candidates.iter().take_while(|c| c.slot != chosen.slot);
                    let passed_over = better.filter(|c| method == Method::Overflow && !after.contains(&c.slot.get()));
                    for passed in passed_over {
                        prop_assert!(full.contains(&passed.slot), "{:?} had room", passed);
                    }
                }
                // With the first second of a scene somebody may come or go.
                if second > 0 && before != after {
                    let rested = changed.is_none_or(|at| run.now - at >= HOLD);
                    prop_assert!(rested, "from {:?} to {:?} too soon", before, after);
                    changed = Some(run.now);
                }
            }
        }
    }

    /// While all stays as it is, a choice is settled within a bounded time, and then nobody else is clearly better.
    #[test]
    fn what_stays_better_is_taken_in_time(method in select(Method::ALL.to_vec()), scenes in prop::collection::vec(scene(), 1..6)) {
        let mut run = Run::new(method, &[]);
        for (_, ranks, figures) in &scenes {
            run.candidates = ranked(ranks);
            // Each of the three can be the better one of two once, or full one after the other.
            (0..45).for_each(|_| drop(run.tick(figures)));
            let settled = run.active();
            (0..45).for_each(|_| drop(run.tick(figures)));
            prop_assert_eq!(&run.active(), &settled, "the same figures lead to the same choice");
            let of = |c: &Candidate| figures[usize::from(c.slot.get()) - 1];
            let ready = ready(&run.candidates);
            let known: Vec<_> = ready.iter().map(of).collect();
            if let Some(measure) = measure::Measure::of(method, known.iter()) {
                let leader = ready.iter().find(|c| settled == [c.slot.get()]).map(of);
                let better = |leader| known.iter().any(|other| measure.is_clearly_better(other, &leader));
                prop_assert!(!leader.is_some_and(better), "another is better for good");
            }
        }
    }

    /// Nothing is changed by figures that are not clearly better, however they wander.
    #[test]
    fn no_change_without_evidence(
        method in select(vec![Method::Overflow, Method::LeastUsed, Method::LowestLatency]),
        wander in prop::collection::vec((0..6u64, 0..6u64), 1..120),
    ) {
        let mut run = Run::new(method, &[(0, 1), (0, 1)]);
        let mut first = None;
        for (one, other) in wander {
            let one = figures(40 + one, 0, Some(100), Some(50 + one));
            let other = figures(40 + other, 0, Some(100), Some(50 + other));
            let active = run.tick(&[one, other]);
            prop_assert_eq!(first.get_or_insert_with(|| active.clone()), &active);
        }
    }
}
