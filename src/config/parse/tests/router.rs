//! `[router]` and `[[forward]]`.

use super::{brief, read};
use crate::config::{Enable, Party};
use crate::core::net::IfName;

#[test]
fn a_router_is_configured() {
    let router = |text: &str| read(&format!("[router]\n{text}")).router;
    let name = |name: &str| IfName::new(name).unwrap();
    for (text, enable) in [("true", Enable::On), ("false", Enable::Off), ("\"auto\"", Enable::Auto)] {
        assert_eq!(router(&format!("enable = {text}")).enable, enable);
    }
    let plain = router("");
    assert_eq!((plain.enable, plain.masquerade, plain.names_lan(&name("br0"))), (Enable::Auto, None, None));
    let named = router("lan = [\"br*\", \"eth7\"]\nmasquerade = false");
    let is_lan = ["br0", "eth7", "eth0"].map(|lan| named.names_lan(&name(lan)).unwrap());
    assert_eq!((is_lan, named.masquerade), ([true, true, false], Some(false)));
    let present = [name("br0")];
    let away: Vec<_> = named.lans_away(&present).collect();
    assert_eq!(away, ["eth7"]);
    assert_eq!(router("lan = \"auto\"").names_lan(&name("br0")), None);
}

#[test]
fn what_a_router_does_not_allow_is_told() {
    let lan = "an interface name, with * and ? for what may vary, or a list of them; or auto";
    for (line, told) in [
        ("enable = \"yes\"", "2:10: enable: \"yes\" is not allowed; true, false or \"auto\"".into()),
        ("enable = 1", "2:10: enable: 1 is not allowed; true, false or \"auto\"".into()),
        (
            "masquerade = \"true\"",
            "2:14: masquerade: \"true\" is not allowed; true or false (without quotes)".into(),
        ),
        ("lan = [\"br0\", \"a b\"]", format!("2:15: lan: \"a b\" is not allowed; {lan}")),
        ("lan = []", format!("2:7: lan: [] is not allowed; {lan}")),
        ("lan = 1", format!("2:7: lan: 1 is not allowed; {lan} (in quotes)")),
        (
            "lans = \"br0\"",
            "2:1: lans: no such key here; did you mean `lan`? allowed: enable, lan, masquerade".into(),
        ),
    ] {
        assert_eq!(brief(&format!("[router]\n{line}")), [told], "{line}");
    }
}

#[test]
fn forwards_are_configured() {
    let config = read(
        r#"
[[forward]]
port = 8080
to = "10.1.0.9:80"

[[forward]]
protocol = "both"
port = "5000-5010"
to = "[fd00::9]:6000-6010"
uplinks = ["fibre", "cable"]
"#,
    );
    let told: Vec<_> =
        config.forwards.iter().map(|f| (f.what.to_string(), f.uplinks.len(), f.origin.line)).collect();
    assert_eq!(
        told,
        [
            ("tcp 8080 to 10.1.0.9:80".into(), 0, 2),
            ("tcp and udp 5000-5010 to [fd00::9]:6000-6010".into(), 2, 6)
        ]
    );
}

#[test]
fn what_a_forward_does_not_allow_is_told() {
    let ports = "a port from 1 to 65535, or a range of them like \"8000-8010\"";
    let targets = "the address of a host with its port, range of ports or none, like \"10.1.0.9:80\" or \
                   \"[fd00::9]:8000-8010\"";
    for (lines, told) in [
        ("port = 0\nto = \"10.1.0.9\"", vec![format!("2:8: port: 0 is not allowed; {ports}")]),
        ("port = \"9-8\"\nto = \"10.1.0.9\"", vec![format!("2:8: port: \"9-8\" is not allowed; {ports}")]),
        ("port = 80\nto = \"www\"", vec![format!("3:6: to: \"www\" is not allowed; {targets}")]),
        ("", vec![format!("1:1: port: missing; {ports}"), format!("1:1: to: missing; {targets}")]),
        (
            "port = \"80-81\"\nto = \"10.1.0.9:80\"",
            vec!["3:6: to: 80-81 has 2 ports, and port 80 has 1".into()],
        ),
        (
            "port = 80\nto = \"10.1.0.9\"\nprotocol = \"icmp\"",
            vec!["4:12: protocol: \"icmp\" is not allowed; tcp, udp or both".into()],
        ),
        (
            "port = 80\nto = \"10.1.0.9\"\nuplink = \"a\"",
            vec![
                "4:1: uplink: no such key here; did you mean `uplinks`? allowed: protocol, port, to, uplinks"
                    .into(),
            ],
        ),
    ] {
        assert_eq!(brief(&format!("[[forward]]\n{lines}")), told, "{lines}");
    }
    let told = "1:11: forward: 1 is not allowed; sections that begin with [[forward]]";
    assert_eq!(brief("forward = 1"), [told]);
    assert_eq!(brief("[forward]\nport = 80").len(), 1);
}

#[test]
fn of_two_forwards_for_one_packet_both_are_named() {
    let written = |first: &str, second: &str| {
        let section = |rest: &str| format!("[[forward]]\nto = \"10.1.0.9\"\n{rest}\n");
        section(first) + &section(second)
    };
    let both = |first: &str, second: &str| brief(&written(first, second));
    let told = "6:8: port: tcp and udp 80-90 to 10.1.0.9 overlaps with tcp 85 to 10.1.0.9 at x.toml:1";
    assert_eq!(both("port = 85", "port = \"80-90\"\nprotocol = \"both\""), [told]);
    assert_eq!(both("port = 85", "port = 85\nuplinks = \"a\"").len(), 1);
    assert_eq!(both("port = 85\nuplinks = [\"a\", \"b\"]", "port = 85\nuplinks = \"b\"").len(), 1);
    for (first, second) in [
        ("port = 85\nuplinks = \"a\"", "port = 85\nuplinks = \"b\""),
        ("port = 85", "port = 85\nprotocol = \"udp\""),
        ("port = 85", "port = 86"),
    ] {
        assert_eq!(read(&written(first, second)).forwards.len(), 2);
    }
}

#[test]
fn groups_are_configured() {
    let config =
        read("[[group]]\nmembers = [\":lan\", \"fibre\"]\n[[group]]\nmembers = [\"guest*\", \":uplink\"]\n");
    let [first, second] = config.groups.as_slice() else { panic!("{:?}", config.groups) };
    let of = |party| [first.has(party), second.has(party)];
    assert_eq!(of(Party::Lan("br0")), [true, false]);
    assert_eq!(of(Party::Lan("guest7")), [true, true]);
    assert_eq!(of(Party::Uplink("fibre")), [true, true]);
    assert_eq!(of(Party::Uplink("cable")), [false, true]);
    assert_eq!(second.away(&[Party::Uplink("fibre")]).collect::<Vec<_>>(), ["guest*"]);
    assert_eq!(second.origin.line, 3);
}

#[test]
fn what_a_group_does_not_allow_is_told() {
    let members = "a list of interfaces of LANs, with * and ? for what may vary, names of uplinks, \":lan\" and \":uplink\"";
    for (line, told) in [
        ("members = [\":lans\"]", format!("2:12: members: \":lans\" is not allowed; {members}")),
        ("members = []", format!("2:11: members: [] is not allowed; {members}")),
        ("", format!("1:1: members: missing; {members}")),
        ("name = 1", "2:1: name: no such key here; allowed: members".into()),
    ] {
        assert!(brief(&format!("[[group]]\n{line}")).contains(&told), "{line}: {told}");
    }
    assert_eq!(brief("group = 1"), ["1:9: group: 1 is not allowed; sections that begin with [[group]]"]);
}

#[test]
fn a_firewall_is_configured() {
    let firewall = |text: &str| read(&format!("[firewall]\n{text}")).firewall;
    assert_eq!((firewall("").enable, firewall("").quiet), (false, false));
    let full = firewall("enable = true\nallow = [\"tcp:22\", \"udp:5000-5010\", \"esp\"]\nlog = false");
    let allow: Vec<_> = full.allow.iter().map(ToString::to_string).collect();
    assert_eq!((full.enable, full.quiet), (true, true));
    assert_eq!(allow, ["tcp:22", "udp:5000-5010", "esp"]);
    let allowed = "tcp: or udp: with a port or a range of ports, like \"tcp:22\" or \"udp:5000-5010\"; or esp, ah, gre; \
                   or a list of these";
    for (line, told) in [
        ("allow = [\"tcp:22\", \"tcp:0\"]", format!("2:20: allow: \"tcp:0\" is not allowed; {allowed}")),
        ("allow = 22", format!("2:9: allow: 22 is not allowed; {allowed} (in quotes)")),
        ("enable = \"auto\"", "2:10: enable: \"auto\" is not allowed; true or false (without quotes)".into()),
        ("deny = 1", "2:1: deny: no such key here; allowed: enable, allow, log".into()),
    ] {
        assert_eq!(brief(&format!("[firewall]\n{line}")), [told], "{line}");
    }
}
