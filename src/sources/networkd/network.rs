//! What a .network file and its drop-ins say, as far as we read them.
//!
//! Pure. Decides which lines count (systemd.syntax(7)) and which setting wins where several files have it. Refuses to
//! know what the keys of our own section mean.

use std::collections::BTreeMap;

use crate::core::observed::Place;

/// The section that is ours. systemd leaves sections that begin with `X-` to others, and says nothing of them.
const OURS: &str = "X-Uplinkd";

/// The settings of a link, in the order in which they were read.
#[derive(Debug, Default)]
pub(super) struct Network<'t> {
    lines: Vec<Line<'t>>,
}

#[derive(Debug)]
struct Line<'t> {
    path: &'t str,
    section: String,
    key: String,
    value: String,
}

impl<'t> Network<'t> {
    /// Reads files, path and text, the one that counts least first.
    pub(super) fn of(files: &'t [(String, String)]) -> Self {
        let mut lines = Vec::new();
        for (path, text) in files {
            let mut section = String::new();
            for line in joined(text) {
                if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                    section = name.to_owned();
                } else if let Some((key, value)) = line.split_once('=') {
                    let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
                    lines.push(Line { path, section: section.clone(), key, value });
                }
            }
        }
        Network { lines }
    }

    /// The settings for us, by file. An empty value takes back what was said before it, as everywhere in systemd.
    pub(super) fn places(&self) -> Vec<Place> {
        let mut places: Vec<Place> = Vec::new();
        for line in self.lines.iter().filter(|line| line.section == OURS) {
            if line.value.is_empty() {
                places.iter_mut().for_each(|place| drop(place.pairs.remove(&line.key)));
                continue;
            }
            if places.last().is_none_or(|place| place.origin != line.path) {
                places.push(Place { origin: line.path.to_owned(), pairs: BTreeMap::new() });
            }
            let place = places.last_mut();
            place.into_iter().for_each(|p| drop(p.pairs.insert(line.key.clone(), line.value.clone())));
        }
        places
    }

    /// It serves a LAN: gives out addresses, or hides those who come in by it behind its own (`DHCPServer=` and
    /// `IPMasquerade=`, systemd.network(5)).
    pub(super) fn shares(&self) -> bool {
        let yes = |key| self.last("Network", key).is_some_and(|value| !value.is_empty() && !is_no(value));
        yes("DHCPServer") || yes("IPMasquerade")
    }

    /// networkd was told not to take a default route from router advertisements (`UseGateway=`, systemd.network(5)).
    pub(super) fn leaves_routers(&self) -> bool {
        self.last("IPv6AcceptRA", "UseGateway").is_some_and(is_no)
    }

    fn last(&self, section: &str, key: &str) -> Option<&str> {
        let of_it = |line: &&Line<'_>| line.section == section && line.key == key;
        self.lines.iter().rev().find(of_it).map(|line| line.value.as_str())
    }
}

/// The words for false of systemd.syntax(7).
fn is_no(value: &str) -> bool {
    ["0", "no", "n", "false", "f", "off"].iter().any(|word| value.eq_ignore_ascii_case(word))
}

/// The lines that count, those that end with a backslash with what follows them.
fn joined(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open = String::new();
    let told = |line: &&str| !line.is_empty() && !line.starts_with(['#', ';']);
    for line in text.lines().map(str::trim).filter(told) {
        match line.strip_suffix('\\') {
            Some(part) => open = open + part + " ",
            None => lines.push(std::mem::take(&mut open) + line),
        }
    }
    if !open.is_empty() {
        lines.push(open.trim_end().to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(texts: &[&str]) -> Vec<(String, String)> {
        texts.iter().enumerate().map(|(n, text)| (format!("/{n}"), (*text).to_owned())).collect()
    }

    /// Where each setting of ours stands.
    fn ours(texts: &[&str]) -> Vec<(String, String, String)> {
        let files = files(texts);
        let places = Network::of(&files).places();
        let pairs = places.iter().flat_map(|p| p.pairs.iter().map(|(k, v)| (&p.origin, k, v)));
        pairs.map(|(origin, key, value)| (origin.clone(), key.clone(), value.clone())).collect()
    }

    fn said(origin: &str, key: &str, value: &str) -> (String, String, String) {
        (origin.to_owned(), key.to_owned(), value.to_owned())
    }

    #[test]
    fn only_our_section_is_ours_and_each_setting_knows_its_file() {
        let network = "[Match]\nName=eth1\nweight=9\n\n[X-Uplinkd]\n# a = comment\n; another\n weight = 3 \ntier=2\n\
                       no equals sign\n[Network]\ntier=7\n";
        let dropin = "weight=1\n[X-Uplinkd]\nweight=4\nweight=5\n[x-uplinkd]\nname=no\n";
        assert_eq!(
            ours(&[network, dropin]),
            [said("/0", "tier", "2"), said("/0", "weight", "3"), said("/1", "weight", "5")]
        );
    }

    #[test]
    fn an_empty_value_takes_back_what_was_said() {
        let texts =
            ["[X-Uplinkd]\nweight=3\ntier=2\n", "[X-Uplinkd]\nweight=\n", "[X-Uplinkd]\ntier=4\ntier="];
        assert_eq!(ours(&texts), []);
    }

    #[test]
    fn long_lines_go_on() {
        let text = "[X-Uplinkd]\nprobes=icmp:192.0.2.1;\\\n# in between\n  icmp:192.0.2.2\nname=a\\";
        assert_eq!(
            ours(&[text]),
            [said("/0", "name", "a"), said("/0", "probes", "icmp:192.0.2.1; icmp:192.0.2.2")]
        );
    }

    #[test]
    fn who_serves_a_lan_and_who_leaves_routers() {
        let is = |text: &str| {
            let files = files(&[text]);
            let network = Network::of(&files);
            (network.shares(), network.leaves_routers())
        };
        assert_eq!(is("[Network]\nDHCPServer=yes\n"), (true, false));
        assert_eq!(is("[Network]\nIPMasquerade=both\n"), (true, false));
        assert_eq!(is("[Network]\nDHCPServer=yes\nDHCPServer=Off\nIPMasquerade=no\n"), (false, false));
        assert_eq!(is("[DHCPServer]\nDHCPServer=yes\n[Network]\nIPMasquerade=\n"), (false, false));
        assert_eq!(is("[IPv6AcceptRA]\nUseGateway=no\n[DHCPv4]\nUseGateway=yes\n"), (false, true));
        assert_eq!(is("\0\u{fffd}[[]]\n=\n[\n]\n\\\n"), (false, false));
    }
}
