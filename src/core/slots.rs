//! Which uplink has which slot: remembered by what the uplink is, not by where it is plugged in today.
//!
//! A slot chooses mark, table and rules, so it must survive a changed address, gateway and interface index, a
//! restart and a reboot. Nothing here reads or writes the memory; that is the daemon's state directory.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::layout::{BALANCED_TABLE, Slot};
use super::net::{IfName, TableId, UplinkName};
use super::rule::{Rule, Selector};

/// What an uplink is, over all that changes about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Identity {
    /// The name that the configuration gives it.
    Name(UplinkName),
    /// A manager's profile, by UUID.
    Profile(String),
    /// An interface of which nothing else is known.
    Interface(String),
}

impl Identity {
    /// Whether an uplink that was known as this can be the one of the same interface that is known as the other now.
    ///
    /// A manager that starts late, or a name that is configured or changed later, makes no other uplink. Only two profiles
    /// are two.
    pub fn may_have_become(&self, other: &Identity) -> bool {
        self == other || !matches!((self, other), (Identity::Profile(_), Identity::Profile(_)))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Name(name) => write!(f, "name {name}"),
            Identity::Profile(uuid) => write!(f, "profile {uuid}"),
            Identity::Interface(name) => write!(f, "interface {name}"),
        }
    }
}

/// A remembered uplink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its slot.
    pub slot: Slot,
    /// What it is.
    pub identity: Identity,
    /// What it was last called.
    pub name: UplinkName,
    /// Where it was last seen.
    pub interface: String,
    /// Counts up with each change of the memory; the lowest is the longest unseen.
    pub seen: u64,
    /// Taken out by hand, until it is put back.
    #[serde(default)]
    pub drained: bool,
    /// A manager has told of it: where none does now, it may be silent for a moment only.
    #[serde(default = "yes")]
    pub told: bool,
}

/// What was written before there was a word of it.
fn yes() -> bool {
    true
}

/// The memory of slots.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Slots {
    entries: Vec<Entry>,
}

impl Slots {
    /// Everything remembered.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Accepts a memory in which no slot and no identity stands twice.
    pub fn checked(self) -> Result<Self, String> {
        for (at, entry) in self.entries.iter().enumerate() {
            let twice = |e: &&Entry| e.slot == entry.slot || e.identity == entry.identity;
            if let Some(other) = self.entries[..at].iter().find(twice) {
                return Err(format!("{} and {} share a slot or an identity", other.name, entry.name));
            }
        }
        Ok(self)
    }

    /// Lines for iproute2's list of table names, which every `ip` command on the machine reads.
    ///
    /// Names that other tables have are left out: uplinks are named by profiles, which a network may have named,
    /// and `ip route show table vpn` must go on meaning what the administrator meant.
    pub fn table_names(&self, taken: &BTreeSet<String>) -> String {
        let mut names: BTreeSet<&str> = taken.iter().map(String::as_str).collect();
        let mut text = "# Written by uplinkd.\n".to_owned();
        let mut line = |table: TableId, name| {
            if names.insert(name) {
                text += &format!("{table}\t{name}\n");
            }
        };
        line(BALANCED_TABLE, "uplinkd");
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_by_key(|e| e.slot);
        entries.iter().for_each(|e| line(e.slot.table(), e.name.as_str()));
        text
    }

    /// Learns slots back from the rules that are in the kernel, for when the memory was lost.
    pub fn learned_from<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> Self {
        let mut slots = Slots::default();
        for rule in rules {
            let (Selector::Oif(interface), Some(slot)) = (&rule.selector, Slot::of_table(rule.table)) else {
                continue;
            };
            let Some(name) = UplinkName::sanitised(interface.as_str()) else { continue };
            if slots.entries.iter().all(|e| e.slot != slot && e.interface != interface.as_str()) {
                let interface = interface.as_str().to_owned();
                let identity = Identity::Interface(interface.clone());
                slots.entries.push(Entry {
                    slot,
                    identity,
                    name,
                    interface,
                    seen: 0,
                    drained: false,
                    told: false,
                });
            }
        }
        slots
    }

    /// The uplink that was last seen on an interface.
    pub fn last_on(&self, interface: &IfName) -> Option<&Entry> {
        self.entries.iter().filter(|e| e.interface == interface.as_str()).max_by_key(|e| e.seen)
    }

    /// Whether two uplinks on two interfaces have been seen: then the machine is a multihomed one, also while
    /// one of them is away. Several profiles of one interface (a laptop's Wi-Fi networks) count once.
    pub fn multihomed(&self) -> bool {
        let mut interfaces = self.entries.iter().map(|e| &e.interface);
        interfaces.next().is_some_and(|first| interfaces.any(|other| other != first))
    }

    /// Forgets an uplink by what it is, where it was last seen on this interface: one profile can be active on two.
    pub fn drop_on(&mut self, interface: &IfName, identity: &Identity) {
        self.entries.retain(|e| &e.identity != identity || e.interface != interface.as_str());
    }

    /// The uplink of a name. Where two are called so (two networks, both called Home), the one that was seen last.
    pub fn named(&self, name: &UplinkName) -> Option<&Entry> {
        self.entries.iter().filter(|e| &e.name == name).max_by_key(|e| e.seen)
    }

    /// Takes an uplink out or puts it back.
    pub fn drain(&mut self, slot: Slot, drained: bool) {
        let entry = self.entries.iter_mut().find(|e| e.slot == slot);
        entry.into_iter().for_each(|entry| entry.drained = drained);
    }

    /// Remembers that a manager tells of an uplink.
    pub fn told_by_manager(&mut self, slot: Slot) {
        let entry = self.entries.iter_mut().find(|e| e.slot == slot);
        entry.into_iter().for_each(|entry| entry.told = true);
    }

    /// Whether an uplink was taken out.
    pub fn is_drained(&self, slot: Slot) -> bool {
        self.entries.iter().any(|e| e.slot == slot && e.drained)
    }

    /// Forgets an uplink by name.
    pub fn forget(&mut self, name: &UplinkName) {
        self.entries.retain(|e| &e.name != name);
    }

    /// The slot of an uplink that is present now: the remembered one, else a free one, else the one that was
    /// unseen for longest. `present` are the identities that must not lose theirs, `avoided` the tables in which
    /// somebody else has routes.
    ///
    /// None when 63 uplinks are present already.
    pub fn assign(
        &mut self,
        identity: &Identity,
        name: &UplinkName,
        interface: &IfName,
        present: &[Identity],
        avoided: &BTreeSet<TableId>,
    ) -> Option<Slot> {
        let tick = self.entries.iter().map(|e| e.seen).max().unwrap_or(0) + 1;
        let known = self.remembered(identity, interface, present).map(|e| e.slot);
        let at = known
            .and_then(|slot| self.entries.iter().position(|e| e.slot == slot))
            .or_else(|| self.make_room(identity, present, avoided))?;
        let newest = self.last_on(interface).map(|e| e.slot);
        let entry = &mut self.entries[at];
        let settled =
            (&entry.identity, &entry.name, entry.interface.as_str()) == (identity, name, interface.as_str());
        if !settled || newest != Some(entry.slot) {
            let slot = entry.slot;
            let (identity, name) = (identity.clone(), name.clone());
            let (interface, drained, told) = (interface.as_str().to_owned(), entry.drained, entry.told);
            *entry = Entry { slot, identity, name, interface, seen: tick, drained, told };
        }
        Some(self.entries[at].slot)
    }

    /// What is remembered of an uplink that is present now, perhaps under a less or a more telling identity: that must not
    /// cost the flows their slot.
    pub fn remembered(
        &self,
        identity: &Identity,
        interface: &IfName,
        present: &[Identity],
    ) -> Option<&Entry> {
        self.entries.iter().find(|e| &e.identity == identity).or_else(|| {
            let last = self.last_on(interface)?;
            (last.identity.may_have_become(identity) && !present.contains(&last.identity)).then_some(last)
        })
    }

    /// Makes an entry with a free slot, or takes that of the absent uplink that was unseen for longest.
    fn make_room(
        &mut self,
        identity: &Identity,
        present: &[Identity],
        avoided: &BTreeSet<TableId>,
    ) -> Option<usize> {
        let mut free: Vec<_> =
            Slot::all().filter(|slot| self.entries.iter().all(|e| e.slot != *slot)).collect();
        free.sort_by_key(|slot| avoided.contains(&slot.table()));
        if let Some(&slot) = free.first() {
            let (identity, name) = (identity.clone(), UplinkName::nameless());
            let interface = String::new();
            self.entries.push(Entry {
                slot,
                identity,
                name,
                interface,
                seen: 0,
                drained: false,
                told: false,
            });
            return Some(self.entries.len() - 1);
        }
        let absent = self.entries.iter().enumerate().filter(|(_, e)| !present.contains(&e.identity));
        let at = absent.min_by_key(|(_, e)| e.seen).map(|(at, _)| at)?;
        // What was decided over the one that gives way is not said of the next.
        (self.entries[at].drained, self.entries[at].told) = (false, false);
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> UplinkName {
        UplinkName::new(text).unwrap()
    }

    fn none() -> BTreeSet<TableId> {
        BTreeSet::new()
    }

    fn dev(text: &str) -> IfName {
        IfName::new(text).unwrap()
    }

    fn profile(uuid: &str) -> Identity {
        Identity::Profile(uuid.into())
    }

    fn interface(name: &str) -> Identity {
        Identity::Interface(name.into())
    }

    #[test]
    fn tables_of_others_are_avoided_while_there_is_room() {
        let mut slots = Slots::default();
        let avoided = BTreeSet::from([TableId(7001), TableId(7003)]);
        let mut take = |n: u8, avoided| {
            let interface = format!("e{n}");
            slots
                .assign(&profile(&interface), &name(&interface), &dev(&interface), &[], avoided)
                .map(Slot::get)
        };
        assert_eq!([take(1, &avoided), take(2, &avoided)], [Some(2), Some(4)]);
        let all = Slot::all().map(Slot::table).collect();
        assert_eq!(take(3, &all), Some(1));
    }

    #[test]
    fn a_slot_is_kept_when_more_becomes_known() {
        let mut slots = Slots::default();
        let first = slots.assign(&interface("eth1"), &name("eth1"), &dev("eth1"), &[], &none());
        let later = slots.assign(&profile("A"), &name("dsl"), &dev("eth1"), &[], &none());
        let named = slots.assign(&Identity::Name(name("wan")), &name("wan"), &dev("eth1"), &[], &none());
        assert_eq!((first, later), (named, named));
        assert_eq!(slots.entries().len(), 1);
    }

    #[test]
    fn two_profiles_of_one_interface_are_two_uplinks() {
        let mut slots = Slots::default();
        let home = slots.assign(&profile("A"), &name("home"), &dev("wlan0"), &[], &none());
        let work = slots.assign(&profile("B"), &name("work"), &dev("wlan0"), &[], &none());
        assert_ne!(home, work);
        assert_eq!(slots.assign(&profile("A"), &name("home"), &dev("wlan0"), &[], &none()), home);
        assert_eq!(slots.last_on(&dev("wlan0")).map(|e| e.slot), home);
        assert!(!slots.multihomed());
        slots.assign(&profile("C"), &name("cable"), &dev("eth0"), &[], &none());
        assert!(slots.multihomed());
    }

    #[test]
    fn of_two_with_one_name_the_last_seen_is_meant() {
        let mut slots = Slots::default();
        // Two Wi-Fi networks whose profiles are both called Home; the second is in use.
        slots.assign(&profile("A"), &name("Home"), &dev("wlan0"), &[], &none());
        let present = slots.assign(&profile("B"), &name("Home"), &dev("wlan0"), &[profile("B")], &none());
        assert_eq!(slots.named(&name("Home")).map(|e| e.slot), present);
        slots.drain(present.unwrap(), true);
        assert_eq!(slots.entries().iter().map(|e| e.drained).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn table_names_leave_other_tables_theirs() {
        let mut slots = Slots::default();
        slots.assign(&profile("A"), &name("dsl"), &dev("eth1"), &[], &none());
        slots.assign(&profile("B"), &name("vpn"), &dev("wlan0"), &[], &none());
        let taken = BTreeSet::from(["vpn".to_owned()]);
        assert_eq!(slots.table_names(&taken), "# Written by uplinkd.\n7000\tuplinkd\n7001\tdsl\n");
    }

    #[test]
    fn a_settled_memory_does_not_change() {
        let mut slots = Slots::default();
        slots.assign(&profile("A"), &name("dsl"), &dev("eth1"), &[], &none());
        slots.assign(&profile("B"), &name("lte"), &dev("wwan0"), &[], &none());
        let before = slots.clone();
        slots.assign(&profile("A"), &name("dsl"), &dev("eth1"), &[], &none());
        slots.assign(&profile("B"), &name("lte"), &dev("wwan0"), &[], &none());
        assert_eq!(slots, before);
    }

    #[test]
    fn the_longest_unseen_gives_way_and_the_present_never() {
        let mut slots = Slots::default();
        let present: Vec<_> = (0..63).map(|n| profile(&n.to_string())).collect();
        for (n, identity) in present.iter().enumerate() {
            assert!(
                slots
                    .assign(identity, &name(&format!("u{n}")), &dev(&format!("e{n}")), &[], &none())
                    .is_some()
            );
        }
        assert_eq!(slots.assign(&profile("x"), &name("x"), &dev("ex"), &present, &none()), None);
        let slot = slots.assign(&profile("x"), &name("x"), &dev("ex"), &present[1..], &none());
        assert_eq!(slot.map(Slot::get), Some(1));
    }
}
