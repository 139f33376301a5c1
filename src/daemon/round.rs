//! One round: observe, plan, diff, apply. What is kept between rounds is the memory of slots, and nothing of the
//! kernel's.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tracing::{debug, info, warn};

use super::contest::{Contest, Sifted};
use crate::config::Config;
use crate::core::balance::{Choices, Method};
use crate::core::change::Change;
use crate::core::diff::{Desired, diff};
use crate::core::health::Health;
use crate::core::layout::Slot;
use crate::core::net::{Family, PerFamily, UplinkName};
use crate::core::noted::Noted;
use crate::core::observed::{Kernel, Observed};
use crate::core::plan::{Plan, plan};
use crate::core::quota::Usage;
use crate::core::recall::recall;
use crate::core::slots::Slots;
use crate::core::tending::Tending;
use crate::core::text::counted;
use crate::core::uplink::Gateway;
use crate::kernel::cgroup::{self, Cgroups};
use crate::kernel::rtnl;
use crate::sources::bus::BusState;
use crate::state::{self, Directories, Memory};
use crate::status::{PolicyStatus, Status};
use crate::world::{Hearing, Look, World, chain};

/// Gateways whose neighbour entries matter; shared with the one who listens to the kernel.
pub(super) type Gateways = Arc<Mutex<Vec<IpAddr>>>;

/// What is shared with those who listen.
#[derive(Default)]
pub(super) struct Heard {
    pub(super) gateways: Gateways,
    pub(super) cgroups: Cgroups,
}

/// What is said before the first look.
const TOO_EARLY: &str = "the first look is not over yet; try again";

/// What a round did.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The changes that failed.
    pub(super) failed: Vec<Change>,
    /// When what somebody keeps taking away is to be put back.
    pub(super) due: Option<Instant>,
    /// How much of what was seen could be relied on.
    pub(super) hearing: Hearing,
}

impl Outcome {
    /// Nothing is left to do.
    pub(super) fn settled(&self) -> bool {
        self.failed.is_empty() && self.hearing == Hearing::Full
    }
}

/// What rounds need.
pub(super) struct Rounds {
    world: World,
    dirs: Directories,
    config: Config,
    slots: Option<Slots>,
    last: Plan,
    forwards: PerFamily<bool>,
    gateways: Gateways,
    cgroups: Cgroups,
    contest: Contest,
    /// What is said while somebody keeps taking away what is ours.
    fight: Option<String>,
    notes: Vec<String>,
    /// The table of policies that is planned is not loaded.
    lacks_policies: bool,
    /// Why the memory of slots could not be written, while it waits for that.
    unsaved: Option<String>,
}

impl Rounds {
    /// Opens the outside.
    pub(super) fn new(dirs: &Directories, config: Config, heard: Heard) -> Result<Self, super::Error> {
        Ok(Rounds {
            world: World::open(dirs)?,
            dirs: dirs.clone(),
            config,
            slots: None,
            last: Plan::default(),
            forwards: PerFamily::default(),
            gateways: heard.gateways,
            cgroups: heard.cgroups,
            contest: Contest::default(),
            fight: None,
            notes: Vec::new(),
            lacks_policies: false,
            unsaved: None,
        })
    }

    /// Takes another configuration, from the next round on.
    pub(super) fn configure(&mut self, config: Config) {
        self.config = config;
    }

    /// What the last round found and decided.
    pub(super) fn status(&self) -> Status {
        let mut status = Status::of(&self.last, self.forwards);
        status.method = self.config.balance.to_string();
        if self.lacks_policies {
            status.policies.iter_mut().for_each(PolicyStatus::unload);
        }
        status.notes.extend(self.notes.iter().chain(&self.unsaved).chain(&self.fight).cloned());
        status
    }

    /// How new flows are shared out.
    pub(super) fn method(&self) -> Method {
        self.config.balance.method()
    }

    /// What the last round decided.
    pub(super) fn last(&self) -> &Plan {
        &self.last
    }

    /// Looks at everything, and adds what is still known from the last time.
    async fn look(&mut self, bus: &BusState) -> Result<Look, rtnl::Error> {
        let mut look = self.world.observe(bus).await?;
        recall(&mut look.observed, &self.last.uplinks);
        let units: Vec<_> =
            self.config.policies.iter().flat_map(|one| one.traffic.units()).cloned().collect();
        match self.cgroups.look(&units) {
            Ok(groups) => look.observed.cgroups = groups,
            Err(error) => {
                let why =
                    format!("units cannot be told apart, as {} is no hierarchy of cgroup v2", cgroup::ROOT);
                look.observed.unheard.push(format!("{why}: {error}"));
            }
        }
        Ok(look)
    }

    /// Brings the kernel to what it should be.
    pub(super) async fn round(
        &mut self,
        bus: &BusState,
        health: &Health,
        choices: &Choices,
        usages: &Noted<Usage>,
    ) -> Result<Outcome, rtnl::Error> {
        let start = Instant::now();
        let Look { observed, hearing } = self.look(bus).await?;
        let looked = start.elapsed();
        if hearing == Hearing::Wait {
            return Ok(Outcome { failed: Vec::new(), due: None, hearing });
        }
        let slots = self.remembered(&observed.kernel.rules);
        let plan = plan(&self.config, &observed, &slots, health, choices, &usages.of(slots.entries()));
        self.world.settle(&plan.desired);
        let steady = plan.desired == self.last.desired;
        let missing = diff(&plan.desired, &observed.kernel);
        let loads = |change: &Change| matches!(change, Change::LoadPolicies(..));
        self.lacks_policies = missing.iter().any(loads);
        let Sifted { now: changes, due } = self.contest.sift(missing, steady, Instant::now());
        self.remember(&plan, &slots);
        let by_clock = plan.lasts.map(|lasts| Instant::now() + lasts);
        let due = [due, by_clock].into_iter().flatten().min();
        let report = self.world.apply(&changes).await;
        let made = changes.iter().filter(|change| report.failed.iter().all(|(failed, _)| failed != *change));
        self.lacks_policies &= !made.clone().any(loads);
        self.contest.made(made, steady, Instant::now());
        self.tell_fight(&observed);
        let failed: Vec<String> =
            report.failed.iter().map(|(change, why)| format!("failed: {change}: {why}")).collect();
        // What lasts is said once; the status goes on saying it.
        for failure in failed.iter().filter(|failure| !self.notes.contains(failure)) {
            warn!("{failure}");
        }
        for note in plan.notes.iter().filter(|note| !self.last.notes.contains(note)) {
            info!("note: {note}");
        }
        if report.done > 0 {
            info!("{} applied", counted(report.done, "change"));
        }
        self.forwards = observed.forwards;
        self.watch_gateways(&plan);
        self.notes = failed;
        self.last = plan;
        debug!("round: looked for {looked:?}, {} changes, {:?} in all", changes.len(), start.elapsed());
        Ok(Outcome { failed: report.failed.into_iter().map(|(change, _)| change).collect(), due, hearing })
    }

    /// Says once that somebody keeps taking away what is ours, and goes on saying it in the status.
    fn tell_fight(&mut self, observed: &Observed) {
        let (contested, begins) = self.contest.contested(Instant::now());
        let more = |count: usize| if count > 0 { format!(" and {count} more") } else { String::new() };
        self.fight = contested.split_first().map(|(first, rest)| {
            let culprit = observed.networkd.as_ref().and_then(Tending::note);
            let culprit = culprit.map(|note| format!("; {note}")).unwrap_or_default();
            let more = more(rest.len());
            format!(
                "somebody keeps taking away what is ours, so it is put back less and less often: \
                 {first}{more}{culprit}"
            )
        });
        if let Some(fight) = self.fight.as_ref().filter(|_| begins) {
            warn!("{fight}");
        }
    }

    /// What a round would do now.
    pub(super) async fn planned(
        &mut self,
        bus: &BusState,
        health: &Health,
        choices: &Choices,
        usages: &Noted<Usage>,
    ) -> Result<Vec<String>, rtnl::Error> {
        let (observed, plan) = self.foresee(bus, health, choices, usages).await?;
        Ok(scripts(&diff(&plan.desired, &observed.kernel)))
    }

    /// What a round would do if nothing of ours were there yet, and the notes of the plan.
    pub(super) async fn full(&mut self, bus: &BusState) -> Result<(Vec<String>, Vec<String>), rtnl::Error> {
        let (observed, plan) =
            self.foresee(bus, &Health::default(), &Choices::default(), &Noted::default()).await?;
        // Settings are shown by what they were, not by what we made of them.
        let mut blank = Kernel { sysctls: observed.kernel.sysctls.clone(), ..Kernel::default() };
        blank.sysctls.extend(observed.kernel.originals.clone());
        Ok((scripts(&diff(&plan.desired, &blank)), plan.notes))
    }

    /// Looks and plans, and leaves it at that.
    async fn foresee(
        &mut self,
        bus: &BusState,
        health: &Health,
        choices: &Choices,
        usages: &Noted<Usage>,
    ) -> Result<(Observed, Plan), rtnl::Error> {
        let Look { observed, .. } = self.look(bus).await?;
        let slots = self.remembered(&observed.kernel.rules);
        let plan = plan(&self.config, &observed, &slots, health, choices, &usages.of(slots.entries()));
        Ok((observed, plan))
    }

    /// Takes everything of ours out of the kernel and puts the settings back; tells what failed.
    pub(super) async fn flush(&mut self, bus: &BusState) -> Result<Result<(), Vec<String>>, rtnl::Error> {
        let Look { observed, .. } = self.world.observe(bus).await?;
        self.world.settle(&Desired::default());
        let report = self.world.apply(&diff(&Desired::default(), &observed.kernel)).await;
        self.last = Plan { slots: self.last.slots.clone(), ..Plan::default() };
        (self.notes, self.fight, self.contest) = (Vec::new(), None, Contest::default());
        let failed: Vec<_> = report.failed.iter().map(|(change, why)| format!("{change}: {why}")).collect();
        Ok(if failed.is_empty() { Ok(()) } else { Err(failed) })
    }

    /// Forgets an uplink that is not present, or is none any more; returns the slot that is free now.
    pub(super) fn forget(&mut self, name: &UplinkName) -> Result<Slot, String> {
        if self.last.uplinks.iter().any(|uplink| &uplink.name == name && !uplink.leads_nowhere()) {
            return Err(format!("{name} is present; set ignore=true for it instead"));
        }
        let slot = self.slot_of(name)?;
        self.change_slots(|slots| slots.forget(name)).map(|()| slot)
    }

    /// Takes an uplink out, or puts it back, until told otherwise.
    pub(super) fn drain(&mut self, name: &UplinkName, drained: bool) -> Result<(), String> {
        let slot = self.slot_of(name)?;
        self.change_slots(|slots| slots.drain(slot, drained))
    }

    /// Changes the memory of slots by order: what cannot be written down is not done.
    fn change_slots(&mut self, change: impl FnOnce(&mut Slots)) -> Result<(), String> {
        let slots = self.slots.as_mut().ok_or(TOO_EARLY)?;
        let mut changed = slots.clone();
        change(&mut changed);
        state::save_slots(&self.dirs, &changed).map_err(|error| chain(&error))?;
        *slots = changed;
        Ok(())
    }

    /// The slot of an uplink by its name.
    pub(super) fn slot_of(&self, name: &UplinkName) -> Result<Slot, String> {
        let slots = self.slots.as_ref().ok_or(TOO_EARLY)?;
        slots.named(name).map(|entry| entry.slot).ok_or_else(|| format!("no uplink is called {name}"))
    }

    /// The memory of slots; from its file, or, where that is lost, from the rules in the kernel.
    fn remembered(&mut self, rules: &[crate::core::rule::Rule]) -> Slots {
        let read = || {
            let lost = match state::load_slots(&self.dirs) {
                Ok(Memory::Known(slots)) => return slots,
                Ok(Memory::Blank) => None,
                Ok(Memory::SetAside(path, why)) => Some(format!("{why}; set aside as {}", path.display())),
                Err(error) => Some(chain(&error)),
            };
            let learned = Slots::learned_from(rules);
            if let Some(why) = lost {
                let count = learned.entries().len();
                warn!(
                    "the memory of slots was lost ({why}); {count} slots learned back from the kernel's rules"
                );
            }
            learned
        };
        self.slots.get_or_insert_with(read).clone()
    }

    /// Writes down what is new about the slots, or what could not be written before.
    fn remember(&mut self, plan: &Plan, before: &Slots) {
        let again = self.unsaved.is_some();
        let save = || {
            if again || plan.slots != *before {
                state::save_slots(&self.dirs, &plan.slots)?;
            }
            if again || plan.slots != self.last.slots {
                state::save_table_names(&self.dirs, &plan.slots)?;
            }
            Ok::<_, state::Error>(())
        };
        let unsaved = save().err().map(|error| format!("the memory of slots is not kept: {}", chain(&error)));
        if let Some(why) = unsaved.as_ref().filter(|why| self.unsaved.as_ref() != Some(why)) {
            warn!("{why}");
        }
        self.unsaved = unsaved;
        self.slots = Some(plan.slots.clone());
    }

    fn watch_gateways(&self, plan: &Plan) {
        let legs = plan.uplinks.iter().flat_map(|uplink| Family::BOTH.map(|family| &uplink.legs[family]));
        // One that has been met is only news when it is another's address.
        let unmet = legs.filter(|leg| leg.gateway_mac.is_none());
        let unmet = unmet.filter_map(|leg| leg.gateway.and_then(Gateway::ip)).collect();
        if let Ok(mut gateways) = self.gateways.lock() {
            *gateways = unmet;
        }
    }
}

/// Changes as commands for a shell.
fn scripts(changes: &[Change]) -> Vec<String> {
    changes.iter().map(|change| format!("{change:#}")).collect()
}
