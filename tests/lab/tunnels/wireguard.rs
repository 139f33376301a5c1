//! WireGuard with real packets, under the rules of everybody who sets one up.
//!
//! `wg-quick` is the real one, with wireguard-go where the kernel has no WireGuard. NetworkManager, networkd and Tailscale
//! need what is not there (the kernel's module, the program), so the same tunnel is led by the rules and tables that they
//! make; the addresses and names are all that differs.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;

use super::{
    CARRIER, Outer, SILENT, UP, Vpn, balanced, both_orders, doors, holds, outlives, ready, router, spec,
};
use crate::ctl::{Ctl, ours};
use crate::input::notes;
use crate::kit::address::{ECHO, echoes4, echoes6, internet4};
use crate::kit::process::Daemon;
use crate::kit::{HeldTcp, Lab, NewFlows, Ns, UdpFlow, Via, isp_of, lab_or_skip};

const PORT: u16 = 51820;
/// The internet's own address: the server answers by the one that its routes choose, as WireGuard's servers do.
const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 254);

/// Who leads traffic into the tunnel: the device, what wg-quick is told of it, and what is done by hand besides.
struct Way {
    device: &'static str,
    interface: &'static str,
    up: &'static str,
    down: &'static str,
}

/// wg-quick(8) does it all.
const WG_QUICK: Way = Way { device: "wg0", interface: "", up: "", down: "" };

/// `get_extra_rules` of nm-device-wireguard.c, NetworkManager 1.52, for wireguard.ip4-auto-default-route: the preference is
/// an even one from 30768 on, mark and table are one number from 51820 on, both by the profile's UUID.
const NETWORK_MANAGER: Way = Way {
    device: "wg0",
    interface: "Table = off\nFwMark = 52000",
    up: "ip route add default dev wg0 proto static metric 50 table 52000
        ip rule add pref 31000 lookup main suppress_prefixlength 0
        ip rule add pref 31001 not fwmark 52000 lookup 52000",
    down: "ip rule del pref 31000; ip rule del pref 31001; ip route flush table 52000",
};

/// systemd.netdev(5) FirewallMark= and RouteTable=, systemd.network(5) `[RoutingPolicyRule]` with InvertRule=. Without the
/// rule for the LAN the tunnel would take that as well, with us as without us.
const NETWORKD: Way = Way {
    device: "wg0",
    interface: "Table = off\nFwMark = 0x8888",
    up: "ip route add default dev wg0 proto static table 1000
        ip rule add pref 29999 to 10.77.0.0/24 lookup main
        ip rule add pref 30000 proto static not fwmark 0x8888 lookup 1000",
    down: "ip rule del pref 29999; ip rule del pref 30000; ip route flush table 1000",
};

/// The same with the preference that is copied from manual to manual: no block can stand ahead of 10.
const NETWORKD_FIRST: Way = Way {
    up: "ip route add default dev wg0 proto static table 1000
        ip rule add pref 9 to 10.77.0.0/24 lookup main
        ip rule add pref 10 proto static not fwmark 0x8888 lookup 1000",
    down: "ip rule del pref 9; ip rule del pref 10; ip route flush table 1000",
    ..NETWORKD
};

/// `ipRules` of wgengine/router/router_linux.go, Tailscale 1.x, with an exit node and `--exit-node-allow-lan-access`.
const TAILSCALE: Way = Way {
    device: "tailscale0",
    interface: "Table = off\nFwMark = 0x80000",
    up: "ip route add default dev tailscale0 table 52
        ip route add throw 10.77.0.0/24 table 52
        ip rule add pref 5210 fwmark 0x80000/0xff0000 lookup main
        ip rule add pref 5230 fwmark 0x80000/0xff0000 lookup default
        ip rule add pref 5250 fwmark 0x80000/0xff0000 unreachable
        ip rule add pref 5270 lookup 52",
    down: "for pref in 5210 5230 5250 5270; do ip rule del pref $pref; done; ip route flush table 52",
};

/// A server on the internet, and the machine's end.
struct WireGuard {
    way: Way,
    _server: Daemon,
}

impl WireGuard {
    /// A full tunnel.
    fn new(lab: &Lab, way: Way) -> WireGuard {
        let machine = &lab.machine;
        let key = || machine.cmd(&["wg", "genkey"]).ok().trim().to_owned();
        let public = |key: &str| machine.sh(&format!("echo '{key}' | wg pubkey")).ok().trim().to_owned();
        let (far, near) = (key(), key());
        let internet = &lab.internet.ns;
        let server = machine.daemon_at(internet, &["wireguard-go", "--foreground", "wgs"]);
        let far_end = format!(
            "[Interface]\nPrivateKey = {far}\nListenPort = {PORT}\n\n\
             [Peer]\nPublicKey = {}\nAllowedIPs = 10.99.0.2/32, fd99::2/128\n",
            public(&near)
        );
        machine.write("/root/wgs.conf", &far_end);
        let set =
            || machine.cmd_at(internet, &["wg", "setconf", "wgs", "/root/wgs.conf"]).success().then_some(());
        machine.wait("the server", UP, set);
        internet.ip("addr add 10.99.0.1/24 dev wgs\naddr add fd99::1/64 dev wgs nodad\nlink set wgs up");
        let near_end = format!(
            "[Interface]\nPrivateKey = {near}\nAddress = 10.99.0.2/24\n{}\n\n\
             [Peer]\nPublicKey = {}\nEndpoint = {SERVER}:{PORT}\nAllowedIPs = 0.0.0.0/0\n",
            way.interface,
            public(&far)
        );
        machine.write_mode(&format!("/etc/wireguard/{}.conf", way.device), near_end.as_bytes(), 0o600);
        WireGuard { way, _server: server }
    }

    /// Has the tunnel carry IPv6 too, from its next start on.
    fn with_ipv6(self, lab: &Lab) -> WireGuard {
        let (addresses, routes) = ("s:^Address = .*:&, fd99\\:\\:2/128:", "s:^AllowedIPs = .*:&, \\:\\:/0:");
        let file = format!("/etc/wireguard/{}.conf", self.way.device);
        lab.machine.cmd(&["sed", "-i", "-e", addresses, "-e", routes, &file]).ok();
        self
    }

    fn unit(&self) -> String {
        format!("wg-quick@{}", self.way.device)
    }
}

impl Vpn for WireGuard {
    const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);

    fn device(&self) -> &str {
        self.way.device
    }

    fn outer(&self) -> Outer {
        Outer { protocol: "udp", server: SERVER, port: PORT }
    }

    fn connect(&self, lab: &Lab) {
        lab.machine.cmd(&["systemctl", "start", &self.unit()]).ok();
        lab.machine.sh(self.way.up).ok();
        let through = || lab.machine.cmd(&["ping", "-c1", "-W1", "10.99.0.1"]).success().then_some(());
        lab.machine.wait("WireGuard", UP, through);
    }

    fn disconnect(&self, lab: &Lab) {
        lab.machine.sh(self.way.down).ok();
        lab.machine.cmd(&["systemctl", "stop", &self.unit()]).ok();
    }
}

#[test]
fn wg_quick_holds_in_both_orders_and_takes_only_its_own_away() {
    let lab = lab_or_skip!(spec());
    router(&lab);
    let vpn = WireGuard::new(&lab, WG_QUICK);
    both_orders(&lab, &vpn, "wg-quick");
}

#[test]
fn wg_quick_holds_over_both_families() {
    let lab = lab_or_skip!(spec().ipv6());
    router(&lab);
    ready(&lab);
    let six = |s: &Value| s["active"]["ipv6"].as_array().is_some_and(|list| list.len() == 2);
    lab.machine.wait_status("both active over IPv6", UP, six);
    let vpn = WireGuard::new(&lab, WG_QUICK).with_ipv6(&lab);
    vpn.connect(&lab);
    lab.machine.wait("our IPv6 rules ahead", UP, || ours(&lab.machine).matches("6000:").nth(1).map(drop));
    let inside = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 2).into();
    let seen = super::in_tunnel(&lab, &vpn, "wg-quick, IPv6", (&echoes6(), inside));
    println!("wg-quick, IPv6: {seen}");
    seen.assert_nothing_plain4("wg-quick, IPv6");
    seen.assert_nothing_plain6("wg-quick, IPv6");
    holds(&lab, &vpn, "wg-quick, both families");
    vpn.disconnect(&lab);
    balanced(&lab);
}

/// Connections of before live on beside the tunnel. A datagram flow from the LAN goes into it where one of its packets meets
/// wg-quick's rules before ours are ahead again, else it stays too; nothing goes to and fro.
#[test]
fn flows_of_before_are_not_cut() {
    let lab = lab_or_skip!(spec());
    router(&lab);
    ready(&lab);
    let vpn = WireGuard::new(&lab, WG_QUICK);
    let to = |n| SocketAddr::from((internet4(n), ECHO));
    let flow = |ns: &Ns, n| UdpFlow::start(ns, &Via::any(), to(n), Duration::from_millis(20));
    let (own, behind) = (flow(lab.machine.netns(), 1), flow(&lab.client().ns, 2));
    let mut held = [lab.machine.netns(), &lab.client().ns]
        .map(|ns| HeldTcp::connect(ns, &Via::any(), to(3)).expect("connects"));
    vpn.connect(&lab);
    lab.machine.wait("our rules ahead", UP, || ours(&lab.machine).contains("6000:").then_some(()));
    for tcp in &mut held {
        tcp.ping(Duration::from_secs(3)).expect("it lives on");
    }
    crate::watch::rest(1000);
    let (own, behind) = (own.stop(), behind.stop());
    println!("own: {}\nbehind: {}", own.summary(), behind.summary());
    assert_eq!(
        own.seen().last().map(|(seen, _)| *seen),
        Some(WireGuard::INSIDE.into()),
        "no address holds it"
    );
    let seen = behind.seen();
    assert!(isp_of(seen[0].0).is_some() && behind.lost() < 20, "{}", behind.summary());
    assert!(seen.len() <= 2 && seen.iter().skip(1).all(|(seen, _)| *seen == WireGuard::INSIDE), "{seen:?}");
}

#[test]
fn the_rules_of_networkmanager_hold_in_both_orders() {
    let lab = lab_or_skip!(spec());
    router(&lab);
    let vpn = WireGuard::new(&lab, NETWORK_MANAGER);
    both_orders(&lab, &vpn, "NetworkManager's rules");
}

#[test]
fn the_rules_of_networkd_hold_in_both_orders() {
    let lab = lab_or_skip!(spec());
    router(&lab);
    let vpn = WireGuard::new(&lab, NETWORKD);
    both_orders(&lab, &vpn, "networkd's rules");
}

#[test]
fn the_rules_of_tailscale_hold_in_both_orders() {
    let lab = lab_or_skip!(spec());
    router(&lab);
    let vpn = WireGuard::new(&lab, TAILSCALE);
    both_orders(&lab, &vpn, "Tailscale's exit node");
    // Without an exit node its table has only what is Tailscale's own, and everybody else is balanced.
    vpn.connect(&lab);
    lab.machine.sh("ip route del default table 52; ip route add 10.99.0.0/24 dev tailscale0 table 52").ok();
    balanced(&lab);
    doors(&lab);
    assert!(lab.machine.cmd(&["ping", "-c1", "-W5", "10.99.0.1"]).success());
}

#[test]
fn a_rule_that_nothing_can_precede_leaks_nothing_and_is_told() {
    let lab = lab_or_skip!(spec());
    router(&lab);
    ready(&lab);
    let vpn = WireGuard::new(&lab, NETWORKD_FIRST);
    vpn.connect(&lab);
    lab.machine.wait_status("a note", UP, |status| notes(status).contains("takes everything ahead of ours"));
    super::leaks_nothing(&lab, &vpn, "a rule at 10");
    vpn.disconnect(&lab);
    lab.machine.wait_status("no note", UP, |status| notes(status).is_empty());
    balanced(&lab);
}

#[test]
fn wireguard_outlives_its_uplink() {
    let lab = lab_or_skip!(spec());
    router(&lab);
    ready(&lab);
    let vpn = WireGuard::new(&lab, WG_QUICK);
    vpn.connect(&lab);
    for death in [CARRIER, SILENT] {
        outlives(&lab, &vpn, death, Duration::from_secs(10));
    }
    // With keepalives, which keep an entry of conntrack alive over the dead uplink.
    vpn.disconnect(&lab);
    lab.machine.sh("echo PersistentKeepalive = 1 >>/etc/wireguard/wg0.conf").ok();
    vpn.connect(&lab);
    outlives(&lab, &vpn, SILENT, Duration::from_secs(15));
}

/// wg-quick adds its two rules one after the other, and ours move ahead of them meanwhile: nobody's packet may fall between.
#[test]
fn nothing_leaks_while_the_rules_are_placed_anew() {
    let lab = lab_or_skip!(spec());
    router(&lab);
    ready(&lab);
    let vpn = WireGuard::new(&lab, WG_QUICK);
    let before = ours(&lab.machine);
    for round in 1..=8 {
        super::ended(&lab);
        vpn.connect(&lab);
        // From here on wg-quick is done, uplinkd perhaps not.
        let guard = super::Guard::new(&lab, vpn.outer());
        let flows = [lab.machine.netns(), &lab.client().ns]
            .map(|ns| NewFlows::start(ns, &Via::any(), &echoes4(), 400));
        let moved = || ours(&lab.machine).contains("6000:").then_some(());
        lab.machine.wait("our rules ahead", UP, moved);
        crate::watch::rest(500);
        let sent: usize = flows.map(|flows| flows.stop().sent()).iter().sum();
        let seen = guard.read();
        println!("round {round}: {sent} flows: {seen}");
        seen.assert_nothing_plain4(&format!("round {round}"));
        vpn.disconnect(&lab);
        lab.machine.wait("our rules where they were", UP, || (ours(&lab.machine) == before).then_some(()));
    }
}
