//! The maps of verdicts and sets of prefixes that rules look into, each with a name that tells what is in it.
//!
//! One without a name, of what stands between braces in a rule, is made anew and forgotten with the rule. While tables
//! change hands its elements are those of one generation and the rule that looks into it is of the other, for some
//! microseconds and longer where it has ranges (`nf_tables_commit`, net/netfilter/nf_tables_api.c): packets miss it. What
//! has a name and is in both tables stays as it is. So each table of the same maps finds them there.

use std::collections::BTreeMap;

use crate::core::text::hash;

/// The beginnings of the names of maps and of sets.
const MAP: &str = "by_";
const SET: &str = "in_";

/// How the key of a map is written in a rule, and its type. Control groups have none: what is made anew under a path is
/// another, which its text does not tell.
const KEYS: [(&str, &str); 9] = [
    ("meta mark", "mark"),
    ("ct mark", "mark"),
    ("meta l4proto", "inet_proto"),
    ("th dport", "inet_service"),
    // Of IPv6 it is found in no map that has a name (nft 1.1.3).
    ("ip dscp", "dscp"),
    ("iifname", "ifname"),
    ("ether saddr", "ether_addr"),
    ("meta skuid", "uid"),
    ("meta skgid", "gid"),
];

/// How an address is written in a rule, and its type.
const ADDRESSES: [(&str, &str); 2] = [("ip daddr", "ipv4_addr"), ("ip6 daddr", "ipv6_addr")];

/// Those of a table, by name: what kind of object each is, and what stands between its braces.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Lookups(BTreeMap<String, Lookup>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Lookup {
    header: String,
    elements: String,
}

impl Lookups {
    /// Gives names to those of a text, in place of what is in them.
    pub(super) fn named(text: &str) -> (String, Self) {
        let mut lookups = Lookups::default();
        let named = text.lines().map(|line| lookups.rule(line) + "\n").collect();
        (named, lookups)
    }

    fn rule(&mut self, line: &str) -> String {
        let map = line.split_once(" vmap { ").and_then(|(rule, rest)| {
            let masked = rule.rsplit_once(" & ").map_or("", |(key, _)| key);
            let (_, kind) = KEYS.iter().find(|(key, _)| rule.ends_with(key) || masked.ends_with(key))?;
            let elements = rest.strip_suffix(" }")?;
            let name = self.name(MAP, &format!("type {kind} : verdict;"), elements);
            Some(format!("{rule} vmap @{name}"))
        });
        let set = || {
            let of = |(key, kind): &(&str, &str)| {
                let (before, rest) = line.split_once(&format!("{key} {{ "))?;
                let (elements, after) = rest.split_once(" }")?;
                let name = self.name(SET, &format!("type {kind};"), elements);
                Some(format!("{before}{key} @{name}{after}"))
            };
            ADDRESSES.iter().find_map(of)
        };
        map.or_else(set).unwrap_or_else(|| line.to_owned())
    }

    fn name(&mut self, begin: &str, kind: &str, elements: &str) -> String {
        // Names, which alone may have both in them, are no ranges.
        let ranges = !elements.contains(['"']) && elements.contains(['-', '/']);
        let header = format!("{kind}{}", if ranges { " flags interval;" } else { "" });
        let name = format!("{begin}{:016x}", hash(&format!("{header}{elements}")));
        self.0.insert(name.clone(), Lookup { header, elements: elements.to_owned() });
        name
    }

    /// The names of the chains, without rules, that tell which of them are loaded.
    pub(super) fn markers(&self) -> impl Iterator<Item = String> {
        self.0.keys().cloned()
    }

    /// How often they use chains.
    pub(super) fn uses(&self) -> usize {
        let of = |one: &Lookup| one.elements.matches("goto ").count() + one.elements.matches("jump ").count();
        self.0.values().map(of).sum()
    }

    /// Their declarations, with what is in those that are not there yet.
    pub(super) fn declared(&self, is_there: impl Fn(&str) -> bool) -> String {
        let declare = |(name, Lookup { header, elements }): (&String, &Lookup)| {
            let filled = format!("\t\telements = {{ {elements} }}\n");
            let filled = if is_there(name) { "" } else { &filled };
            format!("\t{} {name} {{\n\t\t{header}\n{filled}\t}}\n", kind(name))
        };
        self.0.iter().map(declare).collect()
    }
}

/// What kind of object goes with a chain, under its name; none with chains that are no markers of such.
pub(super) fn of_chain(chain: &str) -> Option<&'static str> {
    [MAP, SET].iter().any(|begin| chain.starts_with(begin)).then(|| kind(chain))
}

fn kind(name: &str) -> &'static str {
    if name.starts_with(MAP) { "map" } else { "set" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_ones_are_one_and_others_have_other_names() {
        let text = "\tchain a {\n\t\tmeta mark vmap { 1-3 : goto b, 4 : jump c }\n\t\tip daddr { 10.0.0.0/8 } return\n\t}\n";
        let (named, lookups) = Lookups::named(text);
        let names: Vec<_> = lookups.markers().collect();
        assert_eq!(
            named,
            format!(
                "\tchain a {{\n\t\tmeta mark vmap @{}\n\t\tip daddr @{} return\n\t}}\n",
                names[0], names[1]
            )
        );
        assert_eq!((Lookups::named(&(text.to_owned() + text)).1, lookups.uses()), (lookups, 2));
        let other = Lookups::named(&text.replace("4 :", "5 :")).1;
        assert_eq!(other.markers().filter(|name| names.contains(name)).count(), 1);
    }

    #[test]
    fn only_what_is_new_is_filled() {
        let (_, lookups) = Lookups::named("\t\tiifname vmap { \"br-lan\" : goto a }\n");
        let name = lookups.markers().next().unwrap();
        let full = format!(
            "\tmap {name} {{\n\t\ttype ifname : verdict;\n\t\telements = {{ \"br-lan\" : goto a }}\n\t}}\n"
        );
        assert_eq!(lookups.declared(|_| false), full);
        assert!(!lookups.declared(|there| there == name).contains("elements"));
        assert_eq!((of_chain(&name), of_chain("behind")), (Some("map"), None));
    }
}
