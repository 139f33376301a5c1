//! Which interfaces are uplinks, and by what gateway each leads out.
//!
//! An uplink has a default route of somebody's, or a gateway that its manager reports, or a router that its DHCP
//! lease offers though nobody installs a default. Ports of bridges and bonds never are
//! uplinks; VPNs, containers and shared links are none unless the configuration says so. What an uplink is *for* (active, standing by) is decided in
//! [`super::plan`].

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv6Net};

use super::balance::Directions;
use super::health::{Health, Thresholds};
use super::layout::Slot;
use super::nat6::{MOST_PREFIXES, is_delegable};
use super::net::{Device, Family, PerFamily, TableId, Tier, UplinkName};
use super::observed::{Address, Link, LinkFacts, Observed, OtherRoute, Stage};
use super::quota::{self, Allowance, Usage};
use super::slots::Slots;
use super::uplink::{Failback, Gateway, Leg, State, Uplink};
use crate::config::{Config, LinkType, Settings, Subject};

mod names;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// The uplinks that are present, by slot.
    pub uplinks: Vec<Uplink>,
    /// The memory of slots, brought up to date.
    pub slots: Slots,
    /// What people should know.
    pub notes: Vec<String>,
}

/// Finds the uplinks among what was observed.
pub fn discover(
    config: &Config,
    observed: &Observed,
    slots: &Slots,
    health: &Health,
    usages: &BTreeMap<Slot, Usage>,
) -> Found {
    let mut found = Found { slots: slots.clone(), ..Found::default() };
    let mut used = vec![false; config.uplinks.len()];
    let mut candidates = Vec::new();
    for link in &observed.links {
        let facts = observed.said_of(&link.name);
        if observed.is_fought_over(&link.name) {
            let name = &link.name;
            found
                .notes
                .push(format!("{name}: two network managers configure it; tell one to leave it alone"));
        }
        let candidate = Candidate::new(config, link, facts, &mut used, &mut found.notes);
        if candidate.settings.ignore == Some(true) {
            // An ignored uplink is none, so it does not count as one that is away either.
            found.slots.drop_on(&link.name, &candidate.identity(slots));
        } else if candidate.is_uplink(observed, slots) {
            found.notes.extend(candidate.warning(observed));
            candidates.push(candidate);
        } else {
            found.notes.extend(candidate.refusal(observed));
        }
    }
    unused_sections(config, &used, &mut found.notes);
    name_and_number(candidates, observed, usages, &mut found);
    judge(&mut found, observed, health);
    quota::enforce(&mut found.uplinks, health, &mut found.notes);
    mark_twins(&mut found);
    found.uplinks.sort_by_key(|u| u.slot);
    found
}

/// An interface that may be an uplink, with what the configuration and its manager say of it.
struct Candidate<'a> {
    link: &'a Link,
    facts: Option<&'a LinkFacts>,
    kind: LinkType,
    settings: Settings,
    /// The configuration points at it.
    named: bool,
}

impl<'a> Candidate<'a> {
    fn new(
        config: &Config,
        link: &'a Link,
        facts: Option<&'a LinkFacts>,
        used: &mut [bool],
        notes: &mut Vec<String>,
    ) -> Self {
        let kind = link_type(link, facts);
        let profile = facts.and_then(|f| f.profile.as_ref());
        let subject = Subject {
            interface: &link.name,
            connection_id: profile.map(|p| p.id.as_str()),
            connection_uuid: profile.map(|p| p.uuid.as_str()),
            kind,
            mac: link.mac,
        };
        let mut settings = Settings::default();
        for place in facts.iter().flat_map(|f| &f.settings) {
            let pairs = place.pairs.iter().map(|(k, v)| (k.as_str(), v.as_str()));
            let (said, problems) = Settings::from_pairs(pairs);
            settings = settings.overlaid(said);
            let note = |problem| format!("{}: {problem}; the rest of it counts", place.origin);
            notes.extend(problems.into_iter().map(note));
        }
        notes.extend(facts.iter().flat_map(|f| &f.notes).cloned());
        let mut named = false;
        for (section, used) in config.uplinks.iter().zip(used) {
            if section.matcher.matches(&subject) {
                *used = true;
                named |= section.matcher.is_pointed();
                settings = settings.overlaid(section.settings.clone());
            }
        }
        Candidate { link, facts, kind, settings, named }
    }

    /// Whether it has, or is known to have had, a way out that is not somebody else's business.
    fn is_uplink(&self, observed: &Observed, slots: &Slots) -> bool {
        // What belongs to a bridge or bond has no addresses of its own; what belongs to a VRF is apart from all else.
        if self.link.is_loopback() || self.link.controller.is_some() {
            return false;
        }
        let shared = self.facts.is_some_and(|f| f.shared);
        if !self.named && (shared || self.is_private_matter()) {
            return false;
        }
        let leads_out = Family::BOTH.iter().any(|&family| self.gateway(observed, family).is_some());
        leads_out || self.named || slots.last_on(&self.link.name).is_some()
    }

    /// Why it is no uplink though the configuration points at it: its addresses are local in the table of its VRF alone, so
    /// the kernel lets no other table use them, nor any socket outside of the VRF hear of an answer
    /// (Documentation/networking/vrf.rst).
    fn refusal(&self, observed: &Observed) -> Option<String> {
        let controller = self.link.controller.filter(|_| self.named)?;
        let vrf =
            observed.links.iter().find(|l| l.index == controller && l.kind.as_deref() == Some("vrf"))?;
        Some(format!("{} belongs to VRF {}, so it is no uplink of this machine", self.link.name, vrf.name))
    }

    /// What can go wrong with an uplink that is a tunnel: its own packets are new flows like any, and what leads them into
    /// itself sends them round and round.
    fn warning(&self, observed: &Observed) -> Option<String> {
        let is_host = |route: &OtherRoute| route.dest.prefix_len() == route.dest.max_prefix_len();
        let pinned = observed.others.iter().any(is_host)
            || observed.foreign_rules.iter().any(|rule| rule.fwmark.is_some() && !rule.catch_all);
        (self.is_private_matter() && !pinned).then(|| {
            format!(
                "{}: a tunnel as an uplink needs a way to its server that does not lead through itself: a host route, \
                 or a rule for the mark of its packets",
                self.link.name
            )
        })
    }

    /// A VPN or an overlay, by its kind or by its manager's word.
    fn is_private_matter(&self) -> bool {
        self.link.is_tunnel() || self.facts.is_some_and(|f| f.vpn)
    }

    /// The way out: the kernel's own default route first, since it is what is in force; then what the manager
    /// uses; then what the network offers, as its manager or a DHCP client's hook tells; then, for a link with one
    /// other end that the configuration names, the link itself. An address of the link's own is no gateway, whoever
    /// says so: the kernel takes no such route.
    fn gateway(&self, observed: &Observed, family: Family) -> Option<Gateway> {
        let routed = observed
            .defaults
            .iter()
            .filter(|d| d.family == family)
            .flat_map(|d| d.hops.iter().map(move |hop| ((d.table != TableId::MAIN, d.metric), hop)))
            .filter(|(_, (dev, _))| *dev == self.link.index)
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, (_, via))| via.map_or(Gateway::Link, Gateway::Via));
        let own = |ip: &IpAddr| observed.addresses.iter().any(|a| a.dev == self.link.index && a.ip == *ip);
        let told = || self.facts.and_then(|f| f.ip[family].gateway).filter(|ip| !own(ip));
        let offered = || self.facts.and_then(|f| f.ip[family].offered.iter().copied().find(|ip| !own(ip)));
        let has_address =
            observed.addresses.iter().any(|a| a.dev == self.link.index && usable_address(a, family));
        let handed = || {
            let of_link = observed.offers.iter().filter(|offer| offer.interface == self.link.name);
            let mut fitting = of_link.filter(|o| Family::of(o.router) == family && own(&o.address));
            fitting.next().map(|offer| offer.router).filter(|ip| !own(ip))
        };
        let one_end = || (self.named && has_address && has_one_end(self.link)).then_some(Gateway::Link);
        routed.or_else(|| told().or_else(offered).or_else(handed).map(Gateway::Via)).or_else(one_end)
    }

    /// What is delegated by it: what is configured, else what its manager says.
    fn prefixes(&self) -> Vec<Ipv6Net> {
        let told = || self.facts.map(|facts| facts.ip.v6.delegated.clone()).unwrap_or_default();
        let mut prefixes = self.settings.prefix.clone().unwrap_or_else(told);
        prefixes.retain(is_delegable);
        prefixes.truncate(MOST_PREFIXES);
        Ipv6Net::aggregate(&prefixes)
    }

    fn resolvers(&self, family: Family) -> Vec<IpAddr> {
        let told = self.facts.map_or(&[][..], |facts| &facts.ip[family].resolvers);
        told.iter().take(MOST_RESOLVERS).copied().collect()
    }

    fn leg(&self, observed: &Observed, family: Family) -> Leg {
        let Link { index, up, carrier, .. } = *self.link;
        let own = observed.addresses.iter().filter(|a| a.dev == index && usable_address(a, family));
        let mut own: Vec<&Address> = own.collect();
        own.sort_by_key(|a| (a.deprecated, a.secondary && family == Family::V4));
        let gateway = self.gateway(observed, family);
        let metric = observed
            .defaults
            .iter()
            .filter(|d| d.family == family && d.table == TableId::MAIN && d.hops.iter().any(|h| h.0 == index))
            .map(|d| d.metric)
            .min();
        let gateway_ip = gateway.and_then(Gateway::ip);
        let neighbour = observed.neighbours.iter().find(|n| n.dev == index && Some(n.ip) == gateway_ip);
        let mut leg = Leg {
            gateway,
            addresses: own.iter().filter_map(|a| IpNet::new(a.ip, a.prefix_len).ok()).collect(),
            connected: connected(&own),
            metric,
            gateway_mac: neighbour.map(|n| n.mac),
            resolvers: self.resolvers(family),
            connectivity: self.facts.and_then(|f| f.ip[family].connectivity),
            takes_routes: up,
            ..Leg::default()
        };
        leg.link = leg.configured() && up && carrier;
        let at_work = self.facts.is_some_and(|f| f.stage == Stage::Configuring);
        let (state, why) = match (leg.configured(), up, carrier) {
            (true, true, true) => (State::Up, "the link is there"),
            (true, false, _) => (State::Down, "administratively down"),
            (true, true, false) => (State::Down, "no carrier"),
            (false, ..) if at_work => (State::Configuring, "its manager is at work on it"),
            (false, ..) if leg.gateway.is_none() => (State::Absent, "no gateway"),
            (false, ..) => (State::Absent, "no address"),
        };
        (leg.state, leg.why) = (state, why.to_owned());
        leg
    }
}

/// One more than resolv.conf(5) has room for. What a network announces as a resolver is reached through it or not at all,
/// so it is not to announce the whole internet.
const MOST_RESOLVERS: usize = 4;

/// linux/if_arp.h
const ARPHRD_PPP: u16 = 512;
const ARPHRD_RAWIP: u16 = 519;
const ARPHRD_NONE: u16 = 0xFFFE;

fn has_one_end(link: &Link) -> bool {
    matches!(link.arphrd, ARPHRD_PPP | ARPHRD_RAWIP | ARPHRD_NONE)
}

fn usable_address(address: &Address, family: Family) -> bool {
    Family::of(address.ip) == family && address.global && !address.tentative
}

/// What kind of link it is, by its manager's word, else by the kernel's.
fn link_type(link: &Link, facts: Option<&LinkFacts>) -> LinkType {
    let told = facts.and_then(|f| f.profile.as_ref()).map(|p| p.kind.as_str());
    match (told, link.kind.as_deref(), link.arphrd) {
        (Some("802-11-wireless" | "wlan"), _, _) => LinkType::Wifi,
        (Some("gsm" | "cdma" | "bluetooth" | "wwan"), _, _) | (_, Some("wwan" | "rmnet"), _) => {
            LinkType::Wwan
        }
        (Some("pppoe" | "adsl"), _, _) | (_, _, ARPHRD_PPP) => LinkType::Ppp,
        (_, Some("bridge"), _) => LinkType::Bridge,
        (_, Some("bond" | "team"), _) => LinkType::Bond,
        (_, Some("vlan"), _) => LinkType::Vlan,
        (_, Some("tun"), _) => LinkType::Tun,
        (_, _, ARPHRD_RAWIP) => LinkType::Wwan,
        // Without a manager the kernel still names Wi-Fi and modems by systemd's scheme (systemd.net-naming-scheme(7)).
        (None, None, 1) if link.name.as_str().starts_with("wl") => LinkType::Wifi,
        (_, None, _) if link.name.as_str().starts_with("ww") => LinkType::Wwan,
        (_, None | Some("veth"), 1) => LinkType::Ethernet,
        _ => LinkType::Other,
    }
}

/// What is reached on the link itself, each prefix once, with the address to use for it.
fn connected(own: &[&Address]) -> Vec<(IpNet, Option<IpAddr>)> {
    let mut prefixes: BTreeMap<IpNet, Option<IpAddr>> = BTreeMap::new();
    for address in own {
        let net = IpNet::new(address.peer.unwrap_or(address.ip), address.prefix_len);
        let Ok(net) = net.map(|net| net.trunc()) else { continue };
        let is_net = (1..net.max_prefix_len()).contains(&net.prefix_len());
        if is_net || (address.peer.is_some() && net.prefix_len() > 0) {
            // IPv6 chooses its source by RFC 6724, which knows temporary and deprecated addresses.
            let src = address.ip.is_ipv4().then_some(address.ip);
            prefixes.entry(net).or_insert(src);
        }
    }
    prefixes.into_iter().collect()
}

fn unused_sections(config: &Config, used: &[bool], notes: &mut Vec<String>) {
    for (section, _) in config.uplinks.iter().zip(used).filter(|(_, used)| !**used) {
        notes.push(format!("{}: this [[uplink]] matches no interface at present", section.origin));
    }
}

/// Gives each uplink its name and slot.
fn name_and_number(
    mut candidates: Vec<Candidate<'_>>,
    observed: &Observed,
    usages: &BTreeMap<Slot, Usage>,
    found: &mut Found,
) {
    let known = found.slots.clone();
    candidates.sort_by_cached_key(|c| c.seniority(&known));
    let identities = names::identities(&candidates, &known);
    let names = names::choose(&candidates, &identities, observed, &known, &mut found.notes);
    for ((candidate, identity), name) in candidates.iter().zip(&identities).zip(names) {
        let interface = &candidate.link.name;
        let Some(slot) =
            found.slots.assign(identity, &name, interface, &identities, &observed.foreign_tables)
        else {
            found.notes.push(format!("{name}: 63 uplinks are present already; this one is left alone"));
            continue;
        };
        if candidate.profile().is_some() {
            found.slots.told_by_manager(slot);
        }
        let metered = candidate.settings.metered.or(candidate.facts.and_then(|f| f.metered));
        let metered = metered.unwrap_or(candidate.kind == LinkType::Wwan);
        let usual = if metered { Tier::METERED } else { Tier::UNMETERED };
        found.uplinks.push(Uplink {
            name,
            slot,
            dev: Device { index: candidate.link.index, name: interface.clone() },
            manager: candidate.facts.map(|f| f.manager),
            carrier: candidate.link.up && candidate.link.carrier,
            mtu: candidate.link.mtu,
            profile: candidate.facts.and_then(|f| f.profile.clone()),
            tier: candidate.settings.tier.unwrap_or(usual),
            weight: candidate.settings.weight.unwrap_or_default(),
            metered,
            capacity: Directions { down: candidate.settings.download, up: candidate.settings.upload },
            spared: false,
            allowance: candidate.settings.quota().map(|quota| Allowance::of(quota, usages.get(&slot))),
            probes: candidate.settings.probes.clone(),
            limits: Thresholds::DEFAULT.with(&candidate.settings.limits),
            failback: failback(&candidate.settings, metered),
            nat6: candidate.settings.nat6.unwrap_or_default(),
            prefixes: candidate.prefixes(),
            routes: candidate.settings.routes(),
            legs: PerFamily::from_fn(|family| candidate.leg(observed, family)),
        });
    }
}

/// What becomes of running flows: who pays for every byte wants them back on the other uplink.
fn failback(settings: &Settings, metered: bool) -> Failback {
    match settings.failback {
        Some(mode) => mode.with(settings.drain_time),
        None if metered => Failback::Force,
        None => Failback::Keep,
    }
}

/// Whether an uplink was in use when somebody last decided: the balanced default leads over it, or a policy does. Its
/// source rules tell nothing, for one that is unproven, drained or at a portal has them as well, and where all are lost
/// each has them.
fn carried(observed: &Observed, family: Family, uplink: &Uplink) -> bool {
    let mut balanced = observed.kernel.routes.iter().filter(|r| r.family() == family && r.steers());
    balanced.any(|route| route.hops.iter().any(|hop| hop.dev.index == uplink.dev.index))
        || observed.kernel.policies.as_ref().is_some_and(|loaded| loaded.carries(uplink.slot, family))
}

/// What is known of the health of those whose link is there.
fn judge(found: &mut Found, observed: &Observed, health: &Health) {
    for uplink in &mut found.uplinks {
        let (slot, drained) = (uplink.slot, found.slots.is_drained(uplink.slot));
        for family in Family::BOTH {
            if !uplink.legs[family].link {
                continue;
            }
            let carried = carried(observed, family, uplink);
            let leg = &mut uplink.legs[family];
            (leg.state, leg.why) = health.judge(slot, family, drained, carried);
            // A router that announces addresses of its own, and no way out, does not offer the family.
            let private = |net: &IpNet| matches!(net, IpNet::V6(net) if net.addr().is_unique_local());
            let by_hand = health.manual.contains_key(&slot);
            let silent = leg.state == State::Down && !by_hand && !health.has_answered(slot, family);
            if silent && leg.addresses.iter().all(private) {
                (leg.state, leg.why) = (State::Absent, "no public address, and nothing answers".to_owned());
            }
        }
    }
}

/// Two interfaces into one LAN are one way out: of those with the same gateway, gateway's hardware address and
/// prefix, only the one with the best metric carries traffic.
///
/// The prefix counts too, because one provider's two lines can end at routers with one hardware address (VRRP).
fn mark_twins(found: &mut Found) {
    for family in Family::BOTH {
        let mut order: Vec<usize> =
            (0..found.uplinks.len()).filter(|&i| found.uplinks[i].rank(family).is_some()).collect();
        order.sort_by_key(|&i| {
            let uplink = &found.uplinks[i];
            (
                uplink.rank(family),
                uplink.legs[family].metric.is_none(),
                uplink.legs[family].metric,
                uplink.slot,
            )
        });
        let mut ways: Vec<(WayOut, UplinkName)> = Vec::new();
        for i in order {
            let uplink = &mut found.uplinks[i];
            let Some(way) = WayOut::of(&uplink.legs[family]) else { continue };
            match ways.iter().find(|(known, _)| *known == way) {
                Some((_, better)) => {
                    uplink.legs[family].twin = true;
                    found.notes.push(format!(
                        "{}: leads to the same {family} gateway as {better}, so it stands by",
                        uplink.name
                    ));
                }
                None => ways.push((way, uplink.name.clone())),
            }
        }
    }
}

/// What two interfaces into one LAN have in common.
#[derive(PartialEq)]
struct WayOut {
    gateway: IpAddr,
    mac: super::net::MacAddr,
    prefix: Option<IpNet>,
}

impl WayOut {
    fn of(leg: &Leg) -> Option<Self> {
        let gateway = leg.gateway?.ip()?;
        let prefix = leg.connected.iter().map(|(net, _)| *net).find(|net| net.contains(&gateway));
        let prefix = prefix.or(leg.connected.first().map(|(net, _)| *net));
        Some(WayOut { gateway, mac: leg.gateway_mac?, prefix })
    }
}
