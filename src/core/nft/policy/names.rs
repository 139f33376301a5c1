//! Names: a packet is asked whether its destination is among the addresses that a policy's names have.
//!
//! These are told from outside, so they are sets without verdicts, one of each policy, and are asked one after the other.
//! Who fills them this refuses to know.

use std::collections::BTreeSet;

use super::chain;
use super::criteria::Round;
use super::object::Object;
use crate::core::net::Family;
use crate::core::policy::domain::{Domain, Names, ROOM, USUAL};
use crate::core::policy::ranges::Bits;
use crate::core::text::hash;

/// The beginning of the name of the chain of a policy's names.
const BEGIN: &str = "named_";

/// The chain of a policy's names: with others it knows none of the addresses of before.
fn named(names: &Names, domains: &[Domain]) -> String {
    let all: BTreeSet<_> = domains.iter().map(Domain::as_str).collect();
    format!("{BEGIN}{names}_{:016x}", hash(&Vec::from_iter(all).join(" ")))
}

/// The chains that leave out who has no name that is asked for.
pub(super) fn chains(round: &Round) -> String {
    let all = round.named().map(|(place, policy, domains)| {
        let names = Names::of(policy);
        let others = !Bits::of(place).0;
        let rule = |family, word| {
            format!("{word} daddr != @{} meta mark set meta mark & {others:#010x}", names.set(family))
        };
        chain(&named(&names, domains), &[rule(Family::V4, "ip"), rule(Family::V6, "ip6")])
    });
    all.collect()
}

/// The rules of the criterion.
pub(super) fn rules(round: &Round) -> Vec<String> {
    let jumps =
        round.named().map(|(_, policy, domains)| format!("jump {}", named(&Names::of(policy), domains)));
    // Each has taken out its own alone.
    jumps.chain(["return".to_owned()]).collect()
}

/// The sets that belong to a chain.
pub(super) fn objects_of(chain: &str) -> Vec<Object> {
    let names = chain.strip_prefix(BEGIN).and_then(|rest| Names::named(rest.split('_').next()?));
    let object = |family, kind| Object {
        kind: "set",
        name: names.as_ref().map(|names| names.set(family)).unwrap_or_default(),
        body: format!("\t\ttype {kind}; size {ROOM}; flags timeout; timeout {}s;\n", USUAL.as_secs()),
    };
    match names {
        Some(_) => vec![object(Family::V4, "ipv4_addr"), object(Family::V6, "ipv6_addr")],
        None => Vec::new(),
    }
}
