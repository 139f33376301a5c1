//! A world in the text form of scenarios, so that one that a property has found can become one.

use std::fmt::{self, Formatter};

use time::format_description::well_known::Rfc3339;
use uplinkd::core::balance::Choice;
use uplinkd::core::layout::Slot;
use uplinkd::core::net::{Family, IfIndex};
use uplinkd::core::observed::{Link, LinkFacts, Manager, Stage};
use uplinkd::core::plan::Customer;

use super::fib::{FibLeg, FibRoute, FibRule};
use super::world::World;

impl fmt::Debug for World {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        for link in &self.links {
            self.link(f, link)?;
        }
        for route in &self.routes {
            self.route(f, route)?;
        }
        for rule in &self.rules {
            show_rule(f, rule)?;
        }
        for (family, on) in [("ipv4", self.forwards.v4), ("ipv6", self.forwards.v6)] {
            if on {
                writeln!(f, "forwarding {family}")?;
            }
        }
        if let Some(time) = self.time {
            writeln!(f, "time {}", time.format(&Rfc3339).map_err(|_| std::fmt::Error)?)?;
        }
        for (key, value) in &self.sysctls {
            writeln!(f, "sysctl {key} {value}")?;
        }
        for e in self.slots.entries() {
            writeln!(f, "slot {}: {} {} on {}", e.slot, e.name, e.identity, e.interface)?;
        }
        let health = &self.health;
        if health.probing {
            writeln!(f, "probing")?;
        }
        for ((slot, family), opinion) in &health.opinions {
            let standing = format!("{:?}", opinion.standing).to_lowercase();
            let proven = if opinion.proven { "" } else { " unanswered" };
            writeln!(f, "health {slot} {family} {standing}{proven}: {}", opinion.why)?;
        }
        for (slot, manual) in &health.manual {
            writeln!(f, "manual {slot} {}", manual.as_str())?;
        }
        for (whose, slot, family) in &health.leaving {
            let whose = match whose {
                Customer::All => " all",
                Customer::Usual => "",
                Customer::Policy(name) => &format!(" {name}"),
            };
            writeln!(f, "leaving {slot} {family}{whose}")?;
        }
        for ip in &health.vacated {
            writeln!(f, "vacated {ip}")?;
        }
        for (slot, usage) in &self.usages {
            writeln!(f, "usage {slot} {}B", usage.used.0)?;
        }
        for family in Family::BOTH {
            let Choice { order, full } = &self.choices[family];
            let list = |slots: Vec<&Slot>| slots.iter().map(|slot| format!(" {slot}")).collect::<String>();
            writeln!(f, "choice {family}{}", list(order.iter().collect()))?;
            writeln!(f, "full {family}{}", list(full.iter().collect()))?;
        }
        writeln!(f, "# method {:?}", self.config.balance.method())?;
        writeln!(f, "# drained {:?}, all-down {:?}", self.drained, self.config.all_down)?;
        for section in &self.config.uplinks {
            writeln!(f, "# {:?} {:?}", section.matcher, section.settings)?;
        }
        Ok(())
    }
}

impl World {
    fn dev(&self, index: IfIndex) -> String {
        self.name(index).map_or_else(|| format!("if{}", index.0), |name| name.to_string())
    }

    fn link(&self, f: &mut Formatter<'_>, link: &Link) -> fmt::Result {
        let flags = [(link.up, "UP"), (link.carrier, "LOWER_UP")];
        let flags: Vec<_> = flags.iter().filter(|(on, _)| *on).map(|(_, flag)| *flag).collect();
        write!(f, "{}: {}: <{}>", link.index.0, link.name, flags.join(","))?;
        match (link.mac, link.arphrd) {
            (Some(mac), _) => write!(f, " ether {mac}")?,
            (None, 512) => write!(f, " ppp")?,
            (None, 519) => write!(f, " rawip")?,
            (None, _) => write!(f, " none")?,
        }
        if link.mtu != 1500 {
            write!(f, " mtu {}", link.mtu)?;
        }
        link.kind.iter().try_for_each(|kind| write!(f, " kind {kind}"))?;
        link.controller.iter().try_for_each(|index| write!(f, " master {}", self.dev(*index)))?;
        writeln!(f)?;
        for a in self.addresses.iter().filter(|a| a.dev == link.index) {
            let inet = if a.ip.is_ipv4() { "inet" } else { "inet6" };
            write!(f, "    {inet} {}/{}", a.ip, a.prefix_len)?;
            writeln!(
                f,
                "{}{}{}",
                if a.secondary { " secondary" } else { "" },
                if a.tentative { " tentative" } else { "" },
                if a.deprecated { " deprecated" } else { "" }
            )?;
        }
        for n in self.neighbours.iter().filter(|n| n.dev == link.index) {
            writeln!(f, "    neigh {} lladdr {}", n.ip, n.mac)?;
        }
        if let Some(asked) = self.asked.get(&link.index) {
            writeln!(f, "    resolved default-route {}", if *asked { "yes" } else { "no" })?;
        }
        self.managed.iter().filter(|facts| facts.interface == link.name).try_for_each(|m| facts(f, m))
    }

    fn route(&self, f: &mut Formatter<'_>, route: &FibRoute) -> fmt::Result {
        if route.family() == Family::V6 {
            write!(f, "-6 ")?;
        }
        let leg = |f: &mut Formatter<'_>, leg: &FibLeg| {
            leg.via.iter().try_for_each(|via| write!(f, " via {via}"))?;
            write!(f, " dev {}{}", self.dev(leg.dev), if leg.onlink { " onlink" } else { "" })
        };
        let key = &route.key;
        write!(f, "{}{}", if route.legs.is_empty() { "unreachable " } else { "" }, key.dest)?;
        write!(f, " table {} metric {}", key.table, key.metric)?;
        for hop in &route.legs {
            leg(f, hop)?;
        }
        writeln!(f)
    }
}

fn facts(f: &mut Formatter<'_>, facts: &LinkFacts) -> fmt::Result {
    let by = match facts.manager {
        Manager::NetworkManager => "nm",
        Manager::Networkd => "networkd",
    };
    if let Some(p) = &facts.profile {
        let stage = if facts.stage == Stage::Configuring { "activating" } else { "activated" };
        writeln!(f, "    {by} connection {:?} {} {} {stage}", p.id, p.uuid, p.kind)?;
    }
    let metered = facts.metered.map(|metered| if metered { "metered yes" } else { "metered no" });
    let words = [metered, facts.vpn.then_some("vpn"), facts.shared.then_some("shared")];
    words.iter().flatten().try_for_each(|word| writeln!(f, "    {by} {word}"))?;
    for (n, ip) in [(4, &facts.ip.v4), (6, &facts.ip.v6)] {
        ip.gateway.iter().try_for_each(|ip| writeln!(f, "    {by} IP{n}.GATEWAY {ip}"))?;
        ip.resolvers.iter().try_for_each(|ip| writeln!(f, "    {by} IP{n}.DNS {ip}"))?;
        ip.offered.iter().try_for_each(|ip| writeln!(f, "    {by} DHCP{n}.routers {ip}"))?;
        ip.gateway.iter().try_for_each(|ip| writeln!(f, "    nm IP{n}.GATEWAY {ip}"))?;
        ip.offered.iter().try_for_each(|ip| writeln!(f, "    nm DHCP{n}.routers {ip}"))?;
        ip.delegated.iter().try_for_each(|net| writeln!(f, "    nm DHCP{n}.ip6_prefix {net}"))?;
    }
    let pairs = facts.settings.iter().flat_map(|place| &place.pairs);
    pairs.into_iter().try_for_each(|(k, v)| writeln!(f, "    {by} user.data uplinkd.{k}={v}"))
}

fn show_rule(f: &mut Formatter<'_>, rule: &FibRule) -> fmt::Result {
    writeln!(f, "{}{}", if rule.family == Family::V6 { "-6 " } else { "" }, rule.text)
}
