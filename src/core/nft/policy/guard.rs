//! What is enforced leaves by its own uplink or by none, whoever led it elsewhere.
//!
//! Its uplink is chosen with a flow's first packet and ahead of routing, and from there on a mark leads. That is not enough: a
//! route of table main to a part of the internet, as DHCP (option 121) brings them, and the prefixes on links are ahead of
//! marks; a rule by interface is seen by nobody who asks for a route; and what conntrack does not know passes no chain of
//! type nat and bears no mark. So whatever is about to leave by an uplink is looked at once more, where it is known which.
//! What bears the mark of an enforced uplink is told by that; what bears none is asked what it is, as a first packet is.
//!
//! What answers somebody is not meant, nor what bears somebody's mark, nor what passes through from one uplink to another.

use std::collections::BTreeSet;

use super::criteria::{BEHIND, BOTH, OWN, Round};
use super::{LEASES, Standing, Surroundings, chain, mark_of, uplink_of_flow};
use crate::core::layout::Slot;
use crate::core::net::Family;
use crate::core::nft::{by_name, joined};
use crate::core::policy::Way;
use crate::core::scope::{ON_LINK_4, ON_LINK_6};

/// The chains with hooks, and those to which they lead; none where nothing is enforced.
pub(super) fn guard(around: &Surroundings, policies: &[Standing], rounds: &[Round]) -> String {
    let enforced = || policies.iter().filter(|one| one.is_enforced());
    if around.uplinks.is_empty() || enforced().next().is_none() {
        return String::new();
    }
    let slots: BTreeSet<Option<Slot>> = enforced().map(|one| one.only).collect();
    let named = || slots.iter().copied().flatten();
    let judged = |place: usize| policies.get(place).map(Standing::judged).unwrap_or_default();
    let asks = |is_here: fn(&_) -> bool, more| -> Vec<String> {
        rounds.iter().flat_map(|round| round.decision(is_here, &[&BOTH, more], judged)).collect()
    };
    let names = by_name(around.uplinks.iter().map(|(name, _)| name));
    let not_out = [format!("oifname != {{ {names} }} accept")];
    let transit = [format!("iifname {{ {names} }} accept")];
    let answers = ["ct direction reply accept".to_owned()];
    let marked = ["meta mark != 0 accept".to_owned()];
    let by_flow = |verb: &str| {
        let element = |slot: Slot| format!("{} : goto {verb}_{slot}", mark_of(slot));
        let elements: Vec<_> = named().map(element).collect();
        (!elements.is_empty()).then(|| format!("{} vmap {{ {} }}", uplink_of_flow(), elements.join(", ")))
    };
    let known = [format!("{} != 0 accept", uplink_of_flow())];
    let on_link = [
        format!("ip daddr {{ {} }} accept", joined(&ON_LINK_4)),
        format!("ip6 daddr {{ {} }} accept", joined(&ON_LINK_6)),
    ];
    // Else the other uplink would be lost.
    let upkeep = [format!("{LEASES} accept"), format!("icmpv6 type {{ {NEIGHBOURS} }} accept")];

    let mut text = String::new();
    for (verb, end) in [("only", "goto refused"), ("stray", "drop")] {
        let last = [&not_out[..], &transit, &answers, &[end.to_owned()]].concat();
        text += &chain(&format!("{verb}_none"), &last);
        for slot in named() {
            let own = around.uplinks.iter().filter(|(_, of)| *of == slot);
            let own = own.map(|(name, _)| format!("oifname \"{name}\" accept"));
            text += &chain(
                &format!("{verb}_{slot}"),
                &own.chain([format!("goto {verb}_none")]).collect::<Vec<_>>(),
            );
        }
    }
    let clean = "meta mark set 0".to_owned();
    text += &chain(JUDGED_FREE, std::slice::from_ref(&clean));
    for only in &slots {
        text += &chain(&judged_only(*only), &[clean.clone(), format!("goto {}", only_chain(*only))]);
    }
    text += &chain("asked_behind", &asks(|traffic| !traffic.is_own(), &BEHIND));
    text += &chain("asked_here", &asks(|traffic| !traffic.is_behind(), &OWN));
    let hook = |hook: &str, priority: &str| {
        vec![format!("type filter hook {hook} priority {priority}; policy accept;")]
    };
    let ask = |which: &str| [format!("jump asked_{which}"), clean.clone()];
    let behind = [
        hook("forward", "filter - 10"),
        by_flow("only").into_iter().collect(),
        known.to_vec(),
        marked.to_vec(),
        not_out.to_vec(),
        transit.to_vec(),
        answers.to_vec(),
        on_link.to_vec(),
        ask("behind").to_vec(),
    ];
    // What has a mark is routed once more behind the hook by then, and leaves by another interface than is told here.
    let here = [
        hook("output", "filter - 10"),
        known.to_vec(),
        marked.to_vec(),
        not_out.to_vec(),
        answers.to_vec(),
        upkeep.to_vec(),
        on_link.to_vec(),
        ask("here").to_vec(),
    ];
    let last = [hook("postrouting", "filter - 10"), by_flow("stray").into_iter().collect()];
    if around.forwarded {
        text += &chain("guard_behind", &behind.concat());
    }
    text += &chain("guard_here", &here.concat());
    text + &chain("guard_last", &last.concat())
}

/// Neighbour discovery (RFC 4861), which conntrack leaves alone.
const NEIGHBOURS: &str =
    "nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, nd-redirect";

/// The chain for what belongs to no policy that is enforced.
const JUDGED_FREE: &str = "judged_free";

fn named_for(only: Option<Slot>) -> String {
    only.map_or("none".to_owned(), |slot| slot.to_string())
}

fn only_chain(only: Option<Slot>) -> String {
    format!("only_{}", named_for(only))
}

fn judged_only(only: Option<Slot>) -> String {
    format!("judged_{}", named_for(only))
}

impl Standing<'_> {
    /// Whether it enforces something now.
    pub(super) fn is_enforced(&self) -> bool {
        self.policy.way == Way::Enforced && Family::BOTH.into_iter().any(|family| self.is_in_force(family))
    }

    /// The chain for what belongs to it and bears no mark.
    fn judged(&self) -> String {
        match self.is_enforced() {
            true => judged_only(self.only),
            false => JUDGED_FREE.to_owned(),
        }
    }
}
