//! Which text of our table is loaded, and whether all of it still stands.

use std::fmt;

use crate::core::text::{HASH_OF_NOTHING, hash};

/// Which text is loaded, by a hash of it, and how much of it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation {
    pub(super) hash: u64,
    /// How often the table's chains are used, as the kernel counts it (`use` of `struct nft_chain`,
    /// net/netfilter/nf_tables.h): by each rule that they hold, and by each jump that leads to them.
    pub(super) uses: u32,
}

impl Generation {
    /// A table of our name that is none of ours. It is the hash of no text at all, which no ruleset has,
    /// so it serves none that can be wanted.
    pub const UNKNOWN: Generation = Generation { hash: HASH_OF_NOTHING, uses: 0 };

    /// The name of the chain that stands for it.
    pub fn chain(self) -> String {
        format!("generation_{:016x}", self.hash)
    }

    /// The generation that a chain's name stands for, where the chains of its table are used so often.
    pub fn of_chain(name: &str, uses: u32) -> Option<Self> {
        let hex = name.strip_prefix("generation_")?;
        let hash = (hex.len() == 16).then(|| u64::from_str_radix(hex, 16).ok())??;
        Some(Generation { hash, uses })
    }

    /// Whether what is loaded is what is wanted and lacks no rule: who flushes a table, or a chain of it, leaves the
    /// marker. What somebody has added is left to him until the next load.
    pub fn serves(self, wanted: Generation) -> bool {
        self.hash == wanted.hash && self.uses >= wanted.uses
    }

    pub(super) fn of_text(text: &str) -> Self {
        Generation { hash: hash(text), uses: uses(text) }
    }
}

/// How often the chains of a text will be used. A rule is a line of its own in it, and each verdict of a map counts.
pub(super) fn uses(text: &str) -> u32 {
    let is_rule = |line: &&str| !line.starts_with("type ") && !line.starts_with("comment ");
    let rules = text.lines().filter_map(|line| line.strip_prefix("\t\t")).filter(is_rule);
    let of_rule = |rule: &str| 1 + rule.matches("jump ").count() + rule.matches("goto ").count();
    u32::try_from(rules.map(of_rule).sum::<usize>()).unwrap_or(u32::MAX)
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kernel counts it; tests/netfilter.rs compares it with a real one.
    #[test]
    fn rules_and_jumps_are_counted() {
        let text = "\tset s {\n\t\ttype ipv4_addr;\n\t}\n\tchain a {\n\t\tcomment \"jump\"\n\t\taccept\n\t}\n\
            \tchain b {\n\t\ttype filter hook input priority 0;\n\
            \t\tiifname vmap { \"x\" : jump a, \"y\" : goto a }\n\t\tjump a\n\t}\n";
        assert_eq!(uses(text), 3 + 3);
        assert_eq!(uses(""), Generation::UNKNOWN.uses);
    }
}
