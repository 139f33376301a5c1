//! IPv6 prefixes behind the machine: whose they are, by which uplink their sources leave, and as what.
//!
//! A host on the LAN chooses its source among the prefixes that it was given (RFC 6724), and knows nothing of uplinks.
//! So a source that is an uplink's own leaves by that uplink, as it is, for as long as it is in use; what leaves by
//! another is translated, or its provider would drop it (RFC 2827).

use std::collections::{BTreeMap, BTreeSet};

use ipnet::{IpNet, Ipv6Net};

use super::Observed;
use crate::core::layout::Slot;
use crate::core::nat6::{Nat6, is_internet};
use crate::core::net::IfName;
use crate::core::nft::{Others, Pair, Translation};
use crate::core::uplink::{State, Uplink};

/// What a link of Ethernet's kind has, bridges and Wi-Fi among them (linux/if_arp.h).
const ARPHRD_ETHER: u16 = 1;

/// What hosts take their addresses from (RFC 4862 with RFC 2464), and so what is translated as a whole.
const HOSTS: u8 = 64;

/// A prefix of hosts behind the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lan {
    dev: IfName,
    /// No address in it is to be used any more: what was delegated is taken back.
    deprecated: bool,
}

/// All that is decided about IPv6 sources from behind the machine.
pub(super) struct Sources<'a> {
    uplinks: &'a [Uplink],
    in_use: &'a [Slot],
    lans: BTreeMap<Ipv6Net, Lan>,
}

impl<'a> Sources<'a> {
    pub(super) fn new(uplinks: &'a [Uplink], observed: &Observed, in_use: &'a [Slot]) -> Self {
        Sources { uplinks, in_use, lans: lans(uplinks, observed) }
    }

    /// The prefixes whose sources are to leave by their own uplink.
    ///
    /// Where it is not in use, they leave by those that are, for these translate them; unless nobody does. Whether it is
    /// reached does not count: what a host's address is tells nothing of what the administrator wants used.
    pub(super) fn kept(&self, translated: bool) -> Vec<(Slot, IpNet)> {
        let elsewhere = |uplink: &Uplink| {
            let others =
                self.uplinks.iter().filter(|u| u.slot != uplink.slot && self.in_use.contains(&u.slot));
            translated && others.into_iter().any(|u| u.nat6 != Nat6::None)
        };
        let stays = |uplink: &&Uplink| {
            let leg = &uplink.legs.v6;
            let unproven = leg.link && leg.state == State::Configuring;
            self.in_use.contains(&uplink.slot) || unproven || (leg.link && !elsewhere(uplink))
        };
        let own = |uplink: &'a Uplink| self.undisputed(uplink).map(move |net| (uplink.slot, net.into()));
        self.uplinks.iter().filter(stays).flat_map(own).collect()
    }

    /// What is delegated by an uplink, and not by another one too.
    fn undisputed(&self, uplink: &'a Uplink) -> impl Iterator<Item = Ipv6Net> + '_ {
        uplink.prefixes.iter().copied().filter(|net| !self.disputed(uplink, net))
    }

    /// Whether another uplink has it too, as delegated by it or on its own link.
    fn disputed(&self, uplink: &Uplink, net: &Ipv6Net) -> bool {
        let others = self.uplinks.iter().filter(|u| u.slot != uplink.slot);
        let on_link = |u: &'a Uplink| u.legs.v6.connected.iter().filter_map(|(net, _)| v6(net));
        others.flat_map(|u| u.prefixes.iter().copied().chain(on_link(u))).any(|other| overlap(&other, net))
    }

    /// What becomes of sources that leave by each uplink.
    pub(super) fn translations(&self, notes: &mut Vec<String>) -> BTreeMap<Slot, Translation> {
        let speaks = |u: &&Uplink| u.legs.v6.configured() || !u.prefixes.is_empty();
        let several = self.uplinks.iter().filter(speaks).count() > 1;
        self.unknown(several, notes);
        let of = |uplink: &'a Uplink| {
            let on_link = uplink.legs.v6.connected.iter().filter_map(|(net, _)| v6(net)).filter(is_internet);
            let own: BTreeSet<Ipv6Net> = on_link.chain(self.undisputed(uplink)).collect();
            let own = Ipv6Net::aggregate(&own.into_iter().collect::<Vec<_>>());
            // Where its prefixes are known, or others could have given some, the rest is not its own.
            let foreign = several || !uplink.prefixes.is_empty();
            let others = match uplink.nat6 {
                Nat6::None => Others::Keep,
                _ if foreign => Others::All,
                _ => Others::Private,
            };
            let pairs = match uplink.nat6.by_prefix() && uplink.legs.v6.configured() {
                true => self.pairs(uplink, &own, notes),
                false => Vec::new(),
            };
            (uplink.slot, Translation { own, pairs, others })
        };
        self.uplinks.iter().map(of).collect()
    }

    /// Which prefix of the LAN becomes which of the uplink's.
    ///
    /// One that nobody uses is 1:1. Where there is none, hosts share one with the LAN that has it: they keep their half
    /// of the address, in which two hosts hardly ever agree, and nothing can come in for them.
    fn pairs(&self, uplink: &'a Uplink, own: &[Ipv6Net], notes: &mut Vec<String>) -> Vec<Pair> {
        let within = |net: &Ipv6Net| own.iter().any(|own| own.contains(net));
        let (used, foreign): (Vec<_>, Vec<_>) = self.lans.iter().partition(|(net, _)| within(net));
        let used: BTreeMap<_, _> = used.into_iter().collect();
        let stale = |net: &Ipv6Net| {
            let mut lans = used.iter().filter(|(lan, _)| net.contains(**lan)).peekable();
            lans.peek().is_some() && lans.all(|(_, lan)| lan.deprecated)
        };
        let pools: Vec<_> = self.undisputed(uplink).filter(|net| !stale(net)).collect();
        if pools.is_empty() {
            if !foreign.is_empty() {
                notes.push(format!(
                    "{}: nat6 is {}, but no prefix is known to be delegated by it, so it masquerades",
                    uplink.name, uplink.nat6
                ));
            }
            return Vec::new();
        }
        let on_link: Vec<_> = uplink.legs.v6.connected.iter().filter_map(|(net, _)| v6(net)).collect();
        let mut taken: BTreeSet<Ipv6Net> = used.keys().map(|net| **net).collect();
        let mut pairs = Vec::new();
        // Private ones first: what another provider gives may come and go.
        let (global, private): (Vec<_>, Vec<_>) =
            foreign.into_iter().map(|(net, _)| *net).partition(is_internet);
        for inside in private.into_iter().chain(global) {
            let free = |net: &Ipv6Net| !taken.contains(net) && !on_link.iter().any(|on| overlap(on, net));
            let spare = pools.iter().find_map(|pool| candidates(pool, &inside).find(free));
            let shared =
                || pools.iter().find_map(|pool| candidates(pool, &inside).find(|net| used.contains_key(net)));
            let Some(outside) = spare.or_else(shared) else { continue };
            if spare.is_none() {
                notes.push(format!("{}: no prefix is left for {inside}; it shares {outside}", uplink.name));
            }
            taken.insert(outside);
            pairs.push(Pair { inside, outside, inbound: spare.is_some() && uplink.nat6 == Nat6::PrefixBoth });
        }
        pairs.sort();
        pairs
    }

    /// Prefixes of the internet of which nobody knows where they come from, or two claim them.
    fn unknown(&self, several: bool, notes: &mut Vec<String>) {
        for uplink in self.uplinks {
            let disputed = uplink.prefixes.iter().filter(|net| self.disputed(uplink, net));
            notes.extend(disputed.map(|net| {
                format!(
                    "{}: {net}, which it delegates, is another uplink's as well; it counts for neither",
                    uplink.name
                )
            }));
        }
        let known =
            |net: &Ipv6Net| self.uplinks.iter().any(|u| u.prefixes.iter().any(|own| own.contains(net)));
        let on_link = |net: &Ipv6Net| {
            let mut links =
                self.uplinks.iter().flat_map(|u| &u.legs.v6.connected).filter_map(|(on, _)| v6(on));
            links.any(|on| overlap(&on, net))
        };
        let lans =
            self.lans.iter().filter(|(net, _)| several && is_internet(net) && !known(net) && !on_link(net));
        notes.extend(lans.map(|(net, lan)| {
            format!(
                "{net} on {}: not known by which uplink it is delegated, so it counts as none's; the key prefix can tell",
                lan.dev
            )
        }));
    }
}

/// The prefixes of hosts on links that are no uplinks.
fn lans(uplinks: &[Uplink], observed: &Observed) -> BTreeMap<Ipv6Net, Lan> {
    let mut lans: BTreeMap<Ipv6Net, Lan> = BTreeMap::new();
    for address in observed.addresses.iter().filter(|a| a.global && !a.tentative && a.prefix_len == HOSTS) {
        let Ok(IpNet::V6(net)) = IpNet::new(address.ip, address.prefix_len) else { continue };
        let net = net.trunc();
        let link = observed.links.iter().find(|link| link.index == address.dev);
        let Some(link) = link.filter(|link| link.arphrd == ARPHRD_ETHER) else { continue };
        let is_uplink = uplinks.iter().any(|u| u.dev.index == link.index);
        let is_private = net.addr().is_unique_local();
        if is_uplink || !(is_private || is_internet(&net)) {
            continue;
        }
        let lan = lans.entry(net).or_insert_with(|| Lan { dev: link.name.clone(), deprecated: true });
        lan.deprecated &= address.deprecated;
    }
    lans
}

/// The prefixes for hosts in a delegated one, those first that agree with the prefix that is to become one: then it
/// stays the same when others come and go.
fn candidates(pool: &Ipv6Net, inside: &Ipv6Net) -> impl Iterator<Item = Ipv6Net> + use<> {
    let count = 1u64 << HOSTS.saturating_sub(pool.prefix_len()).min(63);
    let high = |net: &Ipv6Net| (net.addr().to_bits() >> HOSTS) as u64;
    let (base, first) = (high(pool), high(inside) % count);
    // More than there are links would only cost.
    (0..count.min(1024)).map(move |n| {
        let network = base | (first.wrapping_add(n) % count);
        Ipv6Net::new_assert((u128::from(network) << HOSTS).into(), HOSTS)
    })
}

fn v6(net: &IpNet) -> Option<Ipv6Net> {
    match net {
        IpNet::V6(net) => Some(*net),
        IpNet::V4(_) => None,
    }
}

fn overlap(a: &Ipv6Net, b: &Ipv6Net) -> bool {
    a.contains(b) || b.contains(a)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv6Net {
        text.parse().unwrap()
    }

    #[test]
    fn what_agrees_is_tried_first_and_each_once() {
        let tried: Vec<_> = candidates(&net("2001:db8:1:a04::/62"), &net("fd77:0:0:2::/64")).collect();
        let texts =
            ["2001:db8:1:a06::/64", "2001:db8:1:a07::/64", "2001:db8:1:a04::/64", "2001:db8:1:a05::/64"];
        assert_eq!(tried, texts.map(net));
        let one: Vec<_> = candidates(&net("2001:db8:1:a04::/64"), &net("fd77::/64")).collect();
        assert_eq!(one, [net("2001:db8:1:a04::/64")]);
        assert_eq!(candidates(&net("2001:db8::/32"), &net("fd77::/64")).count(), 1024);
    }
}
