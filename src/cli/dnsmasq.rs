//! `uplinkctl dnsmasq`.

use std::path::Path;

use super::{Failure, configuration, print};
use crate::core::net::Family;
use crate::core::nft::POLICY_TABLE;
use crate::core::policy::{Names, Policy};

/// Prints what has dnsmasq note the addresses of names (dnsmasq(8), `--nftset`; from 2.87 on).
pub(super) fn run(file: &Path) -> Result<(), Failure> {
    let config = configuration(file)?;
    let lines: String = config.policies.iter().filter_map(line).collect();
    print(&format!(
        "# By `uplinkctl dnsmasq`: anew after each change of a policy's name or domains.\n{lines}"
    ))
}

fn line(policy: &Policy) -> Option<String> {
    let domains = &policy.traffic.domain;
    let names = Names::of(&policy.name);
    let set = |family| {
        let number = if family == Family::V4 { 4 } else { 6 };
        format!("{number}#inet#{POLICY_TABLE}#{}", names.set(family))
    };
    let all: String = domains.iter().map(|domain| format!("/{domain}")).collect();
    (!domains.is_empty()).then(|| format!("nftset={all}/{}\n", Family::BOTH.map(set).join(",")))
}
