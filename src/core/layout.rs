//! Where our objects lie in the kernel: the one place that knows the numbers.
//!
//! | object | value |
//! |---|---|
//! | protocol | [`OWNER`](super::net::OWNER) on every route and rule |
//! | slot | 1 to 63, one an uplink |
//! | mark | `slot << 24` under `0x3f000000` |
//! | table | `7000 + slot`; 7000 itself holds the ways to the uplinks' resolvers and to what is configured to lie behind them, the balanced default where main has no room for it, and the `unreachable` one of `all-down = "block"` |
//! | rule base - 2 | `from ADDRESS to SERVER lookup TABLE`, for the server of a tunnel |
//! | rule base - 1 | `to SERVER lookup TABLE`, for the server of a tunnel |
//! | rule base + 0 | `lookup main suppress_prefixlength 1`, and 4 for IPv6 ([`Family::covering_len`]); ahead of a foreign rule that takes everything, only for our marks and addresses |
//! | rule base + 100 + slot | `fwmark MARK lookup TABLE` |
//! | rule base + 199 | `fwmark MARK unreachable`, for each uplink that a policy enforces |
//! | rule base + 200 + slot | `from ADDRESS lookup TABLE` |
//! | rule base + 300 + slot | `oif DEVICE lookup TABLE` |
//! | rule 32764 | `to 0.0.0.0/1 lookup main suppress_prefixlength 0`, and for `128.0.0.0/1`, ahead of the next two |
//! | rule 32764, behind | `from PREFIX lookup TABLE`, for each IPv6 prefix that is delegated by the uplink |
//! | rule 32765 | `lookup 7000` |
//! | main | the balanced default, and where it has several legs a signpost: a default for [`SIGNPOST_TOS`] alone |
//!
//! The base is 7000, or the next lower thousand that stands ahead of every foreign rule that takes everything.

use std::fmt;

use serde::{Deserialize, Serialize};

#[cfg(doc)]
use super::net::Family;
use super::net::{Mark, Pref, TableId, Tos};

/// The bits of a packet mark that are ours; free of mwan3 (0x3f00), Tailscale (0xff0000), Kubernetes (0xc000),
/// Cilium, netavark and wg-quick (51820).
pub const MARK_MASK: u32 = 0x3f00_0000;

/// The table of what is to be asked directly ahead of main: the balanced default where no metric in main is left for it,
/// the ways to the uplinks' resolvers, and those to what is configured to lie behind one.
pub const BALANCED_TABLE: TableId = TableId(7000);

/// The kernel's own rule to main (ip-rule(8)).
pub const MAIN_PREF: Pref = Pref(32766);

/// The rule that leads to [`BALANCED_TABLE`], directly ahead of main's own.
pub const BALANCED_PREF: Pref = Pref(32765);

/// The rules ahead of [`BALANCED_PREF`] that let the two /1 routes of a VPN in main win.
pub const BYPASS_PREF: Pref = Pref(32764);

/// The rules to the tables of uplinks for what comes from prefixes that are delegated by them: behind those of
/// [`BYPASS_PREF`], which are added first, and behind every VPN's, as such a source chooses no uplink.
pub const SOURCES_PREF: Pref = BYPASS_PREF;

/// The packets that our signpost in main is for: DSCP 63, which is nobody's (RFC 2474, pool 2).
pub const SIGNPOST_TOS: Tos = Tos(0xfc);

/// An uplink's number: chooses its mark, table and rules. Persisted, so that they survive a reboot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Slot(u8);

impl Slot {
    /// How many there are.
    pub const COUNT: u8 = 63;

    /// Accepts 1 to 63.
    pub fn new(slot: u8) -> Option<Self> {
        (1..=Self::COUNT).contains(&slot).then_some(Slot(slot))
    }

    /// Every slot, in order.
    pub fn all() -> impl Iterator<Item = Slot> {
        (1..=Self::COUNT).map(Slot)
    }

    /// 1 to 63.
    pub fn get(self) -> u8 {
        self.0
    }

    /// The mark of the flows on this uplink.
    pub fn mark(self) -> Mark {
        Mark::new(u32::from(self.0) << 24, MARK_MASK)
    }

    /// The table of this uplink.
    pub fn table(self) -> TableId {
        TableId(BALANCED_TABLE.0 + u32::from(self.0))
    }

    /// The slot that a table belongs to.
    pub fn of_table(table: TableId) -> Option<Self> {
        u8::try_from(table.0.checked_sub(BALANCED_TABLE.0)?).ok().and_then(Self::new)
    }
}

impl TryFrom<u8> for Slot {
    type Error = String;
    fn try_from(slot: u8) -> Result<Self, String> {
        Slot::new(slot).ok_or_else(|| format!("slot {slot}: must be 1 to {}", Slot::COUNT))
    }
}

impl From<Slot> for u8 {
    fn from(slot: Slot) -> u8 {
        slot.0
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where the block of our rules begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Base(u32);

impl Base {
    /// Where it is when nobody stands in the way.
    pub const USUAL: Base = Base(7000);
    const STEP: u32 = 1000;
    /// One more than the highest offset in use.
    const SPAN: u32 = 500;

    /// The usual base and those ahead of it, nearest first.
    pub fn candidates() -> impl Iterator<Item = Base> {
        (1..=Self::USUAL.0 / Self::STEP).rev().map(|n| Base(n * Self::STEP))
    }

    /// Whether the whole block stands ahead of a preference.
    pub fn is_ahead_of(self, pref: Pref) -> bool {
        self.0 + Self::SPAN <= pref.0
    }

    /// Whether a preference lies in a block of ours, wherever it was placed.
    pub fn is_ours(pref: Pref) -> bool {
        pref == BALANCED_PREF
            || pref == BYPASS_PREF
            || Self::is_detour(pref)
            || Self::candidates().any(|base| base.contains(pref))
    }

    /// Whether a preference lies in this block.
    pub fn contains(self, pref: Pref) -> bool {
        (self.0..self.0 + Self::SPAN).contains(&pref.0)
    }

    /// `to SERVER lookup TABLE`: ahead of main, whose own route to there may lead over a dead uplink.
    pub fn detour(self) -> Pref {
        Pref(self.0 - 1)
    }

    /// `from ADDRESS to SERVER lookup TABLE`: a connection that has the address of an uplink stays there.
    pub fn detour_from(self) -> Pref {
        Pref(self.0 - 2)
    }

    /// Whether a preference is that of the rules to servers of tunnels, wherever the block was placed.
    pub fn is_detour(pref: Pref) -> bool {
        Self::candidates().any(|base| pref == base.detour() || pref == base.detour_from())
    }

    /// `lookup main suppress_prefixlength 1`, for all or for what is ours.
    pub fn main(self) -> Pref {
        Pref(self.0)
    }

    /// `fwmark MARK lookup TABLE`.
    pub fn mark(self, slot: Slot) -> Pref {
        Pref(self.0 + 100 + u32::from(slot.0))
    }

    /// `fwmark MARK unreachable`: ahead of the rules by address, one of which would take what found no way by its mark.
    pub fn enforced(self) -> Pref {
        Pref(self.0 + 199)
    }

    /// `from ADDRESS lookup TABLE`.
    pub fn from_address(self, slot: Slot) -> Pref {
        Pref(self.0 + 200 + u32::from(slot.0))
    }

    /// `oif DEVICE lookup TABLE`.
    pub fn device(self, slot: Slot) -> Pref {
        Pref(self.0 + 300 + u32::from(slot.0))
    }
}
