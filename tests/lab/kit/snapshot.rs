//! Everything in the kernel that is not uplinkd's, as text to compare byte for byte.

use super::machine::Machine;

/// The protocol number that tags what uplinkd puts into the kernel.
const PROTOCOL: [&str; 2] = ["proto 177", "proto uplinkd"];

impl Machine {
    /// Routes and rules of both families and all tables, nftables and network sysctls, without uplinkd's own.
    ///
    /// What changes by itself (lifetimes, counters) is left out, so that two snapshots of an undisturbed machine are equal.
    #[track_caller]
    pub fn foreign_snapshot(&self) -> String {
        let script = "
            for family in -4 -6; do
                echo \"# ip $family rule\"; ip -N $family rule
                echo \"# ip $family route\"; ip -N -o $family route show table all
                echo \"# ip $family nexthop\"; ip -N -o $family nexthop
            done
            echo '# nft'
            nft list tables | while read -r _ family name; do
                [ \"$family $name\" = 'inet uplinkd' ] || nft -s list table \"$family\" \"$name\"
            done
            echo '# sysctl'
            sysctl -a 2>/dev/null | grep -E '^net\\.(ipv[46]\\.(conf|route|fib|ip_forward|neigh)|core|netfilter)' |
                grep -vE 'stable_secret|nf_conntrack_(count|max|buckets)|flow_limit|_cache_|\\.gc_|base_reachable_time'
        ";
        let text = self.sh(script).ok();
        let lines = text.lines().filter(|line| !is_ours(line));
        lines.fold(String::new(), |mut all, line| {
            all.push_str(&without_lifetime(line));
            all.push('\n');
            all
        })
    }
}

fn is_ours(line: &str) -> bool {
    PROTOCOL.iter().any(|mark| {
        line.find(mark).is_some_and(|at| {
            let rest = line.get(at + mark.len()..).unwrap_or_default();
            rest.is_empty() || rest.starts_with([' ', '\t', '\\'])
        })
    })
}

/// Leave out `expires 1793sec`.
fn without_lifetime(line: &str) -> String {
    let mut words = Vec::new();
    let mut rest = line.split(' ');
    while let Some(word) = rest.next() {
        if word == "expires" {
            rest.next();
        } else {
            words.push(word);
        }
    }
    words.join(" ")
}
