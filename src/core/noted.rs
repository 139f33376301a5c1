//! What is noted of each uplink: it goes where the uplink goes, and nobody else gets it.
//!
//! By slot, as everything that is asked of it is. But a slot is only what an uplink has while it is remembered: who gets it
//! next, or a memory of slots that was lost, must not hand one's figures to another. Whether the uplink of a note is still
//! the same, [`Identity::may_have_become`] decides, here as for the slots themselves.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Place;

use serde::{Deserialize, Serialize};

use super::layout::Slot;
use super::slots::{Entry, Identity};

/// A value for each of some uplinks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Noted<T>(BTreeMap<Slot, Note<T>>);

/// A value, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note<T> {
    identity: Identity,
    interface: String,
    value: T,
}

impl<T> Default for Noted<T> {
    fn default() -> Self {
        Noted(BTreeMap::new())
    }
}

impl<T> Noted<T> {
    /// What is noted of the uplink of a slot.
    pub fn get(&self, slot: Slot) -> Option<&T> {
        self.0.get(&slot).map(|note| &note.value)
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut T> {
        self.0.get_mut(&slot).map(|note| &mut note.value)
    }

    /// All of it, by slot.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &T)> {
        self.0.iter().map(|(slot, note)| (*slot, &note.value))
    }

    /// The same, to change it.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.values_mut().map(|note| &mut note.value)
    }

    /// What is noted of those that are remembered, by the slots that they have.
    pub fn of(&self, entries: &[Entry]) -> BTreeMap<Slot, T>
    where
        T: Clone,
    {
        let mut now = self.clone();
        now.follow(entries);
        now.0.into_iter().map(|(slot, note)| (slot, note.value)).collect()
    }

    /// What is noted of an uplink; of one that has nothing yet, something new.
    pub fn or_insert_with(&mut self, entry: &Entry, anew: impl FnOnce() -> T) -> &mut T {
        let note = match self.0.entry(entry.slot) {
            Place::Occupied(place) => place.into_mut(),
            Place::Vacant(place) => place.insert(Note::of(entry, anew())),
        };
        &mut note.value
    }

    /// The same of each, made of what is noted; nothing where nothing is made of it.
    pub fn filter_map<U>(&self, make: impl Fn(&T) -> Option<U>) -> Noted<U> {
        let note = |(slot, note): (&Slot, &Note<T>)| {
            let Note { identity, interface, value } = note;
            Some((
                *slot,
                Note { identity: identity.clone(), interface: interface.clone(), value: make(value)? },
            ))
        };
        Noted(self.0.iter().filter_map(note).collect())
    }

    /// Takes in what another has of those that are not in this one.
    pub fn join(&mut self, other: Noted<T>) {
        for (slot, note) in other.0 {
            self.0.entry(slot).or_insert(note);
        }
    }

    /// Takes in who is remembered: who is forgotten leaves nothing, and who gets the slot of another begins anew.
    pub fn follow(&mut self, entries: &[Entry]) {
        let mut former = std::mem::take(&mut self.0);
        // Who is still known as it was comes first: what is left may be of those of whom more or less is known now.
        for is_same in [Note::is_of, Note::may_be_of] {
            for entry in entries {
                let own = former.get(&entry.slot).filter(|note| is_same(note, entry)).map(|_| entry.slot);
                let any = || former.iter().find(|(_, note)| is_same(note, entry)).map(|(slot, _)| *slot);
                let free = !self.0.contains_key(&entry.slot);
                let note = own.or_else(any).filter(|_| free).and_then(|slot| former.remove(&slot));
                self.0.extend(note.map(|note| (entry.slot, Note::of(entry, note.value))));
            }
        }
    }
}

impl<T> Note<T> {
    fn of(entry: &Entry, value: T) -> Self {
        Note { identity: entry.identity.clone(), interface: entry.interface.clone(), value }
    }

    fn is_of(&self, entry: &Entry) -> bool {
        self.identity == entry.identity
    }

    fn may_be_of(&self, entry: &Entry) -> bool {
        self.interface == entry.interface && self.identity.may_have_become(&entry.identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(slot: u8, identity: Identity, interface: &str) -> Entry {
        let entry = serde_json::json!({
            "slot": slot, "identity": identity, "name": "x", "interface": interface, "seen": 1
        });
        serde_json::from_value(entry).unwrap()
    }

    fn profile(slot: u8, uuid: &str) -> Entry {
        entry(slot, Identity::Profile(uuid.into()), "wlan0")
    }

    fn named(slot: u8, name: &str, interface: &str) -> Entry {
        entry(slot, Identity::Name(name.to_owned().try_into().unwrap()), interface)
    }

    /// What is noted when these are remembered one after the other, and each was given a letter of its slot at first.
    fn noted(memories: &[&[Entry]]) -> Vec<(u8, char)> {
        let mut noted = Noted::default();
        for entry in memories[0] {
            noted.or_insert_with(entry, || char::from(b'`' + entry.slot.get()));
        }
        memories.iter().for_each(|entries| noted.follow(entries));
        noted.iter().map(|(slot, letter)| (slot.get(), *letter)).collect()
    }

    #[test]
    fn it_belongs_to_the_uplink_and_not_to_its_slot() {
        let first = [profile(1, "home"), profile(2, "phone")];
        assert_eq!(noted(&[&first]), [(1, 'a'), (2, 'b')]);
        assert_eq!(noted(&[&first, &first[..1]]), [(1, 'a')], "one is forgotten");
        assert_eq!(
            noted(&[&first, &[profile(1, "hotel"), profile(2, "phone")]]),
            [(2, 'b')],
            "another in its slot"
        );
        assert_eq!(
            noted(&[&first, &[profile(1, "phone"), profile(2, "home")]]),
            [(1, 'b'), (2, 'a')],
            "the memory of slots was lost"
        );
        assert_eq!(noted(&[&first, &[], &first]), [], "what is gone is gone");
    }

    #[test]
    fn of_an_uplink_more_or_less_may_be_known() {
        let bare = entry(1, Identity::Interface("wlan0".into()), "wlan0");
        for now in [profile(1, "home"), named(1, "wan", "wlan0"), named(4, "wan", "wlan0")] {
            let slot = now.slot.get();
            assert_eq!(noted(&[std::slice::from_ref(&bare), std::slice::from_ref(&now)]), [(slot, 'a')]);
            assert_eq!(
                noted(&[std::slice::from_ref(&bare), &[now], std::slice::from_ref(&bare)]),
                [(1, 'a')],
                "and back"
            );
        }
        let renamed = [named(1, "lte", "wwan0"), named(1, "mobile", "wwan0"), named(1, "mobile", "usb0")];
        assert_eq!(noted(&[&renamed[..1], &renamed[1..2], &renamed[2..]]), [(1, 'a')]);
        assert_eq!(noted(&[&renamed[..1], &renamed[2..]]), [], "another name, elsewhere");
    }

    #[test]
    fn who_is_known_for_sure_goes_ahead_of_who_may_be_it() {
        let first = [profile(1, "home"), profile(2, "phone")];
        // The phone's network got a name, and a slot in front.
        let now = [named(1, "tethered", "wlan0"), profile(2, "home")];
        assert_eq!(noted(&[&first, &now]), [(1, 'b'), (2, 'a')]);
    }
}
