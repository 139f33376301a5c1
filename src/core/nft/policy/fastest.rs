//! Fastest response: what goes to a destination follows the uplink that has won the race for it.
//!
//! Where nobody has, or one who cannot be used now, the flow is led by weight, and a copy of its first packet tells
//! uplinkd that a race is due: not more often than [`race`](crate::core::race) allows, and to nobody where no uplinkd runs.

use super::object::Object;
use super::{by_mark, by_turns, chain, mark_of, uplink_of_flow};
use crate::core::layout::Slot;
use crate::core::net::Family;
use crate::core::race::{CLIENTS, Course, DESTINATIONS, GROUP, OF_ALL, OF_ONE, PAUSE, SNAP};

/// Fastest response of one policy in one family.
pub(super) struct Fastest<'a> {
    course: Course,
    shares: &'a [(Slot, u16)],
}

/// The beginnings of the names of its chains.
const BEGIN: &str = "fastest_";
const AFRESH: &str = "unraced_";
const ASK: &str = "ask_for_";

impl<'a> Fastest<'a> {
    pub(super) fn new(policy: &str, family: Family, shares: &'a [(Slot, u16)]) -> Self {
        Fastest { course: Course::of(policy, family), shares }
    }

    /// The chain to go to.
    pub(super) fn chain(&self) -> String {
        format!("{BEGIN}{}", self.course)
    }

    /// Its chains. The packet mark is 0 on the way in, and again on the way out.
    pub(super) fn chains(&self) -> String {
        // With one alone there is nothing to be found out. Who has won is kept for when another is back.
        if self.shares.len() < 2 {
            return chain(&self.chain(), &by_turns(self.shares));
        }
        let Fastest { course, shares } = self;
        let word = course.family().nft();
        let ours = uplink_of_flow();
        let (winners, hits, asked) = (course.winners(), course.hits(), asked(course));
        let usable = shares.iter().map(|(slot, _)| mark_of(*slot)).collect::<Vec<_>>().join(", ");
        let ((each, each_burst), (all, all_burst)) = (OF_ONE, OF_ALL);
        let follow = [
            format!("meta mark set {word} daddr map @{winners}"),
            by_mark(shares),
            format!("{ours} == 0 goto {AFRESH}{course}"),
            "meta mark set 0".to_owned(),
            format!("counter name \"{hits}\""),
        ];
        let afresh = [
            // An element that is there would keep the uplink that cannot be used now, and the next one out. One that only this
            // host's group denies him is the others' winner.
            format!("meta mark != {{ 0, {usable} }} delete @{winners} {{ {word} daddr : {ours} }}"),
            "meta mark set 0".to_owned(),
            format!("meta l4proto tcp {word} daddr != @{asked} jump {ASK}{course}"),
        ];
        let afresh = [&afresh[..], &by_turns(shares)].concat();
        let callers = callers(course);
        let ask = [format!(
            "update @{callers} {{ {word} saddr timeout 1m limit rate {each}/second burst {each_burst} packets }} \
             limit rate {all}/second burst {all_burst} packets \
             add @{asked} {{ {word} daddr timeout {}s }} \
             log prefix \"{course}\" group {GROUP} snaplen {SNAP} queue-threshold 1",
            PAUSE.as_secs()
        )];
        chain(&format!("{ASK}{course}"), &ask)
            + &chain(&format!("{AFRESH}{course}"), &afresh)
            + &chain(&self.chain(), &follow)
    }
}

/// The set of destinations that were asked for a moment ago.
fn asked(course: &Course) -> String {
    format!("asked_{course}")
}

/// The set of clients, and of what each may still cause.
fn callers(course: &Course) -> String {
    format!("callers_{course}")
}

/// The objects that belong to a chain.
pub(super) fn objects_of(chain: &str) -> Vec<Object> {
    let Some(course) = chain.strip_prefix(BEGIN).and_then(Course::named) else { return Vec::new() };
    let address = course.family().nft_address();
    let timed = |what: &str, size| format!("\t\ttype {what}; size {size}; flags dynamic,timeout;\n");
    let object = |kind, name, body| Object { kind, name, body };
    vec![
        object("map", course.winners(), timed(&format!("{address} : mark"), DESTINATIONS)),
        object("set", asked(&course), timed(address, DESTINATIONS)),
        object("set", callers(&course), timed(address, CLIENTS)),
        object("counter", course.hits(), String::new()),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::object::declared;
    use super::*;

    #[test]
    fn a_winner_leads_and_first_contacts_are_told_of() {
        let slot = |n| Slot::new(n).unwrap();
        let shares = [(slot(1), 2), (slot(3), 1)];
        let text = Fastest::new("video", Family::V6, &shares).chains();
        let course = Course::of("video", Family::V6);
        assert_eq!(
            text,
            format!(
                r#"	chain ask_for_{course} {{
		update @callers_{course} {{ ip6 saddr timeout 1m limit rate 5/second burst 20 packets }} limit rate 20/second burst 60 packets add @asked_{course} {{ ip6 daddr timeout 30s }} log prefix "{course}" group 7000 snaplen 80 queue-threshold 1
	}}
	chain unraced_{course} {{
		meta mark != {{ 0, 0x01000000, 0x03000000 }} delete @winners_{course} {{ ip6 daddr : ct mark & 0x3f000000 }}
		meta mark set 0
		meta l4proto tcp ip6 daddr != @asked_{course} jump ask_for_{course}
		meta mark set numgen inc mod 3 meta mark vmap {{ 0-1 : goto take_1 }}
		goto take_3
	}}
	chain fastest_{course} {{
		meta mark set ip6 daddr map @winners_{course}
		meta mark vmap {{ 0x01000000 : jump take_1, 0x03000000 : jump take_3 }}
		ct mark & 0x3f000000 == 0 goto unraced_{course}
		meta mark set 0
		counter name "hits_{course}"
	}}
"#
            )
        );
        let objects = declared(&text);
        for wanted in [
            format!(
                "\tmap winners_{course} {{\n\t\ttype ipv6_addr : mark; size 16384; flags dynamic,timeout;\n"
            ),
            format!("\tset asked_{course} {{\n\t\ttype ipv6_addr; size 16384;"),
            format!("\tset callers_{course} {{\n\t\ttype ipv6_addr; size 4096;"),
            format!("\tcounter hits_{course} {{\n\t}}\n"),
        ] {
            assert!(objects.contains(&wanted), "{objects}");
        }
    }

    #[test]
    fn one_alone_is_raced_by_nobody_and_what_was_won_is_kept() {
        let only = [(Slot::new(2).unwrap(), 5)];
        let text = Fastest::new("video", Family::V4, &only).chains();
        assert!(text.contains("goto take_2") && !text.contains("log"), "{text}");
        for shares in [&only[..], &[]] {
            let text = Fastest::new("video", Family::V4, shares).chains();
            assert_eq!(declared(&text).matches("dynamic").count(), 3, "{text}");
        }
        assert!(objects_of("stick_0123456789abcdef_client_4").is_empty());
    }
}
