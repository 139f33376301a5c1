//! What the machine does for the hosts behind it: whether it forwards, and for whom.
//!
//! Says which interfaces are LANs' and which settings forwarding needs. How packets are rewritten is said in
//! [`crate::core::nft`].

use std::collections::{BTreeMap, BTreeSet};

use super::Observed;
use crate::config::{self, Config, Enable, Forward, Router};
use crate::core::forward::PortForward;
use crate::core::layout::Slot;
use crate::core::net::{Family, IfName, UplinkName};
use crate::core::nft::{Door, Firewall, Forwards};
use crate::core::observed::Link;
use crate::core::sysctl::Sysctl;
use crate::core::uplink::Uplink;

/// What is done for the hosts behind the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouterPlan {
    /// What the configuration says.
    pub enable: Enable,
    /// Anything is done for what is forwarded.
    pub takes_part: bool,
    /// Private IPv4 sources get the address of the uplink.
    pub masquerade: bool,
    /// The interfaces behind which hosts are.
    pub lans: Vec<IfName>,
    /// What comes in for hosts there, by uplink.
    pub forwards: BTreeMap<Slot, Vec<PortForward>>,
}

impl RouterPlan {
    pub(super) fn new(
        config: &Config,
        observed: &Observed,
        uplinks: &[Uplink],
        multihomed: bool,
        notes: &mut Vec<String>,
    ) -> Self {
        let router = &config.router;
        let forwards = observed.forwards.v4 || observed.forwards.v6;
        let takes_part = match router.enable {
            Enable::Off => false,
            Enable::On => true,
            // With a single uplink nothing in how the machine forwards changes, unless somebody asks for it.
            Enable::Auto => forwards && (multihomed || asks_for_more(config)),
        };
        let mut plan = RouterPlan {
            enable: router.enable,
            takes_part,
            masquerade: router.masquerade != Some(false),
            ..RouterPlan::default()
        };
        if takes_part || config.firewall.enable {
            plan.lans = lans(router, observed, uplinks);
            let none = |text: &str| format!("[router] lan: no interface {text} at present that is no uplink");
            notes.extend(router.lans_away(&plan.lans).map(none));
        }
        if !takes_part && !config.groups.is_empty() {
            notes.push(
                "[[group]] is without effect: nothing is done for what this machine forwards".to_owned(),
            );
        }
        for forward in &config.forwards {
            match plan.obstacle(forward.what.family(), observed) {
                Some(obstacle) => {
                    notes.push(format!("{}: {} is not forwarded: {obstacle}", forward.origin, forward.what))
                }
                None => plan.forward(forward, uplinks, notes),
            }
        }
        plan
    }

    /// Why nothing of a family goes on to a host behind the machine.
    fn obstacle(&self, family: Family, observed: &Observed) -> Option<String> {
        match self.enable {
            Enable::Off => Some("[router] has enable = false".to_owned()),
            Enable::On => None,
            Enable::Auto => (!observed.forwards[family]).then(|| {
                format!("this machine does not forward {family}; [router] with enable = true has it do so")
            }),
        }
    }

    /// Puts a port forward on its uplinks.
    fn forward(&mut self, forward: &Forward, uplinks: &[Uplink], notes: &mut Vec<String>) {
        let present: BTreeSet<&UplinkName> = uplinks.iter().map(|uplink| &uplink.name).collect();
        for name in forward.uplinks.iter().filter(|name| !present.contains(name)) {
            notes.push(format!("{}: there is no uplink {name} at present", forward.origin));
        }
        let is_meant =
            |uplink: &&Uplink| forward.uplinks.is_empty() || forward.uplinks.contains(&uplink.name);
        for uplink in uplinks.iter().filter(is_meant) {
            self.forwards.entry(uplink.slot).or_default().push(forward.what);
        }
    }

    /// What is let in by uplinks. Also one without a gateway is closed: a lease may lack it for a moment, or for good.
    pub(super) fn firewall(&self, config: &Config, uplinks: &[Uplink]) -> Option<Firewall> {
        let config::Firewall { enable, allow, quiet } = &config.firewall;
        let uplinks: Vec<IfName> = uplinks.iter().map(|uplink| uplink.dev.name.clone()).collect();
        (*enable && !uplinks.is_empty()).then(|| Firewall {
            uplinks,
            allow: allow.clone(),
            log: !quiet,
            lans: self.lans.clone(),
        })
    }

    /// The same for our nftables table.
    pub(super) fn doors(&self, uplinks: &[Uplink]) -> Forwards {
        if self.forwards.is_empty() {
            return Forwards::default();
        }
        let door = |uplink: &Uplink| {
            let forwards = self.forwards.get(&uplink.slot)?.clone();
            let addresses = Family::BOTH.iter().flat_map(|&family| &uplink.legs[family].addresses);
            let addresses = addresses.map(|net| net.addr()).collect();
            Some(Door { slot: uplink.slot, device: uplink.dev.name.clone(), addresses, forwards })
        };
        Forwards {
            doors: uplinks.iter().filter(|u| !u.leads_nowhere()).filter_map(door).collect(),
            lans: self.lans.clone(),
        }
    }

    /// What has the machine forward, where it was told to.
    ///
    /// What it is in a family that it does not forward yet counts as well: the kernel deletes what routers have
    /// advertised as it begins to.
    pub(super) fn sysctls(&self, uplinks: &[Uplink], observed: &Observed) -> Vec<(Sysctl, String)> {
        if self.enable != Enable::On {
            return Vec::new();
        }
        let kernel = &observed.kernel;
        let was =
            |key: &Sysctl| kernel.originals.get(key).or(kernel.sysctls.get(key)).map(|text| text.trim());
        let advertised = uplinks.iter().map(|uplink| Sysctl::AcceptRa(uplink.dev.name.clone()));
        let advertised = advertised.filter(|key| was(key) == Some("1")).map(|key| (key, "2".to_owned()));
        let forwarding = Family::BOTH.map(|family| (Sysctl::Forwarding(family), "1".to_owned()));
        advertised.chain(forwarding).collect()
    }
}

/// Whether something is said that means work with a single uplink as well.
fn asks_for_more(config: &Config) -> bool {
    config.router.masquerade == Some(true) || !config.forwards.is_empty() || !config.groups.is_empty()
}

/// The interfaces of LANs: those that are named, else all that have an address of their own and lead nowhere else.
fn lans(config: &Router, observed: &Observed, uplinks: &[Uplink]) -> Vec<IfName> {
    let is_uplink = |link: &Link| uplinks.iter().any(|uplink| uplink.dev.index == link.index);
    let has_address = |link: &Link| observed.addresses.iter().any(|a| a.dev == link.index && a.global);
    let is_vpn =
        |link: &Link| link.is_tunnel() || observed.said_of(&link.name).is_some_and(|facts| facts.vpn);
    let is_lan = |link: &&Link| {
        let usual = || has_address(link) && !is_vpn(link) && link.controller.is_none();
        !link.is_loopback() && !is_uplink(link) && config.names_lan(&link.name).unwrap_or_else(usual)
    };
    // In order of names: the order of links is the kernel's whim, and the table would be loaded anew for it.
    let named: BTreeSet<&IfName> = observed.links.iter().filter(is_lan).map(|link| &link.name).collect();
    named.into_iter().cloned().collect()
}
