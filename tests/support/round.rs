//! Rounds, as the daemon makes them (src/daemon/round.rs), on the kernel in memory.

use uplinkd::core::change::Change;
use uplinkd::core::diff::diff;
use uplinkd::core::layout::Slot;
use uplinkd::core::observed::Observed;
use uplinkd::core::plan::{Plan, plan};
use uplinkd::core::slots::Slots;

use super::kernel::Memory;
use super::world::World;

/// The daemon: nothing but its memory of slots.
#[derive(Debug, Clone, Default)]
pub(crate) struct Daemon {
    pub(crate) slots: Slots,
}

/// What a round decided.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    pub(crate) plan: Plan,
    pub(crate) changes: Vec<Change>,
}

impl Daemon {
    /// Observes, plans and diffs.
    pub(crate) fn decide(&mut self, world: &World, kernel: &Memory) -> Round {
        let observed = kernel.observe(world);
        self.drain(world, &observed);
        let plan = plan(&world.config, &observed, &self.slots, &world.health, &world.chosen(), &world.usages);
        let changes = diff(&plan.desired, &observed.kernel);
        self.slots = plan.slots.clone();
        Round { plan, changes }
    }

    /// Whom the administrator has taken out, as `uplinkctl drain` does it: by slot here, once it is given.
    fn drain(&mut self, world: &World, observed: &Observed) {
        let Some(drained) = &world.drained else { return };
        self.slots =
            plan(&world.config, observed, &self.slots, &world.health, &world.chosen(), &world.usages).slots;
        let mut slots = serde_json::to_value(&self.slots).expect("a memory");
        for entry in slots["entries"].as_array_mut().expect("entries") {
            let slot = entry["slot"].as_u64().and_then(|n| Slot::new(u8::try_from(n).ok()?));
            entry["drained"] = slot.is_some_and(|slot| drained.contains(&slot)).into();
        }
        self.slots = serde_json::from_value(slots).expect("a memory");
    }

    /// A whole round; every change must be possible.
    pub(crate) fn round(&mut self, world: &World, kernel: &mut Memory) -> Round {
        let round = self.decide(world, kernel);
        // World::settle (src/world.rs).
        kernel.moved.retain(|key| round.plan.desired.moves.iter().any(|m| m.key() == *key));
        kernel.vacated.retain(|ip| round.plan.desired.vacated.contains(ip));
        for change in &round.changes {
            let done = kernel.apply(change);
            assert_eq!(done, Ok(()), "the kernel refuses: {change}");
        }
        round
    }
}
