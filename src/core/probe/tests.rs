use proptest::prelude::*;

use super::*;
use crate::core::text::harmless;

fn probe(text: &str) -> Probe {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn every_form_reads_and_prints() {
    for (written, printed) in [
        ("icmp:1.1.1.1", ""),
        ("icmp:2001:db8::1", ""),
        ("icmp:[2001:db8::1]", "icmp:2001:db8::1"),
        (" icmp:one.one.one.one. ", "icmp:one.one.one.one"),
        ("tcp:208.67.222.222:443", ""),
        ("tcp:[2001:db8::1]:443", ""),
        ("tcp:example.com:1", ""),
        ("dns:9.9.9.9", ""),
        ("dns:9.9.9.9/.", "dns:9.9.9.9"),
        ("dns:[2620:fe::fe]/example.com.", "dns:2620:fe::fe/example.com"),
        ("http://example.com", "http://example.com/"),
        ("http://example.com:80/a?b=c", "http://example.com/a?b=c"),
        ("https://[2001:db8::1]:8443/ status=301", ""),
        ("http://1.1.1.1/ body=Microsoft Connect Test", ""),
        ("http://1.1.1.1/  status=200  body=x", "http://1.1.1.1/ status=200 body=x"),
        ("arp", ""),
        ("command:/usr/bin/true", ""),
        ("command: /usr/bin/test  1  -eq 1 ", "command:/usr/bin/test 1 -eq 1"),
    ] {
        let printed = if printed.is_empty() { written } else { printed };
        assert_eq!(probe(written).to_string(), printed);
        assert_eq!(probe(printed), probe(written));
    }
}

#[test]
fn what_is_wrong_is_said() {
    for (text, why) in [
        ("", "allowed: icmp:HOST"),
        ("ping:1.1.1.1", "not a probe"),
        ("ICMP:1.1.1.1", "not a probe"),
        ("icmp:", "neither an IP address nor a host name"),
        ("icmp:1.1.1", "neither"),
        ("icmp:1.1.1.256", "neither"),
        ("icmp:[1.1.1.1]", "neither"),
        ("icmp:fe80::1%eth0", "neither"),
        ("icmp:-x.example", "neither"),
        ("icmp:a..b", "neither"),
        ("icmp:127.0.0.1", "this machine itself"),
        ("icmp:::", "this machine itself"),
        ("icmp:ff02::1", "multicast"),
        ("icmp:::ffff:1.1.1.1", "write it as IPv4"),
        ("tcp:1.1.1.1", "no port"),
        ("tcp:1.1.1.1:0", "1 to 65535"),
        ("tcp:1.1.1.1:+80", "1 to 65535"),
        ("tcp:1.1.1.1:65536", "1 to 65535"),
        ("tcp:2001:db8::1:80", "brackets"),
        ("tcp:[2001:db8::1]80", "1 to 65535"),
        ("dns:example.com", "not an IP address"),
        ("dns:9.9.9.9/", "neither"),
        ("dns:127.0.0.53", "this machine itself"),
        ("http:/example.com", "no //"),
        ("http://user@example.com/", "neither"),
        ("http://example.com/#x", "neither # nor"),
        ("http://example.com/ä", "%XX"),
        ("http://example.com/ status=99", "100 to 599"),
        ("http://example.com/ body=", "no text"),
        ("http://example.com/ body=ok status=200", "ahead of it"),
        ("http://example.com/ ok", "status=N, then body=TEXT"),
        ("command:true", "absolute path"),
        ("command:/", "absolute path"),
        ("command:", "absolute path"),
        ("icmp:\u{1b}[31m", "control"),
        ("http://1.1.1.1/ body=\u{202e}x", "control"),
    ] {
        let error = text.parse::<Probe>().expect_err(text).to_string();
        assert!(error.contains(why), "{text}: {error}");
    }
    assert!("x".repeat(5000).parse::<Probe>().unwrap_err().to_string().len() < 200);
}

#[test]
fn families_and_kinds() {
    for (text, family, kind) in [
        ("icmp:1.1.1.1", Some(Family::V4), "icmp"),
        ("tcp:[2001:db8::1]:1", Some(Family::V6), "tcp"),
        ("dns:2620:fe::fe", Some(Family::V6), "dns"),
        ("https://example.com/", None, "http"),
        ("arp", None, "arp"),
        ("command:/bin/true", None, "command"),
    ] {
        assert_eq!((probe(text).family(), probe(text).kind().to_string().as_str()), (family, kind), "{text}");
    }
}

fn texts(probes: &[Probe]) -> Vec<String> {
    probes.iter().map(Probe::to_string).collect()
}

#[test]
fn the_defaults_ask_own_resolvers_beyond_the_link() {
    let ips = |list: &[&str]| list.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<IpAddr>>();
    let resolvers = ips(&[
        "127.0.0.53",
        "192.168.1.1",
        "9.9.9.9",
        "fe80::1",
        "192.0.2.53",
        "192.0.2.53",
        "2001:db8::53",
        "192.0.2.54",
        "192.0.2.55",
    ]);
    let connected = ["192.168.1.0/24".parse().unwrap(), "2001:db8:1::/64".parse().unwrap()];
    let v4 = "icmp:1.1.1.1 icmp:8.8.8.8 dns:9.9.9.9 tcp:208.67.222.222:443 dns:192.0.2.53 dns:192.0.2.54";
    assert_eq!(texts(&defaults(Family::V4, &resolvers, &connected)).join(" "), v4);
    let v6 = "icmp:2606:4700:4700::1111 icmp:2001:4860:4860::8888 dns:2620:fe::fe tcp:[2620:119:35::35]:443 \
              dns:2001:db8::53";
    assert_eq!(texts(&defaults(Family::V6, &resolvers, &connected)).join(" "), v6);
    let every = Family::BOTH.iter().flat_map(|family| defaults(*family, &resolvers, &[]));
    for default in every.chain(portal_checks()) {
        assert_eq!(probe(&default.to_string()), default);
    }
}

#[test]
fn the_portal_checks_are_these() {
    let [firefox, ubuntu] = portal_checks().map(|check| check.to_string());
    assert_eq!(firefox, "http://detectportal.firefox.com/success.txt body=success");
    assert_eq!(ubuntu, "http://connectivity-check.ubuntu.com/ status=204");
}

#[test]
fn foreign_texts_become_harmless() {
    assert_eq!(harmless(" a\u{1b}[2J\r\nb\u{202e}c\u{0} "), "a[2Jbc");
    assert_eq!(harmless(&"é".repeat(81)), format!("{}…", "é".repeat(79)));
    assert_eq!(harmless(&"é".repeat(80)), "é".repeat(80));
}

fn host() -> impl Strategy<Value = Host> {
    prop_oneof![
        any::<std::net::Ipv4Addr>().prop_map(|ip| Host::Ip(ip.into())),
        any::<std::net::Ipv6Addr>().prop_map(|ip| Host::Ip(ip.into())),
        "[a-z0-9_]{1,10}(\\.[a-z]([a-z0-9-]{0,5}[a-z0-9])?){0,3}".prop_map(Host::Name),
    ]
    .prop_filter("parses", |host| format!("icmp:{host}").parse::<Probe>().is_ok())
}

fn arbitrary() -> impl Strategy<Value = Probe> {
    let expect =
        (proptest::option::of(100..600u16), proptest::option::of("[a-zA-Z=]{1,5}( [a-z]{1,3}){0,2}"));
    let url = (any::<bool>(), host(), 1..=u16::MAX, "/[!-\"$-~]{0,12}");
    let command = ("/[a-z/]{0,8}[a-z]", proptest::collection::vec("[!-~]{1,5}", 0..4));
    prop_oneof![
        host().prop_map(Probe::Icmp),
        (host(), 1..=u16::MAX).prop_map(|(host, port)| Probe::Tcp(host, port)),
        (host(), "\\.|[a-z]{1,9}\\.[a-z]{1,9}").prop_filter_map("an address", |(host, name)| match host {
            Host::Ip(server) => Some(Probe::Dns { server, name }),
            Host::Name(_) => None,
        }),
        (url, expect).prop_map(|((secure, host, port, path), (status, body))| Probe::Http {
            url: Url { secure, host, port, path },
            expect: Expect { status, body },
        }),
        Just(Probe::Gateway),
        command.prop_map(|(program, args)| Probe::Command { program, args }),
    ]
}

proptest! {
    #[test]
    fn what_is_printed_reads_as_the_same(probe in arbitrary()) {
        prop_assert_eq!(probe.to_string().parse::<Probe>(), Ok(probe));
    }

    #[test]
    fn hostile_texts_never_panic(scheme in "|icmp:|tcp:|dns:|https?://|command:/|tcp:\\[", rest in any::<String>()) {
        match (scheme + &rest).parse::<Probe>() {
            Ok(probe) => prop_assert_eq!(probe.to_string().parse::<Probe>(), Ok(probe)),
            Err(error) => prop_assert!(!error.to_string().chars().any(char::is_control)),
        }
    }

    #[test]
    fn nearly_right_texts_never_panic(probe in arbitrary(), at in any::<prop::sample::Index>(), c in any::<char>()) {
        let mut chars: Vec<char> = probe.to_string().chars().collect();
        let at = at.index(chars.len());
        chars[at] = c;
        if let Ok(probe) = chars.into_iter().collect::<String>().parse::<Probe>() {
            prop_assert_eq!(probe.to_string().parse::<Probe>(), Ok(probe));
        }
    }
}

#[test]
fn resolvers_that_answer_anybody_are_known() {
    let known = |text: &str| is_public_resolver(text.parse().unwrap());
    for text in ["1.0.0.1", "8.8.4.4", "9.9.9.9", "2001:4860:4860::8844", "2620:fe::9"] {
        assert!(known(text), "{text}");
    }
    for text in ["203.0.113.53", "8.8.8.9", "2001:4860::1", "fe80::1"] {
        assert!(!known(text), "{text}");
    }
}
