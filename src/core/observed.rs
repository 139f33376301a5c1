//! What is: one immutable snapshot of the kernel and of the network managers.
//!
//! Facts only. Which interface is an uplink is decided in [`super::discover`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::diff::Whose;
use super::health::Connectivity;
use super::layout::Slot;
use super::net::{Device, Family, IfIndex, IfName, MacAddr, Metric, PerFamily, Pref, TableId};
use super::nft::{FragmentName, Generation, LoadedPolicies};
use super::policy::{Cgroup, Moment};
use super::route::Route;
use super::rule::Rule;
use super::sysctl::Sysctl;
use super::tending::Tending;

/// Everything that a round of planning sees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Interfaces of the kernel.
    pub links: Vec<Link>,
    /// Addresses of the kernel, both families.
    pub addresses: Vec<Address>,
    /// Foreign default routes, any table.
    pub defaults: Vec<DefaultRoute>,
    /// Other foreign routes of main that can tell of a tunnel.
    pub others: Vec<OtherRoute>,
    /// Neighbours whose hardware address is known.
    pub neighbours: Vec<Neighbour>,
    /// Rules that are not ours.
    pub foreign_rules: Vec<ForeignRule>,
    /// Tables of ours in which somebody else has routes.
    pub foreign_tables: BTreeSet<TableId>,
    /// Whether the machine forwards packets of a family that arrive on some interface.
    pub forwards: PerFamily<bool>,
    /// What is ours in the kernel.
    pub kernel: Kernel,
    /// What the network managers say, one entry for each interface that a manager has; [`Observed::said_of`] chooses.
    pub managed: Vec<LinkFacts>,
    /// What DHCP clients without a manager were offered.
    pub offers: Vec<Offer>,
    /// What systemd-networkd does to routes and rules of others; none where it does not run.
    pub networkd: Option<Tending>,
    /// What time it is, where the machine is.
    pub moment: Moment,
    /// The control groups of the units for which policies ask.
    pub cgroups: Vec<Cgroup>,
    /// Managers, buses and offers that could not be asked or read, in words for the status.
    pub unheard: Vec<String>,
}

/// What carries our tag, plus the current values of the few sysctls that we may set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kernel {
    /// Our rules; a list, because the kernel can hold one twice.
    pub rules: Vec<Rule>,
    /// Our routes.
    pub routes: Vec<Route>,
    /// The generation of our nft table, where it is loaded.
    pub ruleset: Option<Generation>,
    /// Our table of policies, where it is loaded.
    pub policies: Option<LoadedPolicies>,
    /// The tables of fragments that are loaded.
    pub fragments: BTreeMap<FragmentName, Generation>,
    /// What nft has refused, and what it said; nothing in the kernel tells.
    pub refused: BTreeMap<FragmentName, (Generation, String)>,
    /// Values as read from `/proc/sys`.
    pub sysctls: BTreeMap<Sysctl, String>,
    /// What those sysctls held before we first wrote them.
    pub originals: BTreeMap<Sysctl, String>,
    /// Whether systemd-resolved asks a link's resolvers for whatever no other link claims (its `DefaultRoute`); of
    /// links that have resolvers.
    pub asked: BTreeMap<Device, bool>,
    /// The links that we had taken out of that.
    pub unasked: BTreeSet<IfIndex>,
    /// Uplinks whose running flows were moved already; nothing in the kernel tells.
    pub moved: BTreeSet<(Slot, Family, Whose)>,
    /// Addresses that are gone and whose flows were ended already; nothing in the kernel tells.
    pub vacated: BTreeSet<IpAddr>,
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: IfIndex,
    /// Its name.
    pub name: IfName,
    /// `IFLA_INFO_KIND`: `bridge`, `veth`, `wireguard`, `tun`, …; none for hardware.
    pub kind: Option<String>,
    /// The hardware type (`ARPHRD_*`, linux/if_arp.h): 1 Ethernet, 512 PPP, 772 loopback, …
    pub arphrd: u16,
    /// Its hardware address, where it has one of six bytes.
    pub mac: Option<MacAddr>,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    /// Has a carrier (`IFF_LOWER_UP`).
    pub carrier: bool,
    /// The bridge, bond or VRF that it belongs to.
    pub controller: Option<IfIndex>,
    /// The longest packet that it carries, in bytes.
    pub mtu: u32,
}

impl Link {
    /// The machine's own, `lo` (linux/if_arp.h).
    pub fn is_loopback(&self) -> bool {
        const ARPHRD_LOOPBACK: u16 = 772;
        self.arphrd == ARPHRD_LOOPBACK
    }

    /// A VPN or an overlay: kinds of `IFLA_INFO_KIND` that carry somebody's tunnel.
    pub fn is_tunnel(&self) -> bool {
        const TUNNELS: [&str; 17] = [
            "wireguard",
            "tun",
            "ipip",
            "ip6tnl",
            "sit",
            "gre",
            "gretap",
            "ip6gre",
            "ip6gretap",
            "erspan",
            "vti",
            "vti6",
            "xfrm",
            "vxlan",
            "geneve",
            "amneziawg",
            "ovpn",
        ];
        self.kind.as_deref().is_some_and(|kind| TUNNELS.contains(&kind))
    }
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The interface.
    pub dev: IfIndex,
    /// The local address.
    pub ip: IpAddr,
    /// The length of its prefix; of the peer's where there is one.
    pub prefix_len: u8,
    /// The other end of a point-to-point link.
    pub peer: Option<IpAddr>,
    /// `IFA_F_SECONDARY`: IPv4 a further address of one prefix; IPv6 a temporary address (RFC 8981).
    pub secondary: bool,
    /// `IFA_F_TENTATIVE` or `IFA_F_DADFAILED`: not usable yet.
    pub tentative: bool,
    /// Global scope.
    pub global: bool,
    /// `IFA_F_DEPRECATED`: its preferred lifetime is over (RFC 4862), so nothing new should begin from it.
    pub deprecated: bool,
}

/// A default route that is not ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultRoute {
    /// Its family.
    pub family: Family,
    /// Its table.
    pub table: TableId,
    /// Its metric.
    pub metric: Metric,
    /// Its legs: one, several where it is multipath, none where it is `unreachable` or the like.
    pub hops: Vec<(IfIndex, Option<IpAddr>)>,
}

/// A foreign route of main that a tunnel may have made: to a large part of all addresses, or to a single host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherRoute {
    /// Where it leads to.
    pub dest: IpNet,
    /// Its legs, as those of a default.
    pub hops: Vec<(IfIndex, Option<IpAddr>)>,
}

impl OtherRoute {
    /// Whether a route to there, of this routing protocol (linux/rtnetlink.h), is one. What the network itself made of a
    /// lease, an advertisement or a redirect is no tunnel's way to its server.
    pub fn matters(dest: IpNet, protocol: u8) -> bool {
        const REDIRECT: u8 = 1;
        const KERNEL: u8 = 2;
        const RA: u8 = 9;
        const DHCP: u8 = 16;
        let by_network = [REDIRECT, KERNEL, RA, DHCP].contains(&protocol);
        let covers = (1..=Family::of(dest.addr()).covering_len()).contains(&dest.prefix_len());
        covers || (dest.prefix_len() == dest.max_prefix_len() && !by_network)
    }
}

/// A neighbour with its hardware address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// The interface.
    pub dev: IfIndex,
    /// The neighbour.
    pub ip: IpAddr,
    /// Its hardware address.
    pub mac: MacAddr,
}

/// A rule that is not ours, as far as it can matter to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignRule {
    /// Its family.
    pub family: Family,
    /// Its preference.
    pub pref: Pref,
    /// Takes every packet, or every packet without some mark, and does not leave default routes to later rules.
    pub catch_all: bool,
    /// The packet mark and mask that it asks for.
    pub fwmark: Option<(u32, u32)>,
    /// The table that it sends to.
    pub table: Option<TableId>,
    /// It decides over packets that come in by this interface.
    pub iif: Option<IfName>,
    /// In the words of `ip rule`, for messages.
    pub text: String,
}

/// A way out that a DHCP client was offered, whether or not it made a route of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The interface.
    pub interface: IfName,
    /// The address that came with it: without it on the interface, the offer is of the past.
    pub address: IpAddr,
    /// The gateway.
    pub router: IpAddr,
}

/// What a network manager says of one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkFacts {
    /// The interface that carries IP (not the modem's control port).
    pub interface: IfName,
    /// Which manager says so.
    pub manager: Manager,
    /// The profile that is active on it; none where the manager only shows what somebody else set up, for such a
    /// profile is made anew each time and nothing can be known again by it. A .network file is networkd's profile.
    pub profile: Option<Profile>,
    /// How far the manager is with it.
    pub stage: Stage,
    /// The manager's opinion, where it has one.
    pub metered: Option<bool>,
    /// It is a VPN, or carries one.
    pub vpn: bool,
    /// It shares a connection with others (`method=shared`): a LAN, not an uplink. False where the profile is private
    /// to another user.
    pub shared: bool,
    /// What it says of each family.
    pub ip: PerFamily<IpFacts>,
    /// What is set for us where the link is configured; the later place wins, key by key.
    pub settings: Vec<Place>,
    /// What of its configuration could not be read, in words for the status.
    pub notes: Vec<String>,
}

/// A place with settings for us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Where it is, in words for messages.
    pub origin: String,
    /// The settings as they are written there, key without any prefix.
    pub pairs: BTreeMap<String, String>,
}

/// A network manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Manager {
    /// NetworkManager.
    NetworkManager,
    /// systemd-networkd.
    #[serde(rename = "systemd-networkd")]
    Networkd,
}

impl Manager {
    /// All of them.
    pub const ALL: [Manager; 2] = [Manager::NetworkManager, Manager::Networkd];
}

impl fmt::Display for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Manager::NetworkManager => "NetworkManager",
            Manager::Networkd => "systemd-networkd",
        })
    }
}

impl Observed {
    /// Who speaks for an interface: whoever has a profile on it rather than who only shows what it sees, of these who
    /// is further with it, and in doubt NetworkManager, which takes a link only where it was not told to leave it.
    pub fn said_of(&self, interface: &IfName) -> Option<&LinkFacts> {
        let said = self.managed.iter().filter(|facts| facts.interface == *interface);
        said.min_by_key(|facts| (facts.profile.is_none(), Reverse(facts.stage), facts.manager))
    }

    /// Whether more than one manager configures an interface: each undoes what the other does.
    pub fn is_fought_over(&self, interface: &IfName) -> bool {
        let of_it = |facts: &&LinkFacts| facts.interface == *interface;
        let at_it = |facts: &&LinkFacts| facts.profile.is_some() && facts.stage != Stage::Inactive;
        self.managed.iter().filter(of_it).filter(at_it).count() > 1
    }
}

/// A manager's profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// What people call it: free text, or the path of the .network file.
    pub id: String,
    /// What identifies it: a UUID; or the name of the .network file, which moves from `/run` to `/etc`, and the
    /// interface, since one file can be for many.
    pub uuid: String,
    /// The manager's word for the kind of connection: NetworkManager's `802-3-ethernet`, `802-11-wireless`, `gsm`,
    /// `pppoe`, …, networkd's `ether`, `wlan`, `wwan`, `ppp`, ….
    pub kind: String,
}

/// How far a manager is with an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Not in use.
    Inactive,
    /// Under way.
    Configuring,
    /// In use.
    Active,
}

/// What a manager says of one family on an interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IpFacts {
    /// The gateway that it uses.
    pub gateway: Option<IpAddr>,
    /// The gateways that the network offers, used or not, best first: DHCP option 121's default, else `routers`.
    pub offered: Vec<IpAddr>,
    /// The resolvers that it uses on this link.
    pub resolvers: Vec<IpAddr>,
    /// What its own check says; none where it does not check.
    pub connectivity: Option<Connectivity>,
    /// The prefixes that the network delegates over this link (RFC 8415, IA_PD), for other links to use.
    pub delegated: Vec<Ipv6Net>,
}
