//! What a .network file and its drop-ins say, as far as we read them.
//!
//! Pure. Decides which setting wins where several files have it. Refuses to know what the keys of our own section mean.

use std::collections::BTreeMap;

use crate::core::observed::Place;
use crate::core::systemd::{Setting, boolean, settings};

/// The section that is ours. systemd leaves sections that begin with `X-` to others, and says nothing of them: who
/// misspells it would never know, so letters may be of either case.
const OURS: &str = "X-Uplinkd";

/// The settings of a link, in the order in which they were read.
#[derive(Debug, Default)]
pub(super) struct Network<'t> {
    lines: Vec<Line<'t>>,
}

#[derive(Debug)]
struct Line<'t> {
    path: &'t str,
    setting: Setting,
}

impl<'t> Network<'t> {
    /// Reads files, path and text, the one that counts least first.
    pub(super) fn of(files: &'t [(String, String)]) -> Self {
        let of_file = |(path, text): &'t (String, String)| {
            settings(text).into_iter().map(|setting| Line { path, setting })
        };
        Network { lines: files.iter().flat_map(of_file).collect() }
    }

    /// The settings for us, by file. An empty value takes back what was said before it, as everywhere in systemd.
    pub(super) fn places(&self) -> Vec<Place> {
        let mut places: Vec<Place> = Vec::new();
        for Line { path, setting: Setting { section, key, value } } in &self.lines {
            if !section.eq_ignore_ascii_case(OURS) {
                continue;
            }
            if value.is_empty() {
                places.iter_mut().for_each(|place| drop(place.pairs.remove(key)));
                continue;
            }
            if places.last().is_none_or(|place| place.origin != *path) {
                places.push(Place { origin: (*path).to_owned(), pairs: BTreeMap::new() });
            }
            places.last_mut().into_iter().for_each(|p| drop(p.pairs.insert(key.clone(), value.clone())));
        }
        places
    }

    /// It serves a LAN: gives out addresses, or hides those who come in by it behind its own (`DHCPServer=` and
    /// `IPMasquerade=`, systemd.network(5)).
    pub(super) fn shares(&self) -> bool {
        let yes = |key| {
            self.last("Network", key).is_some_and(|value| !value.is_empty() && boolean(value) != Some(false))
        };
        yes("DHCPServer") || yes("IPMasquerade")
    }

    /// networkd was told not to take a default route from router advertisements (`UseGateway=`, systemd.network(5)).
    pub(super) fn leaves_routers(&self) -> bool {
        self.last("IPv6AcceptRA", "UseGateway").and_then(boolean) == Some(false)
    }

    fn last(&self, section: &str, key: &str) -> Option<&str> {
        let mut settings = self.lines.iter().rev().map(|line| &line.setting);
        settings.find(|s| s.section == section && s.key == key).map(|s| s.value.as_str())
    }
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
        let dropin = "weight=1\n[X-Uplinkd]\nweight=4\nweight=5\n[X-Uplink]\nname=no\n[x-uplinkd]\ntier=3\n";
        assert_eq!(
            ours(&[network, dropin]),
            [
                said("/0", "tier", "2"),
                said("/0", "weight", "3"),
                said("/1", "tier", "3"),
                said("/1", "weight", "5")
            ]
        );
    }

    #[test]
    fn an_empty_value_takes_back_what_was_said() {
        let texts =
            ["[X-Uplinkd]\nweight=3\ntier=2\n", "[X-Uplinkd]\nweight=\n", "[X-Uplinkd]\ntier=4\ntier="];
        assert_eq!(ours(&texts), []);
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
