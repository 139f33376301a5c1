//! The outside, as two verbs: observe it all, and apply changes to the kernel.
//!
//! Puts the sources together into one snapshot and carries out what was decided. Decides only when a source that
//! does not answer has been waited for long enough.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::core::change::Change;
use crate::core::diff::{Desired, Move};
use crate::core::layout::Slot;
use crate::core::net::{Family, Mark};
use crate::core::observed::{Kernel, LinkFacts, Observed};
use crate::core::sysctl::Sysctl;
use crate::kernel::flows::{self, Released};
use crate::kernel::rtnl::{self, Rtnl};
use crate::kernel::sysctl::{self, Originals, ROOT};
use crate::kernel::{conntrack, nfnl, nft};
use crate::sources::bus::BusState;
use crate::sources::{Presence, nm};

/// How long a round waits for a manager that it knows already: what it last said will do.
const BRIEFLY: Duration = Duration::from_millis(200);
/// How long a source that is there but does not answer is waited for before the rest counts without it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The kernel and the sources.
pub struct World {
    rtnl: Rtnl,
    originals: Originals,
    started: Instant,
    /// Uplinks whose running flows were moved, for as long as that is wanted.
    moved: BTreeSet<(Slot, Family)>,
    /// What NetworkManager last said: it still counts while NetworkManager restarts.
    last_told: Option<Vec<LinkFacts>>,
}

/// One look.
pub struct Look {
    /// What was seen.
    pub observed: Observed,
    /// How much of it can be relied on.
    pub hearing: Hearing,
}

/// How much of a look can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hearing {
    /// Every source that is there was heard.
    Full,
    /// One did not answer; what it last said counts, and it should be asked again soon.
    Stale,
    /// One has not been heard yet: nothing may be changed on what is known.
    Wait,
}

/// What became of a list of changes.
#[derive(Debug, Default)]
pub struct Report {
    /// How many were carried out.
    pub done: usize,
    /// Those that failed, with the reason.
    pub failed: Vec<(Change, String)>,
}

impl World {
    /// Opens the sockets; `originals` is the file of remembered sysctls.
    pub fn open(originals: &Path) -> Result<Self, rtnl::Error> {
        let (originals, problem) = Originals::load(originals);
        if let Some(problem) = problem {
            warn!("{}", chain(&problem));
        }
        Ok(World {
            rtnl: Rtnl::open()?,
            originals,
            started: Instant::now(),
            moved: BTreeSet::new(),
            last_told: None,
        })
    }

    /// Looks at everything.
    pub async fn observe(&mut self, bus: &BusState) -> Result<Look, rtnl::Error> {
        let (view, told) = tokio::join!(self.rtnl.look(), ask_managers(bus, self.last_told.is_some()));
        let view = view?;
        let mut observed = Observed {
            links: view.links,
            addresses: view.addresses,
            defaults: view.defaults,
            others: view.others,
            neighbours: view.neighbours,
            foreign_rules: view.foreign_rules,
            foreign_tables: view.foreign_tables,
            forwards: view.forwards,
            kernel: Kernel {
                rules: view.rules,
                routes: view.routes,
                sysctls: view.sysctls,
                ..Kernel::default()
            },
            ..Observed::default()
        };
        let kernel = &mut observed.kernel;
        match nfnl::loaded_generation().await {
            Ok(generation) => kernel.ruleset = generation,
            Err(error) => observed.unheard.push(format!("nftables: {}", chain(&error))),
        }
        for setting in
            [Sysctl::rp_filter_of_all(), Sysctl::HashPolicy(Family::V4), Sysctl::HashPolicy(Family::V6)]
        {
            if let Ok(Some(value)) = sysctl::read(Path::new(ROOT), &setting) {
                kernel.sysctls.insert(setting, value);
            }
        }
        kernel.originals = self.originals.values().clone();
        kernel.moved = self.moved.clone();
        let hearing = self.take_in(told, &mut observed);
        Ok(Look { observed, hearing })
    }

    /// Adds what the managers said.
    fn take_in(&mut self, told: Told, observed: &mut Observed) -> Hearing {
        let silent = match told {
            Told::Facts(facts) => {
                self.last_told = Some(facts);
                None
            }
            Told::Nobody(why) => {
                observed.unheard.extend(why);
                None
            }
            Told::NoAnswer(why) => Some(why),
        };
        let known = self.last_told.is_some();
        observed.managed = self.last_told.clone().unwrap_or_default();
        let hearing = match silent {
            None => Hearing::Full,
            Some(_) if known || self.started.elapsed() >= PATIENCE => Hearing::Stale,
            Some(_) => Hearing::Wait,
        };
        observed.unheard.extend(silent);
        hearing
    }

    /// Carries out changes in their order. Goes on after a failure: the next round mends what is left.
    pub async fn apply(&mut self, changes: &[Change]) -> Report {
        let mut report = Report::default();
        let mut rest = changes;
        while let Some((change, others)) = rest.split_first() {
            let adopted: Vec<(IpAddr, Mark)> = rest.iter().map_while(adoption).collect();
            let outcome = match adopted.is_empty() {
                true => self.carry_out(change).await,
                // One look at conntrack serves them all.
                false => adopt(&adopted).await,
            };
            let count = adopted.len().max(1);
            let unloaded = outcome.is_err() && matches!(change, Change::LoadRuleset(_));
            match outcome {
                Ok(()) => {
                    rest[..count].iter().for_each(|change| info!("{change}"));
                    report.done += count;
                }
                Err(why) => report.failed.push((change.clone(), why)),
            }
            if unloaded {
                // Marks of flows mean nothing without the table; they come with its next load.
                rest = others.iter().position(|c| adoption(c).is_none()).map_or(&[], |at| &others[at..]);
                continue;
            }
            rest = if adopted.is_empty() { others } else { &rest[count..] };
        }
        report
    }

    async fn carry_out(&mut self, change: &Change) -> Result<(), String> {
        match change {
            Change::SetSysctl(setting, value) => self.set_sysctl(setting, value).map_err(|e| chain(&e)),
            Change::LoadRuleset(ruleset) => nft::load(&ruleset.text()).await.map_err(|e| chain(&e)),
            Change::DropRuleset => nft::drop_table().await.map_err(|e| chain(&e)),
            Change::PutRoute(route) => self.rtnl.put_route(route).await.map_err(|e| chain(&e)),
            Change::AddRule(rule) => self.rtnl.add_rule(rule).await.map_err(|e| chain(&e)),
            Change::DelRule(rule) => self.rtnl.del_rule(rule).await.map_err(|e| chain(&e)),
            Change::DelRoute(route) => self.rtnl.del_route(route).await.map_err(|e| chain(&e)),
            Change::AdoptFlows(ip, mark) => adopt(&[(*ip, *mark)]).await,
            Change::MoveFlows(what) => {
                // Not done again and again where a part of it cannot be done at all.
                self.moved.insert(what.key());
                move_flows(what).await
            }
        }
    }

    /// Forgets that flows were moved where that is not wanted any more, so that it is done anew the next time.
    pub fn settle(&mut self, desired: &Desired) {
        self.moved.retain(|key| desired.moves.iter().any(|m| m.key() == *key));
    }

    /// Writes a setting, and remembers first what it held.
    fn set_sysctl(&mut self, setting: &Sysctl, value: &str) -> Result<(), sysctl::Error> {
        let root = Path::new(ROOT);
        if self.originals.values().get(setting).is_some_and(|original| original == value) {
            sysctl::write(root, setting, value)?;
            return self.originals.forget(setting);
        }
        if let Some(before) = sysctl::read(root, setting)? {
            self.originals.remember(setting, &before)?;
        }
        sysctl::write(root, setting, value)
    }
}

fn adoption(change: &Change) -> Option<(IpAddr, Mark)> {
    match change {
        Change::AdoptFlows(ip, mark) => Some((*ip, *mark)),
        _ => None,
    }
}

async fn adopt(flows: &[(IpAddr, Mark)]) -> Result<(), String> {
    let count = conntrack::adopt(flows).await.map_err(|e| chain(&e))?;
    if count > 0 {
        info!("{count} running flows keep their uplink");
    }
    Ok(())
}

/// Ends what runs over an uplink: conntrack forgets its flows, so that their next packet takes the way that stands now;
/// clients on the LAN that only listen are made to send one; and this machine's own connections are reset.
async fn move_flows(what: &Move) -> Result<(), String> {
    let Move { family, slot, addresses, connected } = what;
    let Released { ended, evicted, roused, problems } =
        flows::release(*family, slot.mark(), addresses, connected).await;
    if ended + evicted + roused > 0 {
        info!(
            "{evicted} {family} flows of slot {slot} move; reset were {ended} connections of this machine and {roused} of \
         clients"
        );
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}

/// What the managers had to say.
enum Told {
    /// This.
    Facts(Vec<LinkFacts>),
    /// There is nobody; with a word for the status where that is unusual.
    Nobody(Option<String>),
    /// Somebody is there and does not answer.
    NoAnswer(String),
}

async fn ask_managers(bus: &BusState, known: bool) -> Told {
    let connection = match bus {
        BusState::Connecting => return Told::NoAnswer("the D-Bus system bus is being reached for".into()),
        BusState::Unreachable(error) => {
            let why = chain(error.as_ref());
            return Told::Nobody(Some(format!(
                "no D-Bus, so uplinks are found from the kernel alone ({why})"
            )));
        }
        BusState::Connected(connection) => connection,
    };
    // A manager that hangs must not hold up what the kernel alone can tell, such as a lost carrier.
    let limit = if known { BRIEFLY } else { PATIENCE };
    match tokio::time::timeout(limit, nm::snapshot(connection)).await {
        Ok(Ok(Presence::Present(facts))) => Told::Facts(facts),
        Ok(Ok(Presence::Absent)) => Told::Nobody(None),
        Ok(Err(error)) => Told::NoAnswer(chain(&error)),
        Err(_) => Told::NoAnswer(format!(
            "NetworkManager does not answer within {limit:?}; what it last said counts"
        )),
    }
}

/// An error with its causes, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        // Some libraries repeat the cause in their own text.
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        cause = error.source();
    }
    text
}
