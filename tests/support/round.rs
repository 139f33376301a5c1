//! Rounds, as the daemon makes them (src/daemon/round.rs), on the kernel in memory.

use uplinkd::core::change::Change;
use uplinkd::core::diff::diff;
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
        let plan = plan(&world.config, &observed, &self.slots, &world.health);
        let changes = diff(&plan.desired, &observed.kernel);
        self.slots = plan.slots.clone();
        Round { plan, changes }
    }

    /// A whole round; every change must be possible.
    pub(crate) fn round(&mut self, world: &World, kernel: &mut Memory) -> Round {
        let round = self.decide(world, kernel);
        for change in &round.changes {
            let done = kernel.apply(change);
            assert_eq!(done, Ok(()), "the kernel refuses: {change}");
        }
        round
    }
}
