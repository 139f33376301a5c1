//! By what a running flow tells whose policy sent it: bits of its conntrack label.
//!
//! The mark of a flow tells its uplink and has no room for more; a label has 128 bits of its own, and nobody else's commands
//! change it. So flows of a policy can be told from those of the default route on the same uplink, long after their first
//! packet was looked at.
//!
//! A policy has one bit in each 32, which follow from its name: a million combinations, so nothing needs to be remembered, and
//! one that is moved in the configuration, or back after it was gone, has its flows still.

use std::fmt;

use crate::core::text::hash;

/// The bits of one policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label([u8; 4]);

impl Label {
    /// That of the policy of a name.
    pub fn of(name: &str) -> Self {
        let hash = hash(name);
        Label([0u8, 1, 2, 3].map(|word| 32 * word + (hash >> (8 * word) & 31) as u8))
    }

    /// Whether a flow has it, from its label as the kernel lists it (`CTA_LABELS`): words of the machine's own size and order
    /// (`struct nf_conn_labels`, net/netfilter/nf_conntrack_labels.h).
    pub fn is_on(self, label: &[u8]) -> bool {
        const WORD: usize = size_of::<usize>();
        let has = |bit: u8| {
            let (word, bit) = (usize::from(bit) / (8 * WORD), usize::from(bit) % (8 * WORD));
            let bytes = label.get(word * WORD..).and_then(|rest| rest.first_chunk::<WORD>());
            bytes.is_some_and(|bytes| usize::from_ne_bytes(*bytes) >> bit & 1 == 1)
        };
        self.0.into_iter().all(has)
    }
}

impl fmt::Display for Label {
    /// As nft takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second, third, last] = self.0;
        write!(f, "{first} | {second} | {third} | {last}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_has_the_label_of_its_policy_alone() {
        let label = Label([5, 37, 77, 127]);
        assert_eq!(label.to_string(), "5 | 37 | 77 | 127");
        // As Linux 6.18 lists `ct label set 5 | 37 | 77 | 127` on a machine of 64 bits that puts the lowest byte first.
        #[cfg(all(target_endian = "little", target_pointer_width = "64"))]
        assert!(label.is_on(&[0x20, 0, 0, 0, 0x20, 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0x80]));
        assert!(label.is_on(&[0xff; 16]));
        assert!(!label.is_on(&[0; 16]) && !label.is_on(&[]) && !label.is_on(&[0xff; 15]));
    }

    #[test]
    fn names_have_labels_of_their_own_with_a_bit_in_each_word() {
        let labels: Vec<Label> = (0..100).map(|n| Label::of(&format!("policy-{n}"))).collect();
        for label in &labels {
            assert_eq!(label.0.map(|bit| bit / 32), [0, 1, 2, 3]);
            assert_eq!(labels.iter().filter(|other| *other == label).count(), 1);
        }
    }
}
