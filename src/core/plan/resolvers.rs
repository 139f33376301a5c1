//! Which resolvers are not to be asked for now, and whom systemd-resolved should leave out.
//!
//! Many providers' resolvers answer their own customers only, so each is reached through the uplink that announced it,
//! and does not help while that uplink leads nowhere. Does not know how packets are kept on their way: see
//! [`super::family`].

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Observed;
use crate::core::layout::Slot;
use crate::core::net::{Device, Family};
use crate::core::uplink::{Leg, State, Uplink};

/// What holds for the resolvers of all uplinks together.
pub(super) struct Resolvers {
    /// Those that several uplinks announced: which way to take is for the default to say.
    pub(super) shared: BTreeSet<IpAddr>,
    /// The families of uplinks whose resolvers nobody should ask.
    pub(super) idle: BTreeSet<(Slot, Family)>,
}

impl Resolvers {
    /// Looks at all uplinks. As long as nobody else's resolvers can be asked, none are idle.
    pub(super) fn of(uplinks: &[Uplink]) -> Self {
        let all = || {
            uplinks.iter().flat_map(|u| announcing(u).map(move |family| (u.slot, family, &u.legs[family])))
        };
        let some_serve = all().any(|(_, _, leg)| serves(leg));
        let idle = all().filter(|(_, _, leg)| some_serve && is_idle(leg));
        let mut seen = BTreeSet::new();
        let of = |uplink: &Uplink| -> BTreeSet<IpAddr> {
            Family::BOTH.iter().flat_map(|&family| uplink.legs[family].resolvers.clone()).collect()
        };
        Resolvers {
            idle: idle.map(|(slot, family, _)| (slot, family)).collect(),
            shared: uplinks.iter().flat_map(of).filter(|ip| !seen.insert(*ip)).collect(),
        }
    }

    /// The links that systemd-resolved should not ask: all that they announced is idle, and another's resolvers are
    /// asked instead.
    ///
    /// It asks every link at once and takes the first answer, so that a dead link delays what does not exist, and a
    /// captive portal answers everything.
    pub(super) fn unasked(&self, uplinks: &[Uplink], observed: &Observed) -> BTreeSet<Device> {
        let kernel = &observed.kernel;
        let is_ours = |u: &Uplink| kernel.unasked.contains(&u.dev.index);
        let is_asked = |u: &&Uplink| {
            let now = kernel.asked.get(&u.dev);
            now == Some(&true) || (now.is_some() && is_ours(u))
        };
        let asked: Vec<&Uplink> = uplinks.iter().filter(is_asked).collect();
        if !asked.iter().any(|u| announcing(u).any(|family| serves(&u.legs[family]))) {
            return BTreeSet::new();
        }
        let useless = |u: &&&Uplink| {
            // A daemon that was started anew has yet to find out, and leaves it as it is until then.
            let undecided = |leg: &Leg| leg.state == State::Configuring && is_ours(u);
            let idle = |family| self.idle.contains(&(u.slot, family)) || undecided(&u.legs[family]);
            announcing(u).next().is_some() && announcing(u).all(idle)
        };
        asked.iter().filter(useless).map(|u| u.dev.clone()).collect()
    }
}

/// The families in which an uplink's network announces resolvers.
fn announcing(uplink: &Uplink) -> impl Iterator<Item = Family> + '_ {
    Family::BOTH.into_iter().filter(|&family| !uplink.legs[family].resolvers.is_empty())
}

/// Its resolvers can stand in for another's.
fn serves(leg: &Leg) -> bool {
    leg.preference().is_some()
}

/// Its resolvers give no answer, or none that counts; or new flows are to go elsewhere, as questions are.
fn is_idle(leg: &Leg) -> bool {
    matches!(leg.state, State::Down | State::Portal | State::Drained | State::Capped)
}
