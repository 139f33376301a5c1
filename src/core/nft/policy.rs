//! The table of policies as text: which traffic takes which uplink, whatever the default route says.
//!
//! It is a table of its own, beside the one that every router has, because it lives otherwise. That one is replaced whole;
//! this one is flushed of its rules and written anew, so that the lists of addresses, which may be long, and the memory of
//! who was on which uplink stay. Nothing is changed by element: for such a command nft reads everybody's sets first.
//!
//! A flow's first packet meets it, in nat-type chains: what comes from behind in prerouting, ahead of routing; what this
//! machine sends in output, where a mark alone routes nothing anew, so a route-type chain behind it does. The first match is
//! found as [`ranges`](crate::core::policy::ranges) tells, with the packet's own mark as the word: it is known to be 0 when
//! it comes here, and is set for good when it leaves.
//!
//! Refuses to know who can carry what; that is a [`Verdict`].

mod criteria;
mod fastest;
mod guard;
mod lookups;
mod names;
mod object;
mod sticky;
mod units;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};

use ipnet::IpNet;

use self::criteria::{BEHIND, BOTH, Criterion, OWN, Round};
use self::fastest::Fastest;
use self::lookups::Lookups;
use self::sticky::Sticky;
use super::generation::uses;
use super::{Generation, by_name, joined, mark_of, uplink_of_flow};
use crate::core::layout::{MARK_MASK, Slot};
use crate::core::net::{Family, IfName, PerFamily};
use crate::core::policy::prefixes::{BY_ADDRESS, Prefixes, map};
use crate::core::policy::ranges::Bits;
use crate::core::policy::{Cgroup, Label, Policy, Traffic, Way};
use crate::core::text::hash;

/// The name of the table, family `inet`.
pub const POLICY_TABLE: &str = "uplinkd_policy";

/// What becomes of a policy's traffic of one family now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Verdict {
    /// The policy is looked past.
    #[default]
    Skip,
    /// It goes as if there were no policies.
    Pass,
    /// It is refused.
    Refuse,
    /// Each new flow takes one of these, by their shares.
    Take(Vec<(Slot, u16)>),
}

/// A policy at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing<'a> {
    /// What was configured.
    pub policy: &'a Policy,
    /// The interfaces that it speaks of, by name.
    pub interfaces: Vec<IfName>,
    /// The uplink that it enforces, also while that is away; none where nobody is called so, and for other methods.
    pub only: Option<Slot>,
    /// The control groups of the units and slices that it speaks of, of those that there are.
    pub cgroups: Vec<Cgroup>,
    /// What becomes of its traffic.
    pub verdict: PerFamily<Verdict>,
}

/// What the policies look at beside the packet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Surroundings {
    /// What the machine forwards is moved and held as well as what it sends.
    pub forwarded: bool,
    /// The uplinks that are present, by interface, also those that have lost their gateway: what comes in by one is
    /// somebody's who has chosen his way already, and what is enforced leaves by its own of these alone.
    pub uplinks: Vec<(IfName, Slot)>,
    /// The interfaces behind which nobody may use an uplink, whatever a policy says.
    pub denied: BTreeMap<Slot, BTreeSet<IfName>>,
    /// What comes in by these goes where somebody's rule by interface leads it.
    pub ruled: BTreeSet<(Family, IfName)>,
    /// What is reached without a gateway, and so stays where it is; without overlaps.
    pub near: Vec<IpNet>,
}

/// The table, ready to be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyTable {
    /// All but what is in maps and sets.
    body: String,
    lookups: Lookups,
    prefixes: Prefixes,
    rounds: usize,
    /// By which what it enforces is known; none where that is nothing.
    enforces: Option<u64>,
    /// In one line.
    summary: String,
}

/// The table that is loaded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LoadedPolicies {
    /// Which text, and how much of it.
    pub generation: Generation,
    /// Its chains.
    pub chains: BTreeSet<String>,
}

impl PolicyTable {
    /// Writes the table.
    pub fn new(around: &Surroundings, policies: &[Standing], prefixes: &Prefixes) -> Self {
        let rounds = Round::all(policies);
        let mut kept = prefixes.kept.clone();
        let mut text: String = rounds.iter().map(|round| round.criteria(&mut kept)).collect();
        for (place, standing) in policies.iter().enumerate() {
            text += &standing.chains(place, around);
        }
        let decide = |is_here: fn(&Traffic) -> bool, more: &'static [Criterion]| -> Vec<String> {
            rounds.iter().flat_map(|round| round.decision(is_here, &[&BOTH, more], policy_chain)).collect()
        };
        text += &chain("behind", &decide(|traffic| !traffic.is_own(), &BEHIND));
        text += &chain("here", &decide(|traffic| !traffic.is_behind(), &OWN));
        text += &guard::guard(around, policies, &rounds);
        let keeps = kept
            .iter()
            .map(|bits| chain(&keep(*bits), &[format!("meta mark set meta mark & {:#010x}", bits.0)]));
        let body = keeps.collect::<String>() + &around.takes(policies) + &text + &around.hooks();
        let name = |standing: &Standing| standing.policy.name.clone();
        let summary = policies.iter().map(name).collect::<Vec<_>>().join(", ");
        let enforces = enforces(policies, prefixes);
        let (body, lookups) = Lookups::named(&body);
        PolicyTable { body, lookups, prefixes: prefixes.clone(), rounds: rounds.len(), enforces, summary }
    }

    /// Which generation this is.
    pub fn generation(&self) -> Generation {
        let of_elements = u32::try_from(self.prefixes.count + self.lookups.uses()).unwrap_or(u32::MAX);
        let uses = uses(&self.body).saturating_add(of_elements);
        Generation {
            hash: hash(&(self.body.clone() + &self.marker() + &self.pledge().unwrap_or_default())),
            uses,
        }
    }

    /// The chain that tells which prefixes are loaded, and for how many rounds there are maps.
    fn marker(&self) -> String {
        format!("{PREFIXES}{:016x}_{}", self.prefixes.hash, self.rounds)
    }

    /// The chain that tells what is enforced.
    fn pledge(&self) -> Option<String> {
        self.enforces.map(|hash| format!("{ENFORCES}{hash:016x}"))
    }

    /// Whether it enforces something that the loaded table does not.
    pub fn begins_to_enforce(&self, over: Option<&LoadedPolicies>) -> bool {
        let stands = |pledge: &String| over.is_some_and(|loaded| loaded.chains.contains(pledge));
        self.pledge().is_some_and(|pledge| !stands(&pledge))
    }

    /// The chains without rules, whose names tell what is loaded.
    fn markers(&self) -> impl Iterator<Item = String> {
        let generation = self.generation();
        // How often its chains were used when it was loaded.
        let of_all = [generation.chain(), self.marker(), format!("{USES}{}", generation.uses)];
        of_all.into_iter().chain(self.pledge()).chain(self.lookups.markers())
    }

    /// As it will be when it is loaded.
    pub fn loaded(&self) -> LoadedPolicies {
        let chains = self.body.lines().filter_map(|line| line.strip_prefix("\tchain ")?.strip_suffix(" {"));
        let chains = chains.map(str::to_owned).chain(self.markers()).collect();
        LoadedPolicies { generation: self.generation(), chains }
    }

    /// The text for `nft -f -`: makes the table what it should be, from what is loaded, in one transaction.
    pub fn text(&self, over: Option<&LoadedPolicies>) -> String {
        // What somebody has taken something out of is no ground to build on: nothing tells whether it was an element.
        let over = over.filter(|loaded| loaded.is_whole());
        let kept = over.is_some_and(|loaded| loaded.chains.contains(&self.marker()));
        let begin = match over {
            Some(loaded) => self.cleared(loaded, kept),
            None => format!("delete table inet {POLICY_TABLE}\n"),
        };
        let mut maps = String::new();
        for round in 0..self.rounds {
            for ((criterion, _), family) in BY_ADDRESS.iter().flat_map(|by| Family::BOTH.map(|f| (by, f))) {
                let name = map(criterion, family, round);
                let all = self.prefixes.elements.iter().find(|(of, _)| *of == name).filter(|_| !kept);
                let all =
                    all.map(|(_, all)| format!("\t\telements = {{\n{all}\n\t\t}}\n")).unwrap_or_default();
                let kind = family.nft_address();
                let _ =
                    write!(maps, "\tmap {name} {{\n\t\ttype {kind} : verdict; flags interval;\n{all}\t}}\n");
            }
        }
        let markers: String = self.markers().map(|name| chain(&name, &[])).collect();
        let body = &self.body;
        // The chains stand ahead of the maps, whose elements lead to them.
        format!(
            "table inet {POLICY_TABLE} {{\n}}\n{begin}table inet {POLICY_TABLE} {{\n{markers}{}{body}{maps}{}}}\n",
            object::declared(body),
            self.lookups.declared(|name| over.is_some_and(|loaded| loaded.chains.contains(name))),
        )
    }

    /// Takes out what is loaded and not wanted any more.
    fn cleared(&self, loaded: &LoadedPolicies, kept: bool) -> String {
        let mut text = format!("flush table inet {POLICY_TABLE}\n");
        let rounds = loaded.chains.iter().find_map(|chain| chain.strip_prefix(PREFIXES)?.split('_').nth(1));
        let rounds: usize = rounds.and_then(|rounds| rounds.parse().ok()).unwrap_or_default();
        for round in (0..rounds).filter(|_| !kept) {
            let of_round = BY_ADDRESS.iter().flat_map(|(by, _)| Family::BOTH.map(|f| map(by, f, round)));
            let verb = if round < self.rounds { "flush" } else { "delete" };
            for name in of_round {
                let _ = writeln!(text, "{verb} map inet {POLICY_TABLE} {name}");
            }
        }
        let wanted = self.loaded().chains;
        let gone = || loaded.chains.difference(&wanted);
        // The elements lead to chains, which are in use for as long as they are there.
        text.extend(gone().map(|chain| object::deleted(chain)));
        for chain in gone() {
            let _ = writeln!(text, "delete chain inet {POLICY_TABLE} {chain}");
        }
        text
    }
}

impl LoadedPolicies {
    /// Whether some policy gave it new flows of a family when the table was loaded.
    pub fn carries(&self, slot: Slot, family: Family) -> bool {
        self.chains.contains(&carries(slot, family))
    }

    /// Whether nothing was taken out of it since it was loaded.
    fn is_whole(&self) -> bool {
        let wanted = self.chains.iter().find_map(|chain| chain.strip_prefix(USES)?.parse::<u32>().ok());
        self.generation != Generation::UNKNOWN && wanted.is_some_and(|uses| self.generation.uses >= uses)
    }
}

impl fmt::Display for PolicyTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table inet {POLICY_TABLE}, generation {}: {}", self.generation(), self.summary)?;
        match self.prefixes.count {
            0 => Ok(()),
            count => write!(f, "; {count} elements by address"),
        }
    }
}

/// What renews the lease of an uplink, by unicast (RFC 2131, 4.4.5): it has its way.
const LEASES: &str = "udp sport 68 udp dport 67";

/// The beginning of the name of the chain that tells which prefixes are loaded.
const PREFIXES: &str = "prefixes_";

/// The beginning of the name of the chain that tells what is enforced.
const ENFORCES: &str = "enforces_";

/// The beginning of the name of the chain that tells how often chains are used.
const USES: &str = "uses_";

/// The name of the chain, without rules, that tells that an uplink carries traffic of some policy.
fn carries(slot: Slot, family: Family) -> String {
    format!("carries_{family}_{slot}")
}

/// The name of the chain that leaves some policies of a round.
fn keep(bits: Bits) -> String {
    format!("keep_{:08x}", bits.0)
}

/// A chain of these rules.
fn chain(name: &str, rules: &[String]) -> String {
    let rules: String = rules.iter().map(|rule| format!("\t\t{rule}\n")).collect();
    format!("\tchain {name} {{\n{rules}\t}}\n")
}

/// The name of the chain of a policy.
fn policy_chain(place: usize) -> String {
    format!("policy_{place}")
}

impl Standing<'_> {
    /// Whether packets of a family can be for it.
    fn is_in_force(&self, family: Family) -> bool {
        self.verdict[family] != Verdict::Skip && self.policy.traffic.can_be(family)
    }

    /// What is done with a flow for which it is the first match.
    fn chains(&self, place: usize, around: &Surroundings) -> String {
        let mut rules = vec![format!("comment \"{}\"", self.policy.name), "meta mark set 0".to_owned()];
        let mut beside = String::new();
        for family in Family::BOTH {
            let shares = match &self.verdict[family] {
                Verdict::Take(shares) => shares.as_slice(),
                _ => &[],
            };
            if let Way::Persistence(stick) = self.policy.way {
                beside += &Sticky::new(&self.policy.name, stick, family, shares).chains();
            }
            if self.policy.way == Way::Fastest {
                beside += &Fastest::new(&self.policy.name, family, shares).chains();
            }
            if self.verdict[family] == Verdict::Refuse {
                rules.push(format!("meta nfproto {family} goto refused"));
            }
            if !matches!(self.verdict[family], Verdict::Take(_) | Verdict::Pass) {
                continue;
            }
            if self.policy.way != Way::Enforced {
                // What is met in its midst ran before it could be seen, and would break where it is moved.
                rules.push(format!("meta nfproto {family} tcp flags & (syn | ack) != syn return"));
            }
            let denied = around.denied_all(shares);
            if !denied.is_empty() {
                // Who may use none of them is led by his group, and nothing of his is the policy's; but what is enforced
                // is not to leave by another.
                let end = if self.policy.way == Way::Enforced { "goto refused" } else { "return" };
                rules.push(format!("meta nfproto {family} iifname {{ {} }} {end}", by_name(&denied)));
            }
            // Also what goes by the default route meanwhile: it is the policy's, and may be called back.
            rules.push(format!("meta nfproto {family} ct label set {}", Label::of(&self.policy.name)));
            if shares.is_empty() {
                continue;
            }
            let goto = |take: String| format!("meta nfproto {family} {take}");
            match self.policy.way {
                Way::Persistence(stick) => {
                    rules.extend(Sticky::new(&self.policy.name, stick, family, shares).rules());
                }
                Way::Fastest => {
                    let chain = Fastest::new(&self.policy.name, family, shares).chain();
                    rules.push(goto(format!("goto {chain}")));
                }
                Way::By(_) | Way::Enforced => rules.extend(by_turns(shares).into_iter().map(goto)),
            }
        }
        beside + &chain(&policy_chain(place), &rules)
    }
}

/// By which what is enforced now is known.
fn enforces(policies: &[Standing], prefixes: &Prefixes) -> Option<u64> {
    let mut text = String::new();
    for one in policies.iter().filter(|one| one.is_enforced()) {
        let in_force = Family::BOTH.map(|family| one.is_in_force(family));
        let _ = writeln!(text, "{:?} {in_force:?} {}", one.only, one.policy.traffic.beside_addresses());
    }
    (!text.is_empty()).then(|| hash(&format!("{text}{:016x}", prefixes.hash)))
}

/// Each in turn, as often as its share says: the rules for it. The last takes what is not in the map, so that nothing is
/// left over where a packet meets one map by the rules of another table.
fn by_turns(shares: &[(Slot, u16)]) -> Vec<String> {
    let Some(((last, _), others)) = shares.split_last() else { return Vec::new() };
    let divisor = shares.iter().map(|(_, weight)| *weight).fold(0, gcd).max(1);
    let total: u32 = shares.iter().map(|(_, weight)| u32::from(weight / divisor)).sum();
    let mut from = 0;
    let mut element = |(slot, weight): &(Slot, u16)| {
        let range = from..from + u32::from(weight / divisor);
        from = range.end;
        format!("{}-{} : goto take_{slot}", range.start, range.end - 1)
    };
    let elements: Vec<_> = others.iter().map(&mut element).collect();
    let turns = elements.first().map(|_| {
        format!("meta mark set numgen inc mod {total} meta mark vmap {{ {} }}", elements.join(", "))
    });
    turns.into_iter().chain([format!("goto take_{last}")]).collect()
}

/// The rule that gives a flow to the one of these whose mark the packet has.
fn by_mark(shares: &[(Slot, u16)]) -> String {
    let elements: Vec<_> =
        shares.iter().map(|(slot, _)| format!("{} : jump take_{slot}", mark_of(*slot))).collect();
    format!("meta mark vmap {{ {} }}", elements.join(", "))
}

fn gcd(a: u16, b: u16) -> u16 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Surroundings {
    /// The interfaces behind which nobody may use any of these.
    fn denied_all(&self, shares: &[(Slot, u16)]) -> BTreeSet<IfName> {
        let denied = shares.iter().map(|(slot, _)| self.denied.get(slot).cloned().unwrap_or_default());
        denied.reduce(|all, one| &all & &one).unwrap_or_default()
    }

    /// The chains that give a flow to an uplink, and the one that gives it to none.
    fn takes(&self, policies: &[Standing]) -> String {
        let verdicts =
            policies.iter().flat_map(|one| Family::BOTH.map(|family| (family, &one.verdict[family])));
        let carried: BTreeSet<(Slot, Family)> = verdicts
            .flat_map(|(family, verdict)| match verdict {
                Verdict::Take(shares) => shares.iter().map(|(slot, _)| (*slot, family)).collect(),
                _ => Vec::new(),
            })
            .collect();
        let slots: BTreeSet<Slot> = carried.iter().map(|(slot, _)| *slot).collect();
        let carries = carried.iter().map(|(slot, family)| chain(&carries(*slot, *family), &[]));
        let take = |slot: &Slot| {
            // Who may not use it goes as if there were no policy, and is led by its group.
            let denied = self.denied.get(slot).map(|lans| format!("iifname {{ {} }} return", by_name(lans)));
            let mark = format!("ct mark set ct mark & {:#010x} | {}", !MARK_MASK, mark_of(*slot));
            chain(&format!("take_{slot}"), &denied.into_iter().chain([mark]).collect::<Vec<_>>())
        };
        let refused = ["meta l4proto tcp reject with tcp reset", "reject with icmpx host-unreachable"];
        carries.chain(slots.iter().map(take)).collect::<String>()
            + &chain("refused", &refused.map(str::to_owned))
    }

    /// The chains with hooks. What carries a mark is somebody's, or has its uplink; and what is near, of this machine, or led
    /// elsewhere than out of an uplink by main or by a VPN, is nobody's to move.
    fn hooks(&self) -> String {
        let ours = uplink_of_flow();
        let names = by_name(self.uplinks.iter().map(|(name, _)| name));
        let among = |what: &str| (!names.is_empty()).then(|| format!("{what} {{ {names} }}"));
        let mut spared = vec!["fib daddr type { local, broadcast, multicast, anycast } return".to_owned()];
        for family in Family::BOTH {
            let near: Vec<_> = self.near.iter().filter(|net| Family::of(net.addr()) == family).collect();
            if !near.is_empty() {
                spared.push(format!("{} daddr {{ {} }} return", family.nft(), joined(&near)));
            }
        }
        let marked = ["meta mark != 0 return".to_owned(), format!("{ours} != 0 return")];
        let mut behind = vec!["type nat hook prerouting priority dstnat - 10; policy accept;".to_owned()];
        behind.extend(marked.clone());
        behind.extend(among("iifname").map(|rule| format!("{rule} return")));
        behind
            .extend(self.ruled.iter().map(|(f, name)| format!("meta nfproto {f} iifname \"{name}\" return")));
        behind.extend(spared.clone());
        let elsewhere = among("fib daddr oifname !=").map(|rule| format!("{rule} ")).unwrap_or_default();
        behind.push(format!("fib daddr oif exists {elsewhere}return"));
        behind.extend(["jump behind".to_owned(), format!("meta mark set {ours}")]);
        let mut here = vec!["type nat hook output priority -110; policy accept;".to_owned()];
        here.extend(marked);
        here.push(among("oifname !=").map_or("return".into(), |rule| format!("{rule} return")));
        here.extend(spared);
        here.push(format!("{LEASES} return"));
        // In the end without a number that was drawn on the way: that would be taken for somebody's mark.
        here.extend(["jump here".to_owned(), "meta mark set 0".to_owned()]);
        // All output chains of nat stand at -100, whatever they say: ahead of that nothing would be decided yet.
        let again = [
            "type route hook output priority -99; policy accept;".to_owned(),
            format!("meta mark 0 {ours} != 0 meta mark set {ours}"),
        ];
        let behind = if self.forwarded { chain("from_behind", &behind) } else { String::new() };
        behind + &chain("from_here", &here) + &chain("route_anew", &again)
    }
}
