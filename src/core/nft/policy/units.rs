//! Units and slices, as control groups: a packet of a program of this machine is asked in which group its socket was made.
//!
//! The kernel tells the group at one level of the hierarchy at a time, so there is a map for each level, the deepest first,
//! and what is asked of a slice is asked of each group in it as well: the first hit has said all. Only groups that are there
//! can be named. As one that is made anew under the same path is another, which no path tells, their numbers are in the text.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::criteria::{Looked, Round};
use crate::core::policy::ranges::Bits;
use crate::core::policy::{Cgroup, Traffic, Unit};
use crate::core::text::hash;

/// The rules for the units that some field of a match names.
pub(super) fn rules(round: &Round, looked: &mut Looked, units: fn(&Traffic) -> &Vec<Unit>) -> Vec<String> {
    let mut asked = Vec::new();
    for (place, one) in round.standing().iter().enumerate() {
        let meant = |group: &&Cgroup| units(&one.policy.traffic).iter().any(|unit| unit.is(&group.path));
        asked.extend(one.cgroups.iter().filter(meant).map(|group| (group, Bits::of(place))));
    }
    let groups: BTreeSet<&Cgroup> = asked.iter().map(|(group, _)| *group).collect();
    let mut levels = BTreeMap::<_, Vec<String>>::new();
    for group in &groups {
        let bits = asked.iter().filter(|(other, _)| other.holds(group)).map(|(_, bits)| *bits).collect();
        let element = format!("\"{}\" : {}", group.path, looked.goto(bits));
        levels.entry(Reverse(group.level())).or_default().push(element);
    }
    if groups.is_empty() {
        return Vec::new();
    }
    let known: String = groups.iter().map(|group| format!("{} {}\n", group.id, group.path)).collect();
    let mut rules = vec![format!("comment \"groups {:016x}\"", hash(&known))];
    rules.extend(levels.iter().map(|(Reverse(level), elements)| {
        format!("socket cgroupv2 level {level} vmap {{ {} }}", elements.join(", "))
    }));
    rules
}

#[cfg(test)]
mod tests {
    use super::super::{PolicyTable, Standing, Surroundings, Verdict};
    use super::*;
    use crate::core::net::PerFamily;
    use crate::core::policy::{Policy, Prefixes};

    fn table(policies: &[Policy], groups: &[(&str, u64)]) -> String {
        let cgroups: Vec<_> =
            groups.iter().map(|(path, id)| Cgroup { path: (*path).to_owned(), id: *id }).collect();
        let standing: Vec<_> = policies
            .iter()
            .map(|policy| Standing {
                policy,
                interfaces: Vec::new(),
                only: None,
                cgroups: cgroups.clone(),
                verdict: PerFamily::from_fn(|_| Verdict::Pass),
            })
            .collect();
        PolicyTable::new(&Surroundings::default(), &standing, &Prefixes::default()).text(None)
    }

    fn of_units(unit: &[Unit], slice: &[Unit]) -> Policy {
        let (unit, slice) = (unit.to_vec(), slice.to_vec());
        Policy::example(Traffic { unit, slice, ..Traffic::default() })
    }

    /// The rules of a chain.
    fn chain(text: &str, name: &str) -> Vec<String> {
        let begin = format!("\tchain {name} {{\n");
        let rest = text.split(&begin).nth(1).expect(name);
        rest.lines().take_while(|line| *line != "\t}").map(|line| line.trim().to_owned()).collect()
    }

    #[test]
    fn the_deepest_level_is_asked_first_and_has_what_is_asked_of_its_slices() {
        let x = [Unit::new(None, "x").unwrap()];
        let slice = |name| Unit::slice(None, name).unwrap();
        let policies = [
            of_units(&x, &[]),
            of_units(&[], &[slice("system"), slice("a-b")]),
            of_units(&[], &[slice("a")]),
        ];
        let groups =
            [("a.slice", 3), ("a.slice/a-b.slice", 4), ("system.slice", 1), ("system.slice/x.service", 2)];
        let text = table(&policies, &groups);
        let rules = chain(&text, "unit_0");
        assert_eq!(
            rules[1..],
            [
                "socket cgroupv2 level 2 vmap { \"system.slice/x.service\" : goto keep_e0000000 }",
                "meta mark set meta mark & 0x60000000",
            ]
        );
        let rules = chain(&text, "slice_0");
        assert_eq!(
            rules[1..],
            [
                "socket cgroupv2 level 2 vmap { \"a.slice/a-b.slice\" : goto keep_e0000000 }",
                "socket cgroupv2 level 1 vmap { \"a.slice\" : goto keep_a0000000, \"system.slice\" : goto keep_c0000000 }",
                "meta mark set meta mark & 0x80000000",
            ]
        );
        assert!(!chain(&text, "behind").concat().contains("unit"), "what is forwarded has no program");
        assert!(text.contains("chain keep_a0000000 {"));
    }

    #[test]
    fn a_group_that_is_made_anew_makes_another_table() {
        let policies = [of_units(&[Unit::new(None, "x").unwrap()], &[])];
        let with = |id| table(&policies, &[("system.slice/x.service", id)]);
        assert_eq!(with(1), with(1));
        assert_ne!(with(1), with(2));
        assert_eq!(chain(&table(&policies, &[]), "unit_0"), ["meta mark set meta mark & 0x00000000"]);
    }
}
