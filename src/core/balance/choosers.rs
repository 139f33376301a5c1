//! The choosers of all pools over time, and what of them outlives a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::chooser::{Chooser, Kept};
use super::measure::Figures;
use super::pool::{Choices, Pick, Pool};
use crate::core::layout::Slot;
use crate::core::net::{Family, PerFamily};
use crate::core::uplink::Uplink;

/// One for each family of each pool.
#[derive(Debug, Clone, Default)]
pub struct Choosers(BTreeMap<Pool, PerFamily<Chooser>>);

/// What outlives a restart. As pairs, because a pool is no text, as a member's name would have to be.
pub type KeptChoices = Vec<(Pool, PerFamily<Kept>)>;

impl From<KeptChoices> for Choosers {
    fn from(kept: KeptChoices) -> Self {
        let chooser = |(pool, kept): (Pool, PerFamily<Kept>)| {
            (pool, PerFamily { v4: kept.v4.into(), v6: kept.v6.into() })
        };
        Choosers(kept.into_iter().map(chooser).collect())
    }
}

impl Choosers {
    /// What a plan should go by.
    pub fn choices(&self) -> Choices {
        let all = self.0.iter();
        all.map(|(pool, of)| (pool.clone(), PerFamily::from_fn(|f| of[f].choice().clone()))).collect()
    }

    /// What is to outlive a restart.
    pub fn kept(&self) -> KeptChoices {
        let all = self.0.iter();
        all.map(|(pool, of)| (pool.clone(), PerFamily::from_fn(|f| of[f].kept()))).collect()
    }

    /// Keeps a choice for each of these pools. Where only the method is another, who led goes on.
    pub fn follow(&mut self, pools: impl Iterator<Item = Pool>) {
        let pools: BTreeSet<Pool> = pools.collect();
        let former = std::mem::take(&mut self.0);
        let left =
            |pool: &Pool| former.iter().find(|(old, _)| old.among == pool.among && !pools.contains(old));
        for pool in &pools {
            let known = former.get(pool).or_else(|| left(pool).map(|(_, of)| of));
            self.0.insert(pool.clone(), known.cloned().unwrap_or_default());
        }
    }

    /// Looks at who could be used, and at what is known of them.
    pub fn look(&mut self, uplinks: &[Uplink], figures: &PerFamily<BTreeMap<Slot, Figures>>, now: Instant) {
        for (pool, of) in &mut self.0 {
            for family in Family::BOTH {
                of[family].look(pool.method, &pool.candidates(uplinks, family), &figures[family], now);
            }
        }
    }

    /// What comes out for each pool and family now.
    pub fn picks<'a>(&'a self, uplinks: &'a [Uplink]) -> impl Iterator<Item = (Pool, Family, Pick)> + 'a {
        let each =
            self.0.iter().flat_map(|(pool, of)| Family::BOTH.map(|family| (pool, family, &of[family])));
        each.map(|(pool, family, of)| (pool.clone(), family, pool.pick(uplinks, family, of.choice())))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Method;
    use super::*;
    use crate::core::net::UplinkName;
    use crate::core::uplink::{Leg, State};

    fn pool(method: Method, among: &[u8]) -> Pool {
        Pool { method, among: among.iter().map(|n| UplinkName::new(&format!("wan{n}")).unwrap()).collect() }
    }

    fn uplinks(states: [State; 3]) -> Vec<Uplink> {
        let one = |(n, state)| Uplink::example(n, Leg { state, ..Leg::default() });
        (1..).zip(states).map(one).collect()
    }

    fn slots(picks: &Pick) -> (Vec<u8>, Vec<u8>) {
        let numbers = |slots: &[Slot]| slots.iter().map(|slot| slot.get()).collect();
        (numbers(&picks.active), numbers(&picks.ready))
    }

    fn of(choosers: &Choosers, pool: &Pool, uplinks: &[Uplink]) -> (Vec<u8>, Vec<u8>) {
        let mut picks = choosers.picks(uplinks);
        slots(&picks.find(|(of, family, _)| (of, *family) == (pool, Family::V4)).unwrap().2)
    }

    /// Looks for so many seconds at round-trip times in milliseconds.
    fn look(choosers: &mut Choosers, uplinks: &[Uplink], latencies: [u64; 3], start: Instant, seconds: u64) {
        let known = |ms: u64| Figures { latency: Some(Duration::from_millis(ms)), ..Figures::default() };
        let figures: BTreeMap<_, _> = uplinks.iter().map(|u| u.slot).zip(latencies.map(known)).collect();
        let figures = PerFamily { v4: figures, v6: BTreeMap::new() };
        (0..seconds).for_each(|s| choosers.look(uplinks, &figures, start + Duration::from_secs(s)));
    }

    #[test]
    fn a_list_is_an_order_for_those_that_ask_for_one() {
        let up = uplinks([State::Up; 3]);
        let pick = |method, among: &[u8], uplinks: &[Uplink]| {
            slots(&pool(method, among).pick(uplinks, Family::V4, &Default::default()))
        };
        for method in [Method::Priority, Method::Overflow] {
            assert_eq!(pick(method, &[3, 1], &up), (vec![3], vec![3]), "{method:?}");
        }
        assert_eq!(pick(Method::Weighted, &[3, 1], &up), (vec![1, 3], vec![1, 3]));
        assert_eq!(pick(Method::LeastUsed, &[3, 1], &up), (vec![3], vec![1, 3]));
        let degraded = uplinks([State::Degraded, State::Up, State::Down]);
        assert_eq!(pick(Method::Priority, &[3, 1, 2], &degraded), (vec![2], vec![2]), "health goes first");
        assert_eq!(pick(Method::Priority, &[3, 1], &degraded), (vec![1], vec![1]));
        assert_eq!(pick(Method::Weighted, &[3], &degraded), (vec![], vec![]));
    }

    #[test]
    fn who_is_full_is_passed_over_in_the_order_of_the_list() {
        let up = uplinks([State::Up; 3]);
        let full = |full: &[u8]| super::super::Choice {
            full: full.iter().filter_map(|n| Slot::new(*n)).collect(),
            ..Default::default()
        };
        let pick = |these: &[u8]| slots(&pool(Method::Overflow, &[3, 1]).pick(&up, Family::V4, &full(these)));
        assert_eq!(pick(&[3]), (vec![1], vec![3]));
        assert_eq!(pick(&[3, 1]), (vec![1, 3], vec![3]), "nobody else is asked");
    }

    #[test]
    fn each_list_has_a_choice_of_its_own_and_equal_ones_share() {
        let up = uplinks([State::Up; 3]);
        let pools = [pool(Method::LowestLatency, &[]), pool(Method::LowestLatency, &[1, 2])];
        let mut choosers = Choosers::default();
        choosers.follow(pools.iter().chain(&pools).cloned());
        assert_eq!(choosers.kept().len(), 2);
        look(&mut choosers, &up, [40, 30, 10], Instant::now(), 12);
        assert_eq!(of(&choosers, &pools[0], &up), (vec![3], vec![1, 2, 3]));
        assert_eq!(of(&choosers, &pools[1], &up), (vec![2], vec![1, 2]));
        let choices = choosers.choices();
        assert_eq!(pools[1].pick(&up, Family::V4, &choices.of(&pools[1]).v4).active, [up[1].slot]);
    }

    #[test]
    fn who_led_goes_on_where_only_the_method_is_another() {
        let up = uplinks([State::Up; 3]);
        let [before, after] = [Method::LowestLatency, Method::LeastUsed].map(|method| pool(method, &[1, 2]));
        let mut choosers = Choosers::default();
        choosers.follow(std::iter::once(before));
        look(&mut choosers, &up, [40, 20, 10], Instant::now(), 12);
        choosers.follow(std::iter::once(after.clone()));
        look(&mut choosers, &up, [40, 20, 10], Instant::now(), 1);
        assert_eq!(of(&choosers, &after, &up).0, [2]);
    }

    #[test]
    fn a_restart_keeps_the_choice_of_each() {
        let up = uplinks([State::Up; 3]);
        let pools = [pool(Method::LowestLatency, &[1, 2]), pool(Method::LowestLatency, &[2, 3])];
        let mut choosers = Choosers::default();
        choosers.follow(pools.iter().cloned());
        look(&mut choosers, &up, [40, 20, 10], Instant::now(), 12);
        let text = serde_json::to_string(&choosers.kept()).unwrap();
        let mut later: Choosers = serde_json::from_str::<KeptChoices>(&text).unwrap().into();
        later.follow(pools.iter().cloned());
        look(&mut later, &up, [20, 40, 90], Instant::now(), 1);
        assert_eq!(pools.each_ref().map(|pool| of(&later, pool, &up).0), [vec![2], vec![3]]);
    }
}
