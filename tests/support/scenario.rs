//! The folders under tests/scenarios: a configuration, what is there, and what uplinkd does about it.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use uplinkd::config::{self, Config};
use uplinkd::core::change::Change;
use uplinkd::core::net::Family;
use uplinkd::core::nft::{Ruleset, Translation};
use uplinkd::core::uplink::{Leg, Uplink};
use uplinkd::status::PolicyStatus;

use super::kernel::Memory;
use super::round::{Daemon, Round};
use super::text;
use super::world::World;

/// A folder.
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    /// What was there when uplinkd last looked; none where it starts on this machine for the first time.
    pub(crate) before: Option<World>,
    pub(crate) world: World,
}

/// Every scenario, by name.
pub(crate) fn all() -> Vec<Scenario> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let entries = fs::read_dir(&root).expect("tests/scenarios").map(|entry| entry.expect("an entry").path());
    let mut folders: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    folders.sort();
    assert!(!folders.is_empty(), "no scenarios in {}", root.display());
    folders.into_iter().map(Scenario::load).collect()
}

impl Scenario {
    fn load(folder: PathBuf) -> Self {
        let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
        let config = |file: &str| {
            let config = config::parse(Path::new(file), &fs::read_to_string(folder.join(file)).ok()?);
            Some(config.unwrap_or_else(|problems| panic!("{name}: {problems}")))
        };
        let now = config("config.toml").expect("config.toml");
        let earlier = config("before.toml").unwrap_or_else(|| now.clone());
        // By the path that is the same on every machine.
        let place = folder.strip_prefix(env!("CARGO_MANIFEST_DIR")).expect("a scenario of ours");
        let fragments = |main| config::fragments(&place.join(main));
        let now = Config { fragments: fragments("config.toml"), ..now };
        let earlier = Config { fragments: fragments("before/config.toml"), ..earlier };
        let world = |file: &str, config| {
            let text = fs::read_to_string(folder.join(file)).ok()?;
            Some(World { config, ..text::parse(&text) })
        };
        let before = world("before.txt", earlier);
        let world = world("observed.txt", now).unwrap_or_else(|| panic!("{name}: observed.txt"));
        Scenario { name, folder, before, world }
    }

    /// What uplinkd does, as plan.txt tells it.
    pub(crate) fn run(&self) -> String {
        let mut daemon = Daemon { slots: self.world.slots.clone() };
        let mut kernel = Memory::default();
        if let Some(before) = &self.before {
            daemon.slots = before.slots.clone();
            kernel.become_world(before);
            daemon.round(before, &mut kernel);
        }
        kernel.become_world(&self.world);
        // What was drained meanwhile.
        for entry in self.world.slots.entries() {
            daemon.slots.drain(entry.slot, entry.drained);
        }
        let round = daemon.round(&self.world, &mut kernel);
        let again = daemon.round(&self.world, &mut kernel);
        assert_eq!(again.changes, [], "a second round has nothing left to do");
        told(&round)
    }
}

fn told(Round { plan, changes }: &Round) -> String {
    let mut text = String::new();
    for uplink in &plan.uplinks {
        let _ = writeln!(text, "{}", uplink_line(uplink));
    }
    for family in Family::BOTH {
        let names: Vec<_> = plan.active[family].iter().filter_map(|&slot| plan.name_of(slot)).collect();
        let names: Vec<_> = names.iter().map(|name| name.as_str()).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(" ") };
        let blocked =
            if plan.blocks(family) { "; nothing leaves by the managers' own default routes" } else { "" };
        let _ = writeln!(text, "active {family}: {names}{blocked}");
    }
    for policy in PolicyStatus::all(plan) {
        let PolicyStatus { name, method, on_failure, ipv4, ipv6, .. } = policy;
        let (ipv4, ipv6) = (ipv4.said(), ipv6.said());
        let _ = writeln!(text, "policy {name}: {method}, on failure {on_failure}; ipv4 {ipv4}; ipv6 {ipv6}");
    }
    text.extend(plan.notes.iter().map(|note| format!("note: {note}\n")));
    text.push('\n');
    for change in changes {
        let _ = writeln!(text, "{change}");
        text += &translations(change);
        text += &forwards(change);
        text += &policies(change);
    }
    text
}

/// What the change says of IPv6 sources, where that is more than usual: the marks are the same in each table.
fn translations(change: &Change) -> String {
    let Change::LoadRuleset(ruleset) = change else { return String::new() };
    if ruleset.nat6.values().all(|one| *one == Translation::default()) {
        return String::new();
    }
    chains(ruleset, &["nat6_", "translated_"])
}

/// What the change says of port forwards, groups and the firewall.
fn forwards(change: &Change) -> String {
    match change {
        Change::LoadRuleset(ruleset) => chains(ruleset, &["forward", "group_", "firewall_"]),
        _ => String::new(),
    }
}

/// The chains of a table whose names begin with one of these.
fn chains(ruleset: &Ruleset, beginnings: &[&str]) -> String {
    let table = ruleset.text();
    let meant = |chain: &&str| beginnings.iter().any(|beginning| chain.starts_with(beginning));
    let chains = table.split("\tchain ").filter(meant);
    chains.map(|chain| format!("\tchain {}", chain.trim_end_matches("}\n").trim_end()) + "\n").collect()
}

/// What the change makes of each policy: how they are matched is the same wherever they are.
fn policies(change: &Change) -> String {
    let Change::LoadPolicies(table, over) = change else { return String::new() };
    let text = table.text(over.as_ref());
    let chains = text.split("\tchain ").filter(|chain| chain.starts_with("policy_"));
    let mut chains: String = chains.map(|chain| format!("\tchain {}", chain.trim_end()) + "\n").collect();
    // With what is in the maps that they look into.
    let whole = table.text(None);
    for map in whole.split("\tmap ").skip(1) {
        let elements = map.split_once("elements = ").and_then(|(_, rest)| rest.lines().next());
        let name = map.split(' ').next().unwrap_or_default();
        chains = chains.replace(&format!("vmap @{name}\n"), &format!("vmap {}\n", elements.unwrap_or("{}")));
    }
    chains
}

/// Why a leg stands as it does where nobody has probed it.
const USUAL: [&str; 6] = [
    "the link is there",
    "no carrier",
    "administratively down",
    "no gateway",
    "no address",
    "its manager is at work on it",
];

fn uplink_line(uplink: &Uplink) -> String {
    let Uplink { name, slot, dev, tier, weight, legs, metered, .. } = uplink;
    let metered = if *metered { " metered" } else { "" };
    let leg = |leg: &Leg| {
        let gateway = leg.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
        let twin = if leg.twin { " twin" } else { "" };
        // The usual reasons need not be told.
        let why = if USUAL.contains(&leg.why.as_str()) { String::new() } else { format!(" ({})", leg.why) };
        format!("{}{gateway}{twin}{why}", leg.state)
    };
    let (v4, v6) = (leg(&legs.v4), leg(&legs.v6));
    format!("uplink {name}: slot {slot} dev {dev} tier {tier} weight {weight}{metered}; ipv4 {v4}; ipv6 {v6}")
}
