//! The outside, as two verbs: observe it all, and apply changes to the kernel.
//!
//! Puts the sources together into one snapshot and carries out what was decided. How long a manager is waited for is
//! decided in `managers`.

mod fragments;
mod managers;
mod resolvers;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use tracing::{info, warn};

use self::fragments::Fragments;
pub use self::fragments::said;
use self::managers::Managers;
use self::resolvers::Resolvers;
use crate::clock;
use crate::core::change::Change;
use crate::core::diff::{Desired, Move, Whose};
use crate::core::layout::Slot;
use crate::core::net::{Family, Mark};
use crate::core::nft::{LoadedPolicies, POLICY_TABLE, PolicyTable, Ruleset, TABLE};
use crate::core::observed::{Kernel, Observed};
use crate::core::policy::running::Claims;
use crate::core::policy::{Label, Moment};
use crate::core::sysctl::Sysctl;
use crate::kernel::conntrack::{self, Labels};
use crate::kernel::flows::{self, Released};
use crate::kernel::rtnl::{self, Rtnl};
use crate::kernel::sysctl::{self, Originals, ROOT};
use crate::kernel::{nfnl, nft, sockets};
use crate::sources::bus::BusState;
use crate::sources::offers;
use crate::sources::tending::Watcher;
use crate::state::Directories;

/// The kernel and the sources.
pub struct World {
    rtnl: Rtnl,
    originals: Originals,
    managers: Managers,
    networkd: Watcher,
    /// Uplinks whose running flows were moved, for as long as that is wanted.
    moved: BTreeSet<(Slot, Family, Whose)>,
    resolvers: Resolvers,
    fragments: Fragments,
    /// Addresses whose flows were ended, likewise.
    vacated: BTreeSet<IpAddr>,
}

/// One look.
pub struct Look {
    /// What was seen.
    pub observed: Observed,
    /// How much of it can be relied on.
    pub hearing: Hearing,
}

/// How much of a look can be relied on, the most first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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
    /// Opens the sockets, and reads what was changed outside of the kernel's routing.
    pub fn open(dirs: &Directories) -> Result<Self, rtnl::Error> {
        let (originals, problem) = Originals::load(&dirs.originals());
        if let Some(problem) = problem {
            warn!("{}", chain(&problem));
        }
        Ok(World {
            rtnl: Rtnl::open()?,
            originals,
            managers: Managers::new(),
            networkd: Watcher::new(&dirs.networkd()),
            moved: BTreeSet::new(),
            resolvers: Resolvers::open(dirs),
            fragments: Fragments::default(),
            vacated: BTreeSet::new(),
        })
    }

    /// Looks at everything, and changes nothing, not even a file.
    pub async fn observe(&mut self, bus: &BusState) -> Result<Look, rtnl::Error> {
        let keeper = &mut self.networkd;
        let networkd = async move {
            match bus {
                BusState::Connected(bus) => keeper.look(bus).await,
                BusState::Connecting | BusState::Unreachable(_) => None,
            }
        };
        let (view, told, networkd, said) =
            tokio::join!(self.rtnl.look(), self.managers.ask(bus), networkd, self.resolvers.look(bus));
        let mut observed = routing(view?);
        observed.networkd = networkd;
        observed.moment = Moment::of(clock::local());
        (observed.offers, observed.unheard) = offers::read(Path::new(offers::FOLDER));
        self.look_beside(&mut observed).await;
        self.fragments.look(&mut observed.kernel).await;
        let hearing = self.managers.take_in(told, &mut observed);
        self.resolvers.take_in(said, &mut observed).await;
        Ok(Look { observed, hearing })
    }

    /// What of the kernel is not routing, and what is known of it.
    async fn look_beside(&self, observed: &mut Observed) {
        let kernel = &mut observed.kernel;
        match nfnl::loaded().await {
            Ok(loaded) => {
                (kernel.ruleset, kernel.policies) = (loaded.ruleset, loaded.policies);
                kernel.fragments = loaded.fragments;
            }
            Err(error) => observed.unheard.push(format!("nftables: {}", chain(&error))),
        }
        let both = Family::BOTH.into_iter();
        let of_family = both.flat_map(|family| [Sysctl::HashPolicy(family), Sysctl::Forwarding(family)]);
        for setting in of_family.chain([Sysctl::rp_filter_of_all()]) {
            if let Ok(Some(value)) = sysctl::read(Path::new(ROOT), &setting) {
                kernel.sysctls.insert(setting, value);
            }
        }
        kernel.originals = self.originals.values().clone();
        (kernel.moved, kernel.vacated) = (self.moved.clone(), self.vacated.clone());
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
            Change::LoadRuleset(ruleset) => load(ruleset).await.map_err(|e| chain(&e)),
            Change::DropRuleset => nft::drop_table(TABLE).await.map_err(|e| chain(&e)),
            Change::LoadPolicies(table, over) => {
                load_policies(table, over.as_ref()).await.map_err(|e| chain(&e))
            }
            Change::ClaimFlows(claims) => claim_flows(claims).await,
            Change::DropPolicies => nft::drop_table(POLICY_TABLE).await.map_err(|e| chain(&e)),
            Change::LoadFragment(table, over) => self.fragments.load(table, *over).await,
            Change::DropFragment(name) => nft::drop_table(&name.table()).await.map_err(|e| chain(&e)),
            Change::PutRoute(route) => self.rtnl.put_route(route).await.map_err(|e| chain(&e)),
            Change::AddRule(rule) => self.rtnl.add_rule(rule).await.map_err(|e| chain(&e)),
            Change::DelRule(rule) => self.rtnl.del_rule(rule).await.map_err(|e| chain(&e)),
            Change::DelRoute(route) => self.rtnl.del_route(route).await.map_err(|e| chain(&e)),
            Change::AdoptFlows(ip, mark) => adopt(&[(*ip, *mark)]).await,
            Change::AskResolvers(dev, asked) => self.resolvers.ask(dev, *asked).await,
            Change::MoveFlows(what) => {
                // Not done again and again where a part of it cannot be done at all.
                self.moved.insert(what.key());
                move_flows(what).await
            }
            Change::EndFlows(ip) => {
                self.vacated.insert(*ip);
                end_flows(*ip).await
            }
        }
    }

    /// Forgets that flows were moved or ended where that is not wanted any more, so that it is done anew the next time;
    /// and writes down what the last look found.
    pub fn settle(&mut self, desired: &Desired) {
        self.networkd.remember();
        self.resolvers.remember();
        self.fragments.settle(desired);
        self.vacated.retain(|ip| desired.vacated.contains(ip));
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

/// What rtnetlink told, as the beginning of a look.
fn routing(view: rtnl::View) -> Observed {
    let kernel =
        Kernel { rules: view.rules, routes: view.routes, sysctls: view.sysctls, ..Kernel::default() };
    Observed {
        links: view.links,
        addresses: view.addresses,
        defaults: view.defaults,
        others: view.others,
        neighbours: view.neighbours,
        foreign_rules: view.foreign_rules,
        foreign_tables: view.foreign_tables,
        forwards: view.forwards,
        kernel,
        ..Observed::default()
    }
}

fn adoption(change: &Change) -> Option<(IpAddr, Mark)> {
    match change {
        Change::AdoptFlows(ip, mark) => Some((*ip, *mark)),
        _ => None,
    }
}

/// Loads the table of policies; where the loaded one is in the way, in place of it.
async fn load_policies(table: &PolicyTable, over: Option<&LoadedPolicies>) -> Result<(), nft::Error> {
    match nft::load(&table.text(over)).await {
        // Somebody may have taken out what the text builds on, or made something else of that name.
        Err(nft::Error::Refused { .. }) if over.is_some() => nft::load(&table.text(None)).await,
        outcome => outcome,
    }
}

/// Loads our table. To conntrack, which may see nothing before a firewall asks for it, what runs is told first.
async fn load(ruleset: &Ruleset) -> Result<(), nft::Error> {
    if ruleset.firewall.is_some() {
        if let Err(why) = introduce().await {
            warn!("the firewall may cut what runs: {why}");
        }
    }
    nft::load(&ruleset.text()).await
}

async fn introduce() -> Result<(), String> {
    let running = sockets::connections().await.map_err(|e| chain(&e))?;
    let count = conntrack::introduce(&running).await.map_err(|e| chain(&e))?;
    if count > 0 {
        info!("{count} running connections go on behind the firewall");
    }
    Ok(())
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
    let Move { family, slot, whose, addresses, connected } = what;
    let labels = match whose {
        Whose::All => Labels::Any,
        Whose::Usual(policies) => Labels::NoneOf(policies.iter().map(|name| Label::of(name)).collect()),
        Whose::Policy(name) => Labels::Is(Label::of(name)),
    };
    let these = conntrack::Whose::Mark(slot.mark(), labels);
    let released = flows::release(*family, these, addresses, connected).await;
    let of = match whose {
        Whose::All => String::new(),
        Whose::Usual(_) => " that no policy is for".to_owned(),
        Whose::Policy(name) => format!(" of policy {name}"),
    };
    told(released, &format!("{family} flows of slot {slot}{of} move"))
}

/// Takes running flows away from where policies do not let them be.
async fn claim_flows(claims: &Claims) -> Result<(), String> {
    let what = |family| format!("{family} flows are taken to where they are enforced to be");
    let v4 = told(flows::claim(Family::V4, claims).await, &what(Family::V4));
    let v6 = told(flows::claim(Family::V6, claims).await, &what(Family::V6));
    v4.and(v6)
}

/// Ends what runs over an address that has gone; nobody is spared, as nobody can be answered.
async fn end_flows(ip: IpAddr) -> Result<(), String> {
    let released = flows::release(Family::of(ip), ip, &[ip], &[]).await;
    told(released, &format!("flows of {ip}, which has gone, are forgotten"))
}

/// Logs what was taken off an uplink.
fn told(released: Released, what: &str) -> Result<(), String> {
    let Released { ended, evicted, roused, problems } = released;
    if ended + evicted + roused > 0 {
        info!("{evicted} {what}; reset were {ended} connections of this machine and {roused} of clients");
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
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
