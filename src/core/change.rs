//! One step from what is to what should be, and the command that does the same.
//!
//! That one text is the log line, the output of `uplinkctl plan`, the golden file and the context of an error.

use std::fmt;
use std::net::IpAddr;

use super::diff::{Move, Whose};
use super::net::{Device, Mark};
use super::nft::{FragmentName, FragmentTable, LoadedPolicies, POLICY_TABLE, PolicyTable, Ruleset, TABLE};
use super::policy::running::Claims;
use super::route::Route;
use super::rule::Rule;
use super::sysctl::Sysctl;

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Write a setting.
    SetSysctl(Sysctl, String),
    /// Load our nft table in place of whatever carries its name.
    LoadRuleset(Ruleset),
    /// Give running flows that no mark has claimed the mark of the uplink whose address they use.
    AdoptFlows(IpAddr, Mark),
    /// Add a route, or replace the one with its key.
    PutRoute(Route),
    /// Add a rule; the kernel has no replace for rules.
    AddRule(Rule),
    /// Delete one copy of a rule.
    DelRule(Rule),
    /// Delete a route.
    DelRoute(Route),
    /// Delete our nft table.
    DropRuleset,
    /// Load our table of policies, over the one that is loaded.
    LoadPolicies(PolicyTable, Option<LoadedPolicies>),
    /// Take running flows away from where policies do not let them be any more.
    ClaimFlows(Claims),
    /// Delete our table of policies.
    DropPolicies,
    /// Load the table of a fragment; in place of ours that is loaded, or where there is none.
    LoadFragment(FragmentTable, bool),
    /// Delete the table of a fragment.
    DropFragment(FragmentName),
    /// Have systemd-resolved ask a link's resolvers for whatever no other link claims, or not.
    AskResolvers(Device, bool),
    /// End what runs over an uplink that others take over from, so that it goes on, or begins anew, over them.
    MoveFlows(Move),
    /// End what runs over an address that an uplink had.
    EndFlows(IpAddr),
}

impl fmt::Display for Change {
    /// One line; `{:#}` writes out the whole nft table as well, for a shell.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ip =
            |f: &mut fmt::Formatter<'_>, family: super::net::Family| write!(f, "ip {} ", family.ip_flag());
        match self {
            Change::SetSysctl(sysctl, value) => write!(f, "sysctl -w {sysctl}={value}"),
            Change::LoadRuleset(ruleset) if f.alternate() => {
                write!(f, "nft -f - <<'END'\n{}END", ruleset.text())
            }
            Change::LoadRuleset(ruleset) => {
                write!(f, "nft -f - # table inet {TABLE}, generation {}:", ruleset.generation())?;
                for (name, slot) in &ruleset.uplinks {
                    write!(f, " {name}={}", slot.mark())?;
                }
                let doors = ruleset.forwards.doors.iter();
                doors
                    .filter(|door| !door.forwards.is_empty())
                    .try_for_each(|door| write!(f, " {}:forwards={}", door.device, door.forwards.len()))?;
                let also = [
                    (!ruleset.groups.pairs.is_empty(), " groups"),
                    (ruleset.firewall.is_some(), " firewall"),
                ];
                also.iter().filter(|(is_so, _)| *is_so).try_for_each(|(_, word)| f.write_str(word))?;
                ruleset.narrow.iter().try_for_each(|(name, mtu)| write!(f, " {name}:mtu={mtu}"))?;
                let also = [(ruleset.restore_own, " restore-own"), (ruleset.keep_private, " keep-private")];
                also.iter().filter(|(is_so, _)| *is_so).try_for_each(|(_, word)| f.write_str(word))
            }
            Change::AdoptFlows(ip, mark) => {
                write!(f, "conntrack -U --mark 0 --reply-dst {ip} # or --orig-dst {ip}: set mark {mark}")
            }
            Change::PutRoute(route) => {
                ip(f, route.family())?;
                write!(f, "route replace {}", route.spec())
            }
            Change::AddRule(rule) => {
                ip(f, rule.family)?;
                write!(f, "rule add {}", rule.spec())
            }
            Change::DelRule(rule) => {
                ip(f, rule.family)?;
                write!(f, "rule del {}", rule.spec())
            }
            Change::DelRoute(route) => {
                ip(f, route.family())?;
                write!(f, "route del {}", route.spec())
            }
            Change::DropRuleset => write!(f, "nft delete table inet {TABLE}"),
            Change::LoadPolicies(table, over) if f.alternate() => {
                write!(f, "nft -f - <<'END'\n{}END", table.text(over.as_ref()))
            }
            Change::LoadPolicies(table, _) => write!(f, "nft -f - # {table}"),
            Change::ClaimFlows(_) => {
                f.write_str("conntrack -D # what runs by other uplinks than policies enforce")
            }
            Change::DropPolicies => write!(f, "nft delete table inet {POLICY_TABLE}"),
            Change::LoadFragment(table, over) if f.alternate() => {
                // A word that no fragment has.
                let end = table.generation().chain();
                write!(f, "nft -f - <<'{end}'\n{}{end}", table.text(*over))
            }
            Change::LoadFragment(table, _) => write!(f, "nft -f - # {table}"),
            Change::DropFragment(name) => write!(f, "nft delete table inet {}", name.table()),
            Change::AskResolvers(dev, asked) => {
                write!(f, "resolvectl default-route {dev} {}", if *asked { "yes" } else { "no" })
            }
            Change::MoveFlows(Move { family, slot, whose, addresses, .. }) => {
                write!(f, "conntrack -D -f {family} --mark {}", slot.mark())?;
                match whose {
                    Whose::Policy(_) => {}
                    Whose::All | Whose::Usual(_) => {
                        addresses.iter().try_for_each(|ip| write!(f, "; ss -K -t src {ip}"))?;
                    }
                }
                match whose {
                    Whose::All => Ok(()),
                    Whose::Usual(_) => f.write_str(" # without the flows of policies"),
                    Whose::Policy(name) => write!(f, " # only the flows of policy {name}"),
                }
            }
            Change::EndFlows(ip) => {
                let delete = format!("conntrack -D -f {}", super::net::Family::of(*ip));
                write!(f, "{delete} --reply-dst {ip}; {delete} --orig-dst {ip}; ss -K -t src {ip}")
            }
        }
    }
}
