//! The first match of many, with one look at each criterion.
//!
//! Each policy of a round is a bit of a word, the first the highest. A criterion takes bits away: those of the policies that
//! ask for something else. What is left after all criteria is who matches, and the highest bit is the first. So for a
//! criterion it has to be known which bits a value leaves, for every value: that is what is made here, from ranges that may
//! overlap to ranges that do not.

/// A set of policies of one round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Bits(pub u32);

impl Bits {
    /// How many policies a round has.
    pub const COUNT: usize = 32;

    /// The bit of a policy by its place in the round.
    pub fn of(place: usize) -> Self {
        Bits(1 << (Self::COUNT - 1 - place))
    }

    /// Both.
    pub fn with(self, other: Bits) -> Self {
        Bits(self.0 | other.0)
    }
}

impl FromIterator<Bits> for Bits {
    fn from_iter<I: IntoIterator<Item = Bits>>(bits: I) -> Self {
        bits.into_iter().fold(Bits::default(), Bits::with)
    }
}

/// Values from and to, and the policies that ask for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// The first value.
    pub from: u128,
    /// The last value.
    pub to: u128,
    /// Who asks for them.
    pub bits: Bits,
}

/// The same without overlaps, in order; neighbours that are alike are one.
pub fn disjoint(ranges: &[Range]) -> Vec<Range> {
    // Where somebody begins, and behind where somebody ends; what ends with the last value never does.
    let begins = ranges.iter().map(|range| (range.from, range.bits, 1));
    let ends = ranges.iter().filter_map(|range| Some((range.to.checked_add(1)?, range.bits, -1)));
    let mut bounds: Vec<(u128, Bits, i32)> = begins.chain(ends).collect();
    bounds.sort_unstable();
    let mut depth = [0i32; Bits::COUNT];
    let mut found: Vec<Range> = Vec::new();
    let mut at = 0;
    while let Some(&(from, ..)) = bounds.get(at) {
        for &(_, bits, step) in bounds[at..].iter().take_while(|bound| bound.0 == from) {
            for (place, depth) in depth.iter_mut().enumerate() {
                *depth += step * i32::from(bits.0 & Bits::of(place).0 != 0);
            }
            at += 1;
        }
        let held = depth.iter().enumerate().filter(|(_, depth)| **depth > 0);
        let bits: Bits = held.map(|(place, _)| Bits::of(place)).collect();
        let to = bounds.get(at).map_or(u128::MAX, |next| next.0 - 1);
        match found.last_mut() {
            Some(last) if last.bits == bits && last.to.checked_add(1) == Some(from) => last.to = to,
            _ if bits == Bits::default() => {}
            _ => found.push(Range { from, to, bits }),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(from: u128, to: u128, place: usize) -> Range {
        Range { from, to, bits: Bits::of(place) }
    }

    #[test]
    fn the_first_policy_is_the_highest_bit() {
        assert_eq!(Bits::of(0).0, 0x8000_0000);
        assert_eq!(Bits::of(31).0, 1);
    }

    #[test]
    fn overlaps_are_taken_apart_and_neighbours_put_together() {
        let found = disjoint(&[range(0, 9, 0), range(5, 19, 1), range(20, 20, 1), range(7, 7, 0)]);
        let (a, b) = (Bits::of(0), Bits::of(1));
        let expected = [(0, 4, a), (5, 9, a.with(b)), (10, 20, b)];
        assert_eq!(found, expected.map(|(from, to, bits)| Range { from, to, bits }));
        let all = range(0, u128::MAX, 3);
        assert_eq!(disjoint(&[all, all]), [all]);
        assert_eq!(disjoint(&[]), []);
    }

    proptest! {
        #[test]
        fn every_value_keeps_those_that_ask_for_it(
            ranges in proptest::collection::vec((0u128..40, 0u128..12, 0usize..5), 0..12)
        ) {
            let ranges: Vec<_> = ranges.into_iter().map(|(from, more, place)| range(from, from + more, place)).collect();
            let found = disjoint(&ranges);
            let holds = |all: &[Range], value: u128| -> Bits {
                all.iter().filter(|r| (r.from..=r.to).contains(&value)).map(|r| r.bits).collect()
            };
            for value in 0..60 {
                prop_assert_eq!(holds(&found, value), holds(&ranges, value));
            }
            prop_assert!(found.windows(2).all(|two| two[0].to < two[1].from));
        }
    }
}
