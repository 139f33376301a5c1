//! Persistence: the same client, or the same client that speaks to the same destination, stays on one uplink.
//!
//! Who is new is given an uplink by a number that follows from its address alone: a thousand of these are dealt out among
//! the usable uplinks so that the loss or return of one moves only those that were its own (rendezvous hashing with weights,
//! Thaler and Ravishankar 1998). So nothing is lost with a reboot. Who is known is in a map, and stays where it is for as long
//! as it goes on and its uplink is usable, though the numbers would have it elsewhere by now.
//!
//! What this machine sends has the address of whichever uplink the route of the moment leads to, which says nothing. There the
//! destination is what stays: as a client's address is never one of the internet's, both have room in one map.

use super::object::Object;
use super::{by_mark, chain, uplink_of_flow};
use crate::core::layout::Slot;
use crate::core::net::Family;
use crate::core::policy::{Same, Stick};
use crate::core::text::hash;

/// How many numbers there are, from 0.
const NUMBERS: u64 = 1024;

/// By which addresses become numbers: always the same ones.
const SEED: u32 = 0x5eed;

/// What is remembered at most, of each family.
const SIZE: u32 = 65536;

/// Persistence of one policy in one family.
pub(super) struct Sticky<'a> {
    /// By the policy's name, and what is the same: who is called otherwise is another.
    id: String,
    stick: Stick,
    family: Family,
    shares: &'a [(Slot, u16)],
}

/// The beginnings of the names of its chains, and of its map.
const BEGIN: &str = "stick_";
const AFRESH: &str = "afresh_";
/// What stands ahead of them for what this machine sends.
const OWN: &str = "own_";
const MAP: &str = "sticky_";

/// What stands for the same client and destination in a name.
const PAIR: &str = "pair";

impl<'a> Sticky<'a> {
    pub(super) fn new(name: &str, stick: Stick, family: Family, shares: &'a [(Slot, u16)]) -> Self {
        let what = if stick.to == Same::Client { "client" } else { PAIR };
        let id = format!("{:016x}_{what}_{}", hash(name), family.version());
        Sticky { id, stick, family, shares }
    }

    /// The rules that lead to its chains.
    pub(super) fn rules(&self) -> [String; 2] {
        let Sticky { id, family, .. } = self;
        [
            format!("meta nfproto {family} fib saddr type local goto {OWN}{BEGIN}{id}"),
            format!("meta nfproto {family} goto {BEGIN}{id}"),
        ]
    }

    /// Its chains. The packet mark is 0 on the way in, and again on the way out.
    pub(super) fn chains(&self) -> String {
        if self.shares.is_empty() {
            // Its map is kept for when somebody is back.
            return chain(&format!("{BEGIN}{}", self.id), &[]);
        }
        self.known_by(OWN, &["daddr"])
            + &match self.stick.to {
                Same::Client => self.known_by("", &["saddr"]),
                Same::ClientAndDestination => self.known_by("", &["saddr", "daddr"]),
            }
    }

    /// The chains by which these addresses stay where they are.
    fn known_by(&self, side: &str, addresses: &[&str]) -> String {
        let word = self.family.nft();
        // Two addresses as one number: for a key of 32 bytes and a mark nft 1.0.6 has not enough registers, and gives up. Who
        // shares a number with another, one of four billions, shares an uplink.
        let who = addresses.iter().map(|which| format!("{word} {which}")).collect::<Vec<_>>().join(" . ");
        let key = match self.stick.to {
            Same::Client => who.clone(),
            Same::ClientAndDestination => format!("jhash {who} mod {} seed {SEED:#x}", u32::MAX),
        };
        let ours = uplink_of_flow();
        let (map, seconds) = (format!("{MAP}{}", self.id), self.stick.idle.as_secs());
        let afresh = format!("{side}{AFRESH}{}", self.id);
        let remember = format!("update @{map} {{ {key} timeout {seconds}s : {ours} }}");
        let numbered = match self.shares {
            [(only, _)] => format!("jump take_{only}"),
            _ => format!(
                "meta mark set jhash {who} mod {NUMBERS} seed {SEED:#x} meta mark vmap {{ {} }}",
                dealt(self.shares)
            ),
        };
        chain(
            &afresh,
            &[
                // An element that is there would keep the uplink that cannot be used now.
                format!("delete @{map} {{ {key} : {ours} }}"),
                "meta mark set 0".to_owned(),
                numbered,
                // It may not be used from there.
                format!("{ours} == 0 return"),
                remember.clone(),
            ],
        ) + &chain(
            &format!("{side}{BEGIN}{}", self.id),
            &[
                format!("meta mark set {key} map @{map}"),
                by_mark(self.shares),
                format!("{ours} == 0 goto {afresh}"),
                "meta mark set 0".to_owned(),
                remember,
            ],
        )
    }
}

/// The map that belongs to a chain.
pub(super) fn objects_of(chain: &str) -> Option<Object> {
    let id = chain.strip_prefix(BEGIN)?;
    let kind = match (id.contains(PAIR), id.ends_with('4')) {
        // Both 1.0.6 and 1.1.3 take this for a number, and no other word.
        (true, _) => "typeof numgen inc mod 2 : meta mark",
        (false, true) => "type ipv4_addr : mark",
        (false, false) => "type ipv6_addr : mark",
    };
    let body = format!("\t\t{kind}; size {SIZE}; flags dynamic,timeout;\n");
    Some(Object { kind: "map", name: format!("{MAP}{id}"), body })
}

/// The numbers, as elements that lead to those to whom they are dealt.
fn dealt(shares: &[(Slot, u16)]) -> String {
    let mut runs: Vec<(u64, u64, Slot)> = Vec::new();
    for number in 0..NUMBERS {
        let Some(slot) = taker(number, shares) else { continue };
        match runs.last_mut() {
            Some((_, to, same)) if *same == slot => *to = number,
            _ => runs.push((number, number, slot)),
        }
    }
    let element = |(from, to, slot): &(u64, u64, Slot)| format!("{from}-{to} : jump take_{slot}");
    runs.iter().map(element).collect::<Vec<_>>().join(", ")
}

/// Who takes a number: of all the one whose lot, drawn for this number and weighed, is the highest.
///
/// The lots of a slot are multiples of the square root of its prime, less their whole part: these lie evenly, those of several
/// slots together as well (Weyl 1916), so the shares of a thousand numbers are closer to the weights than chance would have it.
fn taker(number: u64, shares: &[(Slot, u16)]) -> Option<Slot> {
    let lot = |&(slot, weight): &(Slot, u16)| {
        let fraction = ((number + 1) as f64 * f64::from(prime(slot)).sqrt()).fract();
        f64::from(weight) / -fraction.ln()
    };
    shares.iter().max_by(|one, other| lot(one).total_cmp(&lot(other))).map(|(slot, _)| *slot)
}

/// The prime of a slot: 2 of the first, 3 of the second, 307 of the last.
fn prime(slot: Slot) -> u16 {
    let is_prime = |n: &u16| (2..*n).take_while(|d| d * d <= *n).all(|d| n % d != 0);
    (2..).filter(is_prime).nth(usize::from(slot.get()) - 1).unwrap_or(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(n: u8) -> Slot {
        Slot::new(n).unwrap()
    }

    fn takers(shares: &[(u8, u16)]) -> Vec<u8> {
        let shares: Vec<_> = shares.iter().map(|(n, weight)| (slot(*n), *weight)).collect();
        (0..NUMBERS).map(|number| taker(number, &shares).unwrap().get()).collect()
    }

    #[test]
    fn numbers_are_dealt_by_weight() {
        for (shares, percent) in [([(1, 3), (2, 1)], 75), ([(1, 1), (2, 1)], 50), ([(3, 1), (4, 9)], 10)] {
            let (first, takers) = (shares[0].0, takers(&shares));
            let of_first = takers.iter().filter(|n| **n == first).count() * 100;
            assert!(of_first.abs_diff(percent * 1024) < 1024, "{of_first} of 102400 for {shares:?}");
        }
    }

    #[test]
    fn only_the_share_of_the_one_that_goes_moves() {
        let three = takers(&[(1, 1), (2, 2), (7, 1)]);
        let two = takers(&[(1, 1), (2, 2)]);
        for (before, after) in three.iter().zip(&two) {
            assert!(before == after || *before == 7, "{before} moved to {after}");
        }
        assert!((240..272).contains(&three.iter().filter(|n| **n == 7).count()));
    }

    #[test]
    fn every_slot_has_a_prime_of_its_own() {
        let primes: Vec<_> = Slot::all().map(prime).collect();
        assert_eq!((&primes[..4], primes[62]), ([2, 3, 5, 7].as_slice(), 307));
        assert!(primes.windows(2).all(|two| two[0] < two[1]));
    }

    #[test]
    fn the_numbers_are_all_dealt_once() {
        let elements = dealt(&[(slot(1), 1), (slot(2), 1)]);
        let mut next = 0;
        for element in elements.split(", ") {
            let (range, _) = element.split_once(" : ").unwrap();
            let (from, to) = range.split_once('-').unwrap();
            assert_eq!(from.parse::<u64>(), Ok(next));
            next = to.parse::<u64>().unwrap() + 1;
        }
        assert_eq!(next, NUMBERS);
    }
}
