//! What each uplink is over time, and what people call it.
//!
//! Who has a name keeps it for as long as it is still meant to have it; who comes later gets a number behind the
//! name, and where somebody wrote that name down, the status says so. Nothing here knows of slots' numbers.

use std::cmp::Reverse;
use std::fmt;

use super::Candidate;
use crate::core::layout::Slot;
use crate::core::net::{IfIndex, IfName, UplinkName};
use crate::core::observed::{Manager, Observed, Profile};
use crate::core::slots::{Entry, Identity, Slots};

impl Candidate<'_> {
    /// The profile by which its manager configures it.
    pub(super) fn profile(&self) -> Option<&Profile> {
        self.facts.and_then(|f| f.profile.as_ref())
    }

    /// What was known of it while a manager told of it, where none does now. A manager that is silent just now, or
    /// that waits for a cable, does not make it another uplink; what was written in our own configuration and is no
    /// longer there, counts no longer.
    fn recalled<'s>(&self, slots: &'s Slots) -> Option<&'s Entry> {
        slots.last_on(&self.link.name).filter(|entry| entry.told && self.profile().is_none())
    }

    /// What it is, by whoever tells the most.
    pub(super) fn identity(&self, slots: &Slots) -> Identity {
        match (&self.settings.name, self.profile()) {
            (Some(name), _) => Identity::Name(name.clone()),
            (None, Some(profile)) => Identity::Profile(profile.uuid.clone()),
            (None, None) => {
                self.recalled(slots).map_or_else(|| interface_of(self), |entry| entry.identity.clone())
            }
        }
    }

    /// Who chooses first: an uplink that was there before, then who is new; each by number, since the kernel lists
    /// them in any order.
    pub(super) fn seniority(&self, slots: &Slots) -> (bool, Option<Slot>, IfIndex) {
        let slot = slots.last_on(&self.link.name).map(|entry| entry.slot);
        (slot.is_none(), slot, self.link.index)
    }

    /// What it is meant to be called.
    fn wish(&self, slots: &Slots) -> UplinkName {
        // A .network file is named for its place among others (10-netplan-eth1): the interface says more.
        let for_people = self.facts.is_some_and(|facts| facts.manager == Manager::NetworkManager);
        let profile = self.profile().filter(|_| for_people).and_then(|p| UplinkName::sanitised(&p.id));
        let recalled = || self.recalled(slots).map(|entry| entry.name.clone());
        let interface = || UplinkName::sanitised(self.link.name.as_str());
        let configured = self.settings.name.clone();
        configured.or(profile).or_else(recalled).or_else(interface).unwrap_or_else(UplinkName::nameless)
    }
}

fn interface_of(candidate: &Candidate<'_>) -> Identity {
    Identity::Interface(candidate.link.name.to_string())
}

/// What each of them is. Two links under one configured name, or of one profile, are still two uplinks: the one that
/// was it before stays it, and the other does not become it while that one is away.
pub(super) fn identities(candidates: &[Candidate<'_>], known: &Slots) -> Vec<Identity> {
    let wishes: Vec<_> = candidates.iter().map(|c| c.identity(known)).collect();
    let last = |at: usize| known.last_on(&candidates[at].link.name);
    let settled = |at: usize| last(at).is_some_and(|e| e.identity == wishes[at]);
    let told_apart = |at: usize| {
        let numbered = |e: &&Entry| {
            e.identity == interface_of(&candidates[at]) && candidates[at].wish(known).is_numbered_as(&e.name)
        };
        last(at).filter(numbered).is_some() && known.entries().iter().any(|e| e.identity == wishes[at])
    };
    let owner = |wish: &Identity| {
        let those = || (0..wishes.len()).filter(|&at| wishes[at] == *wish);
        those().find(|&at| settled(at)).or_else(|| those().find(|&at| !told_apart(at)))
    };
    let own = |at: usize| match owner(&wishes[at]) == Some(at) {
        true => wishes[at].clone(),
        false => interface_of(&candidates[at]),
    };
    (0..candidates.len()).map(own).collect()
}

/// Chooses what each is called, in their order: the name that it is meant to have, or that with a number.
pub(super) fn choose(
    candidates: &[Candidate<'_>],
    identities: &[Identity],
    observed: &Observed,
    known: &Slots,
    notes: &mut Vec<String>,
) -> Vec<UplinkName> {
    let mut namings: Vec<Naming<'_>> = Vec::new();
    for (candidate, identity) in candidates.iter().zip(identities) {
        let before = known.remembered(identity, &candidate.link.name, identities);
        namings.push(Naming { candidate, identity, wish: candidate.wish(known), before, name: None });
    }
    let mut order: Vec<usize> = (0..namings.len()).collect();
    order.sort_by_key(|&at| namings[at].rank());
    for at in order {
        let (name, note) = namings[at].decide(&namings, observed, known);
        namings[at].name = Some(name);
        notes.extend(note);
    }
    namings.into_iter().map(|naming| naming.name.unwrap_or(naming.wish)).collect()
}

/// The naming of one uplink.
struct Naming<'a> {
    candidate: &'a Candidate<'a>,
    identity: &'a Identity,
    wish: UplinkName,
    /// What is remembered of it.
    before: Option<&'a Entry>,
    /// What it is called, once that is decided.
    name: Option<UplinkName>,
}

/// Who has a name that another is meant to have.
enum Holder<'a> {
    /// An uplink that is here.
    Present(&'a Candidate<'a>),
    /// A link's own name, be it an uplink or not.
    Link,
    /// An uplink that was seen before.
    Remembered(&'a Entry),
}

impl<'a> Naming<'a> {
    /// Who has the name that it is meant to have comes first, then who has it with a number, then who has none of
    /// it. Where one took the name of another that was away, the one that had it last keeps it.
    fn rank(&self) -> (u8, Reverse<u64>) {
        match self.before {
            Some(entry) if entry.name == self.wish => (0, Reverse(entry.seen)),
            Some(entry) if self.wish.is_numbered_as(&entry.name) => (1, Reverse(entry.seen)),
            _ => (2, Reverse(0)),
        }
    }

    /// Its name, and what people should know of it.
    fn decide(
        &self,
        all: &[Naming<'a>],
        observed: &Observed,
        known: &'a Slots,
    ) -> (UplinkName, Option<String>) {
        let Some(holder) = self.holder(all, observed, known) else { return (self.wish.clone(), None) };
        let free = |name: &UplinkName| all.iter().all(|other| other.name.as_ref() != Some(name));
        let before = self.before.map(|entry| entry.name.clone());
        let kept = before.filter(|name| free(name) && self.wish.is_numbered_as(name));
        let numbered = || (2..).map(|n| self.wish.numbered(n)).find(free);
        let name = kept.or_else(numbered).unwrap_or_else(|| self.wish.clone());
        let note = self.is_written(&holder).then(|| {
            let (interface, wish) = (&self.candidate.link.name, &self.wish);
            format!("{interface}: {wish} is the name of {holder}, so this uplink is called {name}")
        });
        (name, note)
    }

    /// Who has the name that it is meant to have, so that it cannot.
    fn holder(&self, all: &[Naming<'a>], observed: &Observed, known: &'a Slots) -> Option<Holder<'a>> {
        let (rank, _) = self.rank();
        let present = all.iter().find(|other| other.name.as_ref() == Some(&self.wish));
        if let Some(present) = present {
            return Some(Holder::Present(present.candidate));
        }
        let elsewhere =
            |name: &IfName| *name != self.candidate.link.name && name.as_str() == self.wish.as_str();
        let written = self.candidate.settings.name.is_some();
        if rank > 0 && written && observed.links.iter().any(|link| elsewhere(&link.name)) {
            return Some(Holder::Link);
        }
        // A number that was given once is kept for as long as somebody else is remembered by the name without it.
        let mut others = known.entries().iter().filter(|_| rank == 1);
        others.find(|e| e.name == self.wish && e.identity != *self.identity).map(Holder::Remembered)
    }

    /// Whether somebody wrote the name down for one of the two. Profiles of one name are nothing to tell of.
    fn is_written(&self, holder: &Holder<'_>) -> bool {
        self.candidate.settings.name.is_some()
            || match holder {
                Holder::Present(other) => other.settings.name.is_some(),
                Holder::Link => false,
                Holder::Remembered(entry) => matches!(entry.identity, Identity::Name(_)),
            }
    }
}

impl fmt::Display for Holder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Present(other) => write!(f, "the uplink on {}", other.link.name),
            Holder::Link => write!(f, "another interface"),
            Holder::Remembered(entry) => write!(f, "the uplink last seen on {}", entry.interface),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config;
    use crate::core::discover::{Found, discover};
    use crate::core::health::Health;
    use crate::core::net::{IfIndex, IfName, PerFamily};
    use crate::core::observed::{Link, LinkFacts, Manager, Observed, Profile, Stage};
    use crate::core::slots::Slots;

    /// Two links, of which networkd has something to say or not; eth1 is to be an uplink.
    fn machine(networkd: bool) -> Observed {
        let link = |index, name| Link {
            index: IfIndex(index),
            name: IfName::new(name).unwrap(),
            kind: None,
            arphrd: 1,
            mac: None,
            up: true,
            carrier: true,
            controller: None,
            mtu: 1500,
        };
        let profile = Profile { id: "a.network".into(), uuid: "a.network eth1".into(), kind: "ether".into() };
        let facts = LinkFacts {
            interface: IfName::new("eth1").unwrap(),
            manager: Manager::Networkd,
            profile: Some(profile),
            stage: Stage::Active,
            metered: None,
            vpn: false,
            shared: false,
            ip: PerFamily::default(),
            settings: Vec::new(),
            notes: Vec::new(),
        };
        let managed = networkd.then_some(facts).into_iter().collect();
        Observed { links: vec![link(2, "eth1"), link(3, "eth2")], managed, ..Observed::default() }
    }

    /// What eth1 is, after a round under a configuration that calls it so.
    fn round(machine: &Observed, name: &str, slots: &Slots) -> (String, u8, Slots, Vec<String>) {
        let text = format!("[[uplink]]\nmatch.interface = \"eth1\"\n{name}\n");
        let config = config::parse(Path::new("uplinkd.toml"), &text).unwrap();
        let Found { uplinks, slots, notes } =
            discover(&config, machine, slots, &Health::default(), &Default::default());
        (uplinks[0].name.to_string(), uplinks[0].slot.get(), slots, notes)
    }

    #[test]
    fn a_name_that_is_no_longer_configured_is_let_go_and_the_slot_stays() {
        for networkd in [false, true] {
            let machine = machine(networkd);
            let (name, slot, slots, notes) = round(&machine, "name = \"wan\"", &Slots::default());
            assert_eq!((name.as_str(), notes), ("wan", vec![]));
            let (name, same, slots, _) = round(&machine, "", &slots);
            assert_eq!((name.as_str(), same), ("eth1", slot), "networkd: {networkd}");
            assert_eq!(slots.entries().len(), 1);
        }
    }

    #[test]
    fn what_a_silent_manager_told_is_kept_until_it_speaks() {
        let (_, slot, slots, _) = round(&machine(true), "name = \"wan\"", &Slots::default());
        let (name, same, slots, _) = round(&machine(false), "", &slots);
        assert_eq!((name.as_str(), same), ("wan", slot));
        let (name, same, ..) = round(&machine(true), "", &slots);
        assert_eq!((name.as_str(), same), ("eth1", slot));
    }

    #[test]
    fn a_name_is_kept_when_a_link_of_that_name_appears_later() {
        let mut early = machine(false);
        let late = early.links.pop();
        let (name, _, slots, notes) = round(&early, "name = \"eth2\"", &Slots::default());
        assert_eq!((name.as_str(), notes), ("eth2", vec![]));
        early.links.extend(late);
        let (name, _, slots, notes) = round(&early, "name = \"eth2\"", &slots);
        assert_eq!((name.as_str(), notes), ("eth2", vec![]));
        // Where it has no such name yet, the link's own goes before.
        let (name, _, slots, notes) = round(&early, "name = \"wan\"", &slots);
        assert_eq!((name.as_str(), notes), ("wan", vec![]));
        let (name, _, _, notes) = round(&early, "name = \"eth2\"", &slots);
        assert_eq!(name, "eth2-2");
        assert_eq!(notes, ["eth1: eth2 is the name of another interface, so this uplink is called eth2-2"]);
    }
}
