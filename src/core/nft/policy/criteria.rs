//! What a policy can ask of a packet, and how all policies of a round are asked at once.

use std::collections::{BTreeMap, BTreeSet};

use super::{Standing, chain, keep, names, units};
use crate::core::net::Family;
use crate::core::nft::joined;
use crate::core::policy::prefixes::{indifferent, map};
use crate::core::policy::ranges::{Bits, Range, disjoint};
use crate::core::policy::{Domain, Policy, Traffic, WITH_PORTS};

/// A criterion: its chain's name, whether a policy asks for it, and how its chain begins.
pub(super) struct Criterion {
    name: &'static str,
    asks: fn(&Traffic) -> bool,
    rules: fn(&Round, &mut Looked) -> Vec<String>,
}

/// What all packets have.
pub(super) static BOTH: [Criterion; 6] = [
    Criterion {
        name: "from",
        asks: |t| !t.from.is_empty(),
        rules: |round, _| by_address("from", "saddr", round),
    },
    Criterion { name: "to", asks: |t| !t.to.is_empty(), rules: |round, _| by_address("to", "daddr", round) },
    Criterion {
        name: "protocol",
        asks: |t| !t.protocol.is_empty(),
        rules: |round, looked| {
            let numbers = |t: &Traffic| singly(&t.protocol);
            looked.up("meta l4proto", round.ranges(numbers))
        },
    },
    Criterion {
        name: "ports",
        asks: |t| !t.ports.is_empty(),
        rules: |round, looked| {
            let ports = |t: &Traffic| t.ports.iter().map(|(a, b)| (u32::from(*a), u32::from(*b))).collect();
            // Of others it would be something else that stands in that place.
            looked.up(&format!("meta l4proto {{ {} }} th dport", joined(&WITH_PORTS)), round.ranges(ports))
        },
    },
    Criterion {
        name: "dscp",
        asks: |t| !t.dscp.is_empty(),
        rules: |round, looked| {
            let points = |t: &Traffic| singly(&t.dscp);
            let ranges = round.ranges(points);
            [looked.up("ip dscp", ranges.clone()), looked.up("ip6 dscp", ranges)].concat()
        },
    },
    // Last, as each policy costs a look of its own.
    Criterion { name: "domain", asks: |t| !t.domain.is_empty(), rules: |round, _| names::rules(round) },
];

/// What only packets have that come in.
pub(super) static BEHIND: [Criterion; 2] = [
    Criterion {
        name: "interface",
        asks: |t| !t.interface.is_empty(),
        rules: |round, looked| {
            looked.up_names(
                "iifname",
                round.names(|s| s.interfaces.iter().map(|name| format!("\"{name}\"")).collect()),
            )
        },
    },
    Criterion {
        name: "mac",
        asks: |t| !t.mac.is_empty(),
        rules: |round, looked| {
            looked.up_names(
                "ether saddr",
                round.names(|s| s.policy.traffic.mac.iter().map(ToString::to_string).collect()),
            )
        },
    },
];

/// What only packets have that this machine sends.
pub(super) static OWN: [Criterion; 4] = [
    Criterion {
        name: "user",
        asks: |t| !t.user.is_empty(),
        rules: |round, looked| looked.up("meta skuid", round.ranges(|t| t.user.clone())),
    },
    Criterion {
        name: "group",
        asks: |t| !t.group.is_empty(),
        rules: |round, looked| looked.up("meta skgid", round.ranges(|t| t.group.clone())),
    },
    Criterion {
        name: "unit",
        asks: |t| !t.unit.is_empty(),
        rules: |round, looked| units::rules(round, looked, |t| &t.unit),
    },
    Criterion {
        name: "slice",
        asks: |t| !t.slice.is_empty(),
        rules: |round, looked| units::rules(round, looked, |t| &t.slice),
    },
];

/// Numbers as ranges of one.
fn singly(numbers: &[u8]) -> Vec<(u32, u32)> {
    numbers.iter().map(|number| (u32::from(*number), u32::from(*number))).collect()
}

fn by_address(criterion: &str, which: &str, round: &Round) -> Vec<String> {
    let rule =
        |family: Family| format!("{} {which} vmap @{}", family.nft(), map(criterion, family, round.number));
    Family::BOTH.map(rule).to_vec()
}

/// Those that are looked at together.
pub(super) struct Round<'a> {
    number: usize,
    standing: &'a [Standing<'a>],
}

impl<'a> Round<'a> {
    /// The rounds that it takes for all.
    pub(super) fn all(standing: &'a [Standing<'a>]) -> Vec<Self> {
        let rounds = standing.chunks(Bits::COUNT).enumerate();
        rounds.map(|(number, standing)| Round { number, standing }).collect()
    }

    /// The policies that are looked at, in their order.
    pub(super) fn standing(&self) -> &[Standing<'a>] {
        self.standing
    }

    /// The policies that are for names: the place of each among the others, what it is called, and the names.
    pub(super) fn named(&self) -> impl Iterator<Item = (usize, &'a str, &'a [Domain])> {
        let policies = self.standing.iter().map(|one| one.policy).enumerate();
        let of = |(place, policy): (usize, &'a Policy)| {
            (place, policy.name.as_str(), policy.traffic.domain.as_slice())
        };
        policies.map(of).filter(|(_, _, domains)| !domains.is_empty())
    }

    /// The chains of the criteria for which anybody asks; notes what they leave.
    pub(super) fn criteria(&self, kept: &mut BTreeSet<Bits>) -> String {
        let mut text = names::chains(self);
        for criterion in BOTH.iter().chain(&BEHIND).chain(&OWN).filter(|one| self.anybody_asks(one)) {
            let any = indifferent(self.standing.iter().map(|one| &one.policy.traffic), criterion.asks);
            let mut looked = Looked { any, kept };
            let mut rules = (criterion.rules)(self, &mut looked);
            rules.push(format!("meta mark set meta mark & {:#010x}", any.0));
            text += &chain(&self.chain(criterion), &rules);
        }
        text
    }

    /// The rules that find the first that matches, among those whose packets can be here, and go to it.
    pub(super) fn decision(
        &self,
        is_here: fn(&Traffic) -> bool,
        criteria: &[&'static [Criterion]],
        goto: impl Fn(usize) -> String,
    ) -> Vec<String> {
        let in_force = |family: Family| -> Bits {
            let places = self.standing.iter().enumerate();
            let here = places.filter(|(_, one)| is_here(&one.policy.traffic) && one.is_in_force(family));
            here.map(|(place, _)| Bits::of(place)).collect()
        };
        let begin = Family::BOTH.map(|family| (family, in_force(family)));
        let begin = begin.into_iter().filter(|(_, bits)| *bits != Bits::default());
        let mut rules: Vec<_> = begin
            .map(|(family, bits)| format!("meta nfproto {family} meta mark set {:#010x}", bits.0))
            .collect();
        if rules.is_empty() {
            return rules;
        }
        let asked = criteria.iter().copied().flatten().filter(|one| self.anybody_asks(one));
        rules.extend(asked.map(|one| format!("jump {}", self.chain(one))));
        let first = |place: usize| {
            let lowest = Bits::of(place).0;
            format!(
                "{lowest:#010x}-{:#010x} : goto {}",
                lowest | (lowest - 1),
                goto(self.number * Bits::COUNT + place)
            )
        };
        let firsts: Vec<_> = (0..self.standing.len()).map(first).collect();
        rules.push(format!("meta mark vmap {{ {} }}", firsts.join(", ")));
        rules
    }

    fn anybody_asks(&self, criterion: &Criterion) -> bool {
        self.standing.iter().any(|one| (criterion.asks)(&one.policy.traffic))
    }

    fn chain(&self, criterion: &Criterion) -> String {
        format!("{}_{}", criterion.name, self.number)
    }

    fn ranges(&self, asked: impl Fn(&Traffic) -> Vec<(u32, u32)>) -> Vec<Range> {
        let mut ranges = Vec::new();
        for (place, one) in self.standing.iter().enumerate() {
            let bits = Bits::of(place);
            let of = asked(&one.policy.traffic).into_iter();
            ranges.extend(of.map(|(from, to)| Range { from: from.into(), to: to.into(), bits }));
        }
        disjoint(&ranges)
    }

    fn names(&self, asked: impl Fn(&Standing) -> Vec<String>) -> BTreeMap<String, Bits> {
        let mut names = BTreeMap::<String, Bits>::new();
        for (place, one) in self.standing.iter().enumerate() {
            for name in asked(one) {
                let bits = names.entry(name).or_default();
                *bits = bits.with(Bits::of(place));
            }
        }
        names
    }
}

/// Looks up values, and notes what they leave.
pub(super) struct Looked<'k> {
    any: Bits,
    kept: &'k mut BTreeSet<Bits>,
}

impl Looked<'_> {
    /// The verdict that leaves these, and those that do not ask.
    pub(super) fn goto(&mut self, bits: Bits) -> String {
        let left = bits.with(self.any);
        self.kept.insert(left);
        format!("goto {}", keep(left))
    }

    /// By a number.
    fn up(&mut self, what: &str, ranges: Vec<Range>) -> Vec<String> {
        let mut element = |range: &Range| {
            let goto = self.goto(range.bits);
            match range.from == range.to {
                true => format!("{} : {goto}", range.from),
                false => format!("{}-{} : {goto}", range.from, range.to),
            }
        };
        let elements: Vec<_> = ranges.iter().map(&mut element).collect();
        elements.first().map(|_| format!("{what} vmap {{ {} }}", elements.join(", "))).into_iter().collect()
    }

    /// By a name.
    fn up_names(&mut self, what: &str, names: BTreeMap<String, Bits>) -> Vec<String> {
        let elements: Vec<_> =
            names.into_iter().map(|(name, bits)| format!("{name} : {}", self.goto(bits))).collect();
        elements.first().map(|_| format!("{what} vmap {{ {} }}", elements.join(", "))).into_iter().collect()
    }
}
