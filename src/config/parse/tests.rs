mod router;

use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::config::matcher::LinkType;
use crate::config::{AllDown, FailbackMode, Subject};
use crate::core::balance::{Method, Rate};
use crate::core::health::Thresholds;
use crate::core::net::{IfName, MacAddr, Tier, UplinkName, Weight};
use crate::core::policy::{OnFailure, Same, Stick, Way};

mod quota;

const FULL: &str = r#"
# The cable in the cellar.
[[uplink]]
match = { interface = "eth0" }
name = "fiber"
weight = 0x10

[[uplink]]
match.interface = ["wwan*", "ppp?"]
match.connection = "Mobile"
match.type = "wwan"
match.mac = "02-00-5E-00-53-01"
tier = 3
metered = true
ignore = false

[[uplink]]
weight = 256
[uplink.match]
interface = "eth0"
"#;

fn read(text: &str) -> Config {
    parse(Path::new("x.toml"), text).unwrap_or_else(|problems| panic!("{problems}"))
}

fn problems(text: &str) -> String {
    match parse(Path::new("x.toml"), text) {
        Ok(config) => panic!("{config:?}"),
        Err(problems) => problems.to_string(),
    }
}

/// Places and messages of a text's problems, without the cited lines.
fn brief(text: &str) -> Vec<String> {
    let all = problems(text);
    all.lines().filter_map(|line| line.strip_prefix("x.toml:")).map(str::to_owned).collect()
}

/// What is said of a setting in an otherwise sound section.
fn setting(line: &str) -> Vec<String> {
    brief(&format!("[[uplink]]\nmatch.interface = \"eth0\"\n{line}\n"))
}

/// What is said of a criterion in an otherwise sound section.
fn criterion(line: &str) -> Vec<String> {
    brief(&format!("[[uplink]]\n[uplink.match]\n{line}\n"))
}

#[test]
fn nothing_is_a_configuration() {
    for text in ["", "\n", "# only a comment", "\u{feff}", "uplink = []"] {
        assert_eq!(read(text), Config::default());
    }
}

#[test]
fn health_is_configured() {
    let config = read(
        r#"
all-down = "block"
[[uplink]]
match.interface = "eth0"
probes = ["icmp:192.0.2.1", "tcp:[2001:db8::1]:443", "http://x.example/ status=204"]
quorum = 2
probe-interval = "500ms"
probe-timeout = "2s"
down-after = 4
up-after = 6
max-loss = 10
max-latency = "200ms"
max-jitter = "50ms"
window = "1m"
hold = "0s"
failback = "drain"
drain-time = "1h"
[[uplink]]
match.interface = "eth1"
probes = "none"
"#,
    );
    assert_eq!(config.all_down, AllDown::Block);
    let [first, second] = &config.uplinks[..] else { panic!("{config:?}") };
    let Settings { probes, limits, failback, drain_time, .. } = &first.settings;
    let probes: Vec<String> = probes.iter().flatten().map(ToString::to_string).collect();
    assert_eq!(probes, ["icmp:192.0.2.1", "tcp:[2001:db8::1]:443", "http://x.example/ status=204"]);
    assert_eq!((*failback, *drain_time), (Some(FailbackMode::Drain), Some(Duration::from_secs(3600))));
    let wanted = Thresholds {
        interval: Duration::from_millis(500),
        timeout: Duration::from_secs(2),
        quorum: 2,
        down_after: 4,
        up_after: 6,
        max_loss: 10,
        max_latency: Duration::from_millis(200),
        max_jitter: Duration::from_millis(50),
        window: Duration::from_secs(60),
        hold: Duration::ZERO,
        ..Thresholds::DEFAULT
    };
    assert_eq!(Thresholds::DEFAULT.with(limits), wanted);
    assert_eq!(second.settings.probes, Some(Vec::new()));
}

#[test]
fn balancing_is_configured() {
    for method in Method::ALL {
        assert_eq!(read(&format!("[balance]\nmethod = \"{}\"", method.as_str())).balance.method(), method);
    }
    let config = read(
        r#"
balance.method = "overflow"
[[uplink]]
match.interface = "eth0"
download = "109.3M"
upload = "800k"
"#,
    );
    assert_eq!(config.balance.method(), Method::Overflow);
    assert_eq!(config.policies, []);
    let Settings { download, upload, .. } = config.uplinks[0].settings;
    assert_eq!((download, upload), (Some(Rate(109_300_000)), Some(Rate(800_000))));
    assert_eq!(read("[balance]").balance.method(), Method::Weighted);
}

#[test]
fn what_no_route_can_do_is_a_policy_for_all_behind_the_others() {
    let text = |balance: &str| format!("[balance]\n{balance}\n[[policy]]\nname = 'mail'\nmatch.ports = 25\n");
    let last = |balance: &str| {
        let config = read(&text(balance));
        assert_eq!((config.balance.method(), config.policies.len()), (Method::Weighted, 2));
        config.policies[1].clone()
    };
    let stick = Stick { to: Same::ClientAndDestination, idle: Duration::from_secs(60) };
    let policy = last("method = 'persistence'\nsame = 'client-and-destination'\nidle = '1m'");
    assert_eq!((policy.way, policy.on_failure), (Way::Persistence(stick), OnFailure::Default));
    assert!(policy.traffic.is_empty() && policy.uplinks.is_empty());
    assert_eq!(
        (policy.name.as_str(), UplinkName::new(&policy.name)),
        ("[balance]", None),
        "nobody else's name"
    );
    assert_eq!(last("method = 'persistence'").way, Way::Persistence(Stick::default()));
    assert_eq!(last("method = 'fastest'").way, Way::Fastest);
    let policy = last("method = 'enforced'\nuplink = 'dsl'");
    assert_eq!((policy.way, policy.on_failure), (Way::Enforced, OnFailure::Block));
    assert_eq!(policy.uplinks, [UplinkName::new("dsl").unwrap()]);
}

#[test]
fn wrong_balancing_is_told() {
    let methods = Way::ALLOWED;
    for (text, told) in [
        ("[balance]\nmethod = \"quickest\"", format!("2:10: method: \"quickest\" is not allowed; {methods}")),
        ("[balance]\nmethod = 'enforced'", "2:10: method: enforced needs the key uplink beside it".into()),
        (
            "[balance]\nmethod = 'fastest'\nuplink = 'dsl'",
            "3:10: uplink: only allowed with method = \"enforced\"".into(),
        ),
        (
            "[balance]\nmethod = 'priority'\nidle = '1m'",
            "3:8: idle: only allowed with method = \"persistence\"".into(),
        ),
        ("[balance]\nuplink = 'dsl'", "2:10: uplink: only allowed with method = \"enforced\"".into()),
        ("[balance]\nmethod = 1", format!("2:10: method: 1 is not allowed; {methods} (in quotes)")),
        (
            "[balance]\nmethods = 1",
            "2:1: methods: no such key here; did you mean `method`? allowed: method, uplink, same, idle".into(),
        ),
        ("[balance]\nall-down = 1", "2:1: all-down: no such key here; allowed: method, uplink, same, idle".into()),
        (
            "method = \"priority\"",
            "1:1: method: no such key here; allowed: all-down, balance, firewall, forward, group, policy, router, uplink"
                .into(),
        ),
        (
            "balance = \"priority\"",
            "1:11: balance: \"priority\" is not allowed; a section with that name in [ ]".into(),
        ),
        (
            "[[balance]]\nmethod = \"priority\"",
            "1:1: balance: [[balance]] is not allowed; a section with that name in [ ]".into(),
        ),
    ] {
        assert_eq!(brief(text), [told], "{text}");
    }
    let rate = "a rate from 8k to 1000G in bits per second, like 800k, 16.5M or 1G";
    for (line, told) in [
        ("download = \"100\"", format!("3:12: download: \"100\" is not allowed; {rate}")),
        ("download = 100", format!("3:12: download: 100 is not allowed; {rate} (in quotes)")),
        ("upload = \"20m\"", format!("3:10: upload: \"20m\" is not allowed; {rate}")),
    ] {
        assert_eq!(setting(line), [told], "{line}");
    }
}

#[test]
fn wrong_health_is_told() {
    assert_eq!(brief("all-down = \"stop\"\n"), ["1:12: all-down: \"stop\" is not allowed; keep or block"]);
    for (line, told) in [
        ("probe-interval = \"5\"", "\"5\" is not allowed; a time from 200ms to 1h"),
        ("probe-interval = 5", "5 is not allowed; a time from 200ms to 1h, like 500ms, 2s or 5m (in quotes)"),
        ("probe-interval = \"100ms\"", "\"100ms\" is not allowed; a time from 200ms to 1h"),
        ("quorum = 0", "0 is not allowed; a whole number from 1 to 16"),
        ("max-loss = 101", "101 is not allowed; percent from 1 to 100"),
        ("failback = \"never\"", "\"never\" is not allowed; keep, drain or force"),
        ("hold = \"99999999999999999999h\"", "is not allowed; a time from 0s to 10m"),
    ] {
        assert!(setting(line)[0].contains(told), "{line}: {:?}", setting(line));
    }
    let told = setting("probes = [\"icmp:1.1.1.1\", \"udp:1.1.1.1:7\"]");
    assert_eq!(told.len(), 1);
    assert!(
        told[0]
            .starts_with("3:27: probes: \"udp:1.1.1.1:7\" is not allowed; none, or at most 16 of icmp:HOST"),
        "{told:?}"
    );
    // As uplinkctl set writes them.
    let told = setting("probes = \"icmp:1.1.1.1; udp:1.1.1.1:7\"");
    assert!(told[0].starts_with("3:10: probes: udp:1.1.1.1:7 is not allowed; none, or"), "{told:?}");
}

#[test]
fn every_key_is_read() {
    let config = read(FULL);
    let lines: Vec<String> = config.uplinks.iter().map(|section| section.origin.to_string()).collect();
    assert_eq!(lines, ["x.toml:3", "x.toml:8", "x.toml:17"]);
    let [fiber, mobile, _] = &config.uplinks[..] else { panic!("{config:?}") };
    assert_eq!(
        fiber.settings,
        Settings { name: UplinkName::new("fiber"), weight: Weight::new(16), ..Settings::default() }
    );
    assert_eq!(
        mobile.settings,
        Settings { tier: Tier::new(3), metered: Some(true), ignore: Some(false), ..Settings::default() }
    );
    let ppp0 = IfName::new("ppp0").unwrap();
    let mut link = Subject {
        interface: &ppp0,
        connection_id: Some("Mobile"),
        connection_uuid: None,
        kind: LinkType::Wwan,
        mac: Some(MacAddr([2, 0, 0x5e, 0, 0x53, 1])),
    };
    assert!(mobile.matcher.matches(&link));
    assert_eq!(config.settings(&link), mobile.settings);
    let eth0 = IfName::new("eth0").unwrap();
    link.interface = &eth0;
    assert_eq!(config.settings(&link), Settings { weight: Weight::new(256), ..fiber.settings.clone() });
}

#[test]
fn line_endings_do_not_matter() {
    let mut windows = read(&FULL.replace('\n', "\r\n"));
    assert_eq!(windows, read(FULL));
    windows = read(&format!("\u{feff}{FULL}"));
    assert_eq!(windows, read(FULL));
    assert_eq!(
        problems("[[uplink]]\r\nmatch = { type = \"ppp\" }\r\nweight = 0\r\n"),
        "x.toml:3:10: weight: 0 is not allowed; a whole number from 1 to 256\n    \
         3 | weight = 0\n      \
           |          ^"
    );
}

#[test]
fn all_problems_are_told_at_once_with_their_lines() {
    let text = r#"
[[uplink]]
match = { interface = "eth0", typ = "wifi" }
wieght = 2
weight = 300

[[uplink]]
name = "Glasfaser Süd"
tier = "first"
"#;
    let expected = r#"x.toml:3:31: typ: no such key here; did you mean `type`? allowed: interface, connection, type, mac
    3 | match = { interface = "eth0", typ = "wifi" }
      |                               ^^^
x.toml:4:1: wieght: no such key here; did you mean `weight`? allowed: match, name, weight, tier, metered, download, upload, quota, quota-day, quota-soft, ignore, probes, quorum, probe-interval, probe-timeout, down-after, up-after, max-loss, max-latency, max-jitter, window, hold, failback, drain-time, nat6, prefix, routes
    4 | wieght = 2
      | ^^^^^^
x.toml:5:10: weight: 300 is not allowed; a whole number from 1 to 256
    5 | weight = 300
      |          ^^^
x.toml:7:1: match: missing; a table with at least one of interface, connection, type, mac
    7 | [[uplink]]
      | ^^^^^^^^^^
x.toml:8:8: name: "Glasfaser Süd" is not allowed; 1 to 32 of A-Z a-z 0-9 . _ - beginning with a letter, and not main, local, default, all or none
    8 | name = "Glasfaser Süd"
      |        ^^^^^^^^^^^^^^^
x.toml:9:8: tier: "first" is not allowed; a whole number from 1 to 255 (without quotes)
    9 | tier = "first"
      |        ^^^^^^^"#;
    assert_eq!(problems(text), expected);
}

#[test]
fn numbers_are_whole_and_in_range() {
    for value in ["0", "257", "-1", "1.5", "true", "99999999999999999999", "[2]", "{}", "nan", "1979-05-27"] {
        assert_eq!(
            setting(&format!("weight = {value}")),
            [format!("3:10: weight: {value} is not allowed; a whole number from 1 to 256")]
        );
    }
    assert_eq!(
        setting("weight = \"2\""),
        ["3:10: weight: \"2\" is not allowed; a whole number from 1 to 256 (without quotes)"]
    );
    for value in ["0", "256"] {
        assert_eq!(
            setting(&format!("tier = {value}")),
            [format!("3:8: tier: {value} is not allowed; a whole number from 1 to 255")]
        );
    }
}

#[test]
fn flags_are_true_or_false() {
    assert_eq!(setting("metered = 1"), ["3:11: metered: 1 is not allowed; true or false"]);
    assert_eq!(
        setting("ignore = \"yes\""),
        ["3:10: ignore: \"yes\" is not allowed; true or false (without quotes)"]
    );
}

#[test]
fn names_are_well_formed() {
    for value in ["\"\"", "\"main\"", "\"a b\"", "\"a\\u0000\"", "'''a'b'''", "[\"a\"]"] {
        let [problem] = &setting(&format!("name = {value}"))[..] else { panic!("{value}") };
        let expected = format!("3:8: name: {value} is not allowed; {}", UplinkName::ALLOWED);
        assert_eq!(*problem, expected);
    }
    assert!(setting("name = 5")[0].ends_with(" (in quotes)"));
}

#[test]
fn a_match_says_something() {
    const WANTED: &str = "a table with at least one of interface, connection, type, mac";
    let names = Key::names(&CRITERIA).join(", ");
    assert!(WANTED.ends_with(&names), "the list is that of the keys");
    assert_eq!(brief("[[uplink]]\nname = \"a\""), [format!("1:1: match: missing; {WANTED}")]);
    assert_eq!(brief("[[uplink]]\nmatch = {}"), [format!("2:9: match: {{}} is not allowed; {WANTED}")]);
    assert_eq!(
        brief("[[uplink]]\n[uplink.match]"),
        [format!("2:1: match: [uplink.match] is not allowed; {WANTED}")]
    );
    assert_eq!(brief("[[uplink]]\nmatch = 'eth0'"), [format!("2:9: match: 'eth0' is not allowed; {WANTED}")]);
}

#[test]
fn criteria_are_well_formed() {
    let interface = "an interface name, with * and ? for what may vary, or a list of them";
    for value in ["\"\"", "\"eth[01]\"", "\"a b\"", "[]", "\"sixteen-bytes-xx\"", "{}", "false"] {
        let [problem] = &criterion(&format!("interface = {value}"))[..] else { panic!("{value}") };
        let expected = format!("3:13: interface: {value} is not allowed; {interface}");
        assert_eq!(problem.trim_end_matches(" (in quotes)"), expected);
    }
    assert_eq!(
        criterion("interface = [\"eth0\", 5,\n  \"\", [\"eth1\"]]"),
        [
            format!("3:22: interface: 5 is not allowed; {interface} (in quotes)"),
            format!("4:3: interface: \"\" is not allowed; {interface}"),
            format!("4:7: interface: [\"eth1\"] is not allowed; {interface}"),
        ]
    );
    assert_eq!(
        criterion("connection = ''\ntype = 'dsl'\nmac = '02:00'"),
        [
            "3:14: connection: '' is not allowed; the name or the UUID of a NetworkManager connection, or the path of a .network file",
            "4:8: type: 'dsl' is not allowed; one of ethernet, wifi, wwan, ppp, bridge, bond, vlan, tun, other",
            "5:7: mac: '02:00' is not allowed; a hardware address like 02:00:5e:00:53:01",
        ]
    );
}

#[test]
fn only_sections_stand_at_the_top() {
    assert_eq!(
        brief("weight = 2\nuplinks = 1"),
        [
            "1:1: weight: no such key here; allowed: all-down, balance, firewall, forward, group, policy, router, uplink",
            "2:1: uplinks: no such key here; did you mean `uplink`? allowed: all-down, balance, firewall, forward, group, policy, router, uplink",
        ]
    );
    let wanted = "is not allowed; sections that begin with [[uplink]]";
    assert_eq!(brief("[uplink]\nweight = 2"), [format!("1:1: uplink: [uplink] {wanted}")]);
    assert_eq!(brief("uplink = 5"), [format!("1:10: uplink: 5 {wanted}")]);
    assert_eq!(brief("uplink = [1]"), [format!("1:11: uplink: 1 {wanted}")]);
}

#[test]
fn what_is_not_toml_is_told_line_by_line() {
    assert_eq!(
        brief(
            "[[uplink]]\nmatch = { interface = 'eth0' }\nname = fiber\nmetered = yes\nweight = 2\nweight = 0\ntier =\nhello world"
        ),
        [
            "3:8: neither true nor false, and texts stand in quotes",
            "4:11: neither true nor false, and texts stand in quotes",
            "6:1: duplicate key",
            "7:7: string values must be quoted, expected literal string",
            "8:7: key with no value, expected `=`",
        ]
    );
    assert_eq!(
        problems("name = \"a\0\u{1b}[31m\"\n"),
        "x.toml:1:10: invalid basic string, expected non-double-quote visible characters, `\\`\n    \
         1 | name = \"a\u{fffd}\u{fffd}[31m\"\n      \
           |          ^^"
    );
}

#[test]
fn a_name_belongs_to_one_link() {
    let files = [
        ("a.toml", "[[uplink]]\nmatch.interface = 'eth0'\nname = 'fiber'\n"),
        ("b.toml", "\n[[uplink]]\nname = 'fiber'\nmatch.interface = 'eth1'\n"),
    ];
    let sources = files.map(|(path, text)| Source::new(Path::new(path), text));
    assert_eq!(
        resolve(&sources, Vec::new(), &Nothing).unwrap_err().to_string(),
        "b.toml:3:8: name: fiber is taken at a.toml:3:8; each uplink needs a name of its own\n    \
         3 | name = 'fiber'\n      \
           |        ^^^^^^^"
    );
}

#[test]
fn a_later_section_with_the_same_match_renames() {
    let section = |interface: &str, name: &str| {
        format!("[[uplink]]\nmatch.interface = '{interface}'\nname = '{name}'\n")
    };
    read(&(section("eth0", "a") + &section("eth0", "a")));
    read(&(section("eth0", "a") + &section("eth0", "b") + &section("eth1", "a")));
    let back = section("eth0", "a") + &section("eth1", "a") + &section("eth0", "a");
    assert_eq!(brief(&back), ["9:8: name: a is taken at x.toml:6:8; each uplink needs a name of its own"]);
}

#[test]
fn problems_keep_the_order_of_files_and_lines() {
    let files = [("0.toml", "weight = 1\ntier = 1"), ("1.toml", "name = 1")];
    let sources = files.map(|(path, text)| Source::new(Path::new(path), text));
    let unreadable = Problem::of_file(Path::new("y.toml"), "cannot be read".to_owned());
    let problems = resolve(&sources, vec![unreadable], &Nothing).unwrap_err();
    let places: Vec<String> = problems
        .iter()
        .map(|problem| problem.to_string().split(' ').next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(places, ["y.toml:", "0.toml:1:1:", "0.toml:2:1:", "1.toml:1:1:"]);
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC*|(?s).*|[\\[\\]{}=\"'.,# \\nuplinkmatcht0-9]*") {
        let _ = parse(Path::new("x.toml"), &text).map_err(|problems| problems.to_string());
    }

    #[test]
    fn no_mutation_makes_it_panic(
        edits in prop::collection::vec((any::<Index>(), 0..20usize, "(?s).{0,3}|\\[\\[uplink\\]\\]|\"|'''|\n|="), 1..6)
    ) {
        let mut text: Vec<char> = FULL.chars().collect();
        for (at, removed, inserted) in edits {
            let at = at.index(text.len() + 1);
            let end = (at + removed).min(text.len());
            text.splice(at..end, inserted.chars());
        }
        let text: String = text.into_iter().collect();
        match parse(Path::new("x.toml"), &text) {
            Ok(config) => {
                let lines = text.lines().count();
                prop_assert!(config.uplinks.iter().all(|section| (1..=lines).contains(&section.origin.line)));
            }
            Err(problems) => {
                let shown = problems.to_string();
                prop_assert!(!shown.is_empty());
                prop_assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
            }
        }
    }
}
