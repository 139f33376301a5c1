//! A router between a LAN and two ISPs, in namespaces, with the rules and tables that the daemon would make.

#![allow(clippy::unwrap_used, reason = "a test that fails should")]

use uplinkd::core::layout::Slot;

use super::{NO_DAD, Neighbour, sh};

/// A router, which is this thread's namespace, with a LAN and two ISPs; what it has is what the daemon makes.
pub(crate) struct Net {
    /// A client of this router.
    pub(crate) lan: Neighbour,
    /// Those behind wan1 and wan2.
    pub(crate) isps: [Neighbour; 2],
    /// What both lead to: 203.0.113.1 and 2001:db8:9::1.
    pub(crate) server: Neighbour,
}

/// Makes it, without a default route in main.
pub(crate) fn net() -> Net {
    let net =
        Net { lan: Neighbour::new(), isps: [Neighbour::new(), Neighbour::new()], server: Neighbour::new() };
    sh(NO_DAD);
    for neighbour in [&net.lan, &net.isps[0], &net.isps[1], &net.server] {
        neighbour.sh(&[NO_DAD]);
    }
    for line in [
        format!("link add lan type veth peer name eth netns {}", net.lan.tid),
        format!("link add wan1 type veth peer name home netns {}", net.isps[0].tid),
        format!("link add wan2 type veth peer name home netns {}", net.isps[1].tid),
        "address add 10.1.0.1/24 dev lan".to_owned(),
        "address add fd00::1/64 dev lan nodad".to_owned(),
        "address add 192.0.2.2/24 dev wan1".to_owned(),
        "address add 2001:db8:1::2/64 dev wan1 nodad".to_owned(),
        "address add 198.51.100.2/24 dev wan2".to_owned(),
        "address add 2001:db8:2::2/64 dev wan2 nodad".to_owned(),
        "link set lan up".to_owned(),
        "link set wan1 up".to_owned(),
        "link set wan2 up".to_owned(),
        "route add default via 192.0.2.1 table 7001".to_owned(),
        "route add default via 198.51.100.1 table 7002".to_owned(),
        "route add default via 2001:db8:1::1 table 7001".to_owned(),
        "route add default via 2001:db8:2::1 table 7002".to_owned(),
    ] {
        sh(&format!("ip {line}"));
    }
    for family in ["-4", "-6"] {
        sh(&format!("ip {family} rule add pref 7000 lookup main suppress_prefixlength 1"));
        for slot in [1, 2] {
            let mark = Slot::new(slot).unwrap().mark();
            sh(&format!("ip {family} rule add pref 710{slot} fwmark {mark} lookup 700{slot}"));
        }
    }
    for (slot, addresses) in [(1, ["192.0.2.2", "2001:db8:1::2"]), (2, ["198.51.100.2", "2001:db8:2::2"])] {
        for (family, address) in ["-4", "-6"].into_iter().zip(addresses) {
            sh(&format!("ip {family} rule add pref 720{slot} from {address} lookup 700{slot}"));
        }
    }
    sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    net.lan.sh(&[
        "ip address add 10.1.0.9/24 dev eth",
        "ip address add fd00::9/64 dev eth nodad",
        "ip link set eth up",
        "ip route add default via 10.1.0.1",
        "ip route add default via fd00::1",
    ]);
    net.server.sh(&["ip address add 203.0.113.1/32 dev lo", "ip address add 2001:db8:9::1/128 dev lo nodad"]);
    for (n, isp) in (1..).zip(&net.isps) {
        let outer = if n == 1 { "192.0.2" } else { "198.51.100" };
        let lines = [
            format!("ip link add net type veth peer name isp{n} netns {}", net.server.tid),
            format!("ip address add {outer}.1/24 dev home"),
            format!("ip address add 2001:db8:{n}::1/64 dev home nodad"),
            format!("ip address add 100.64.{n}.1/24 dev net"),
            format!("ip address add 2001:db8:1{n}::1/64 dev net nodad"),
            "ip link set home up".to_owned(),
            "ip link set net up".to_owned(),
            format!("ip route add 203.0.113.1 via 100.64.{n}.2"),
            format!("ip route add 2001:db8:9::1 via 2001:db8:1{n}::2"),
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1".to_owned(),
        ];
        isp.sh(&lines.each_ref().map(String::as_str));
        let lines = [
            format!("ip address add 100.64.{n}.2/24 dev isp{n}"),
            format!("ip address add 2001:db8:1{n}::2/64 dev isp{n} nodad"),
            format!("ip link set isp{n} up"),
            format!("ip route add {outer}.0/24 via 100.64.{n}.1 src 203.0.113.1"),
            format!("ip route add 2001:db8:{n}::/64 via 2001:db8:1{n}::1"),
        ];
        net.server.sh(&lines.each_ref().map(String::as_str));
    }
    net
}

/// Sets the default routes of main.
pub(crate) fn lead_out_by(slot: u8) {
    let gateway = if slot == 1 { "192.0.2.1" } else { "198.51.100.1" };
    sh(&format!("ip route replace default via {gateway}"));
    sh(&format!("ip route replace default via 2001:db8:{slot}::1"));
}
