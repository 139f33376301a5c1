//! `uplinkctl dnsmasq`.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Failure, configuration, print};
use crate::core::net::Family;
use crate::core::nft::POLICY_TABLE;
use crate::core::policy::{Domain, Names, Policy};

/// From so many on, dnsmasq is slow: each costs it some 8 microseconds for each address that it notes (nft 1.0.6 and 1.1.3,
/// `add element` beside a map of 100 000: 0.6 to 1.2 s, alone 4 ms).
const MANY: usize = 5_000;

/// Prints what has dnsmasq note the addresses of names (dnsmasq(8), `--nftset`; from 2.87 on).
pub(super) fn run(file: &Path) -> Result<(), Failure> {
    let config = configuration(file)?;
    let domains: BTreeSet<&str> =
        config.policies.iter().flat_map(|policy| &policy.traffic.domain).map(Domain::as_str).collect();
    let lines: String = domains.into_iter().map(|domain| line(domain, &config.policies)).collect();
    let slow = slow(config.prefixes.count).filter(|_| !lines.is_empty()).unwrap_or_default();
    print(&format!(
        "# By `uplinkctl dnsmasq`: anew after each change of a policy's name or domains.\n{slow}{lines}"
    ))
}

/// What is said where dnsmasq would keep everybody waiting.
fn slow(elements: usize) -> Option<String> {
    (elements >= MANY).then(|| {
        format!(
            "# Beware: it answers nobody while it notes an address, and reads all that nftables\n\
             # has of prefixes for that, {elements} of policies among them. With 100000 it takes a second.\n"
        )
    })
}

/// The line for a domain, with the sets of all who are for it: dnsmasq goes by the longest that fits a name, and by one alone.
fn line(domain: &str, policies: &[Policy]) -> String {
    let is_for = |policy: &&Policy| policy.traffic.domain.iter().any(|other| other.has(domain));
    let names = policies.iter().filter(is_for).map(|policy| Names::of(&policy.name));
    let sets = names.flat_map(|names| {
        Family::BOTH.map(|family| format!("{}#inet#{POLICY_TABLE}#{}", family.version(), names.set(family)))
    });
    format!("nftset=/{domain}/{}\n", sets.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn many_prefixes_are_said_to_be_slow() {
        assert_eq!(slow(MANY - 1), None);
        let said = slow(100_000).unwrap();
        assert!(
            said.contains("100000 of policies") && said.lines().all(|line| line.starts_with('#')),
            "{said}"
        );
    }

    #[test]
    fn a_name_of_several_policies_is_noted_for_all_of_them() {
        let text = "[[policy]]\nname = 'a'\nmatch.domain = 'example.com'\n[[policy]]\nname = 'b'\nmatch.domain = 'www.example.com'\n";
        let policies = config::parse(Path::new("uplinkd.toml"), text).unwrap().policies;
        let sets = |names: &[&str]| {
            let of = |name: &&str| {
                let names = Names::of(name);
                [4, 6].map(|n| format!("{n}#inet#uplinkd_policy#names_{names}_{n}")).join(",")
            };
            names.iter().map(of).collect::<Vec<_>>().join(",")
        };
        let line = |domain| line(domain, &policies);
        assert_eq!(line("example.com"), format!("nftset=/example.com/{}\n", sets(&["a"])));
        assert_eq!(line("www.example.com"), format!("nftset=/www.example.com/{}\n", sets(&["a", "b"])));
    }
}
