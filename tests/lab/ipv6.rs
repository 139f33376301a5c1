//! IPv6 of two providers: prefixes on the LAN, by which uplink their sources leave and as what, and what comes in.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use ipnet::Ipv6Net;
use serde_json::Value;

use crate::ctl::{Ctl, installed, on, set};
use crate::input::notes;
use crate::kit::address::{ECHO, delegated6, echoes6, internet6, leased6, prefix6};
use crate::kit::{
    HeldTcp, IspSpec, Lab, Manager, Server, Service, Spec, Via, connect_many, isp_of, lab_or_skip, poll,
};

const SOON: Duration = Duration::from_secs(20);

/// The address of the kit's client in the private prefix of the LAN.
const PRIVATE: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x10);

/// Two ISPs that delegate prefixes, and whose routers both are fe80::1.
fn isps() -> [IspSpec; 2] {
    [1, 2].map(|number| IspSpec::new(number).delegates().same_router())
}

/// The first /64 of what an ISP delegates.
fn lan(isp: u8) -> Ipv6Net {
    Ipv6Net::new_assert(delegated6(isp).addr(), 64)
}

/// The router's own address in it.
fn on_lan(isp: u8) -> Ipv6Addr {
    Ipv6Addr::from(lan(isp).addr().to_bits() | 1)
}

/// A router under networkd with a prefix of each ISP's and a private one on the LAN. The first ISP's comes by its
/// delegation, the second's by hand: networkd takes what is delegated over one uplink only for a link. `keys` are added to
/// the settings of both uplinks.
fn networkd(keys: &str) -> Spec {
    let mut spec = Spec::router().isps(isps()).manager(Manager::Networkd);
    let mut settings = String::new();
    for isp in [1, 2] {
        let text = format!(
            "[Match]\nName=eth{isp}\n\n[Network]\nDHCP=ipv4\nIPv6AcceptRA=yes\nIPv6PrivacyExtensions=yes\n\n\
             [DHCPv4]\nRouteMetric={}\n\n[IPv6AcceptRA]\nDHCPv6Client=always\n\n\
             [DHCPv6]\nDUIDType=link-layer\nPrefixDelegationHint=::/56\n",
            1023 + isp
        );
        spec = spec.file(&format!("/etc/systemd/network/eth{isp}.network"), &text, 0o644);
        // networkd itself tells what is delegated.
        settings += &format!("[[uplink]]\nmatch.interface = \"eth{isp}\"\n{keys}\n");
    }
    let second = lan(2);
    let text = format!(
        "[Match]\nName=lan0\n\n\
         [Network]\nAddress=10.77.0.1/24\nAddress=fd77::1/64\nAddress={}1/64\nIPv6AcceptRA=no\nIPv6SendRA=yes\n\
         DHCPPrefixDelegation=yes\n\n\
         [DHCPPrefixDelegation]\nUplinkInterface=eth1\nSubnetId=0\nToken=::1\n\n\
         [IPv6Prefix]\nPrefix={second}\n",
        second.addr(),
    );
    spec.file("/etc/systemd/network/lan0.network", &text, 0o644).file(
        "/etc/uplinkd/conf.d/10-ipv6.toml",
        &settings,
        0o644,
    )
}

/// A router under NetworkManager that shares with its LAN whatever is delegated.
fn network_manager() -> Spec {
    let wan = |isp: u8| {
        format!(
            "[connection]\nid=wan{isp}\ntype=ethernet\ninterface-name=eth{isp}\n\n[ipv4]\nmethod=auto\n\n\
             [ipv6]\nmethod=auto\naddr-gen-mode=eui64\ndhcp-duid=ll\nroute-metric=10{isp}\n"
        )
    };
    let lan = "[connection]\nid=lan\ntype=ethernet\ninterface-name=lan0\n\n\
               [ipv4]\nmethod=manual\naddress1=10.77.0.1/24\n\n[ipv6]\nmethod=shared\n";
    let spec = Spec::router().isps(isps());
    spec.profile("wan1", &wan(1)).profile("wan2", &wan(2)).profile("lan", lan)
}

fn both_active(lab: &Lab) -> Value {
    active(lab, 2)
}

#[track_caller]
fn active(lab: &Lab, count: usize) -> Value {
    lab.machine.wait_status(&format!("{count} active over IPv6"), SOON, |status| {
        status["active"]["ipv6"].as_array().is_some_and(|list| list.len() == count)
    })
}

/// The address that the client made for itself in a prefix that was announced to it.
#[track_caller]
fn slaac(lab: &Lab, net: Ipv6Net) -> Ipv6Addr {
    let look = || {
        address_in(&lab.client().ns.cmd(&["ip", "-6", "-o", "addr", "show", "dev", "lan0"]).stdout, net, "")
    };
    lab.machine.wait(&format!("the client's address in {net}"), SOON, look)
}

/// The first address in a prefix with a flag, as `ip -o` shows it.
fn address_in(shown: &str, net: Ipv6Net, flag: &str) -> Option<Ipv6Addr> {
    let lines = shown.lines().filter(|line| line.contains(flag) && !line.contains("tentative"));
    let nets = lines.filter_map(|line| line.split_whitespace().nth(3)?.parse::<Ipv6Net>().ok());
    nets.map(|found| found.addr()).find(|ip| net.contains(ip))
}

/// The address that the internet sees of one connection from a source of the client's.
fn seen(lab: &Lab, source: Ipv6Addr, n: u8) -> Option<Ipv6Addr> {
    let to = SocketAddr::from((internet6(n), ECHO));
    let held = HeldTcp::connect(&lab.client().ns, &Via::address(source), to).ok()?;
    match held.seen {
        IpAddr::V6(ip) => Some(ip),
        IpAddr::V4(_) => None,
    }
}

/// Everything that a source of the client's is seen as, over many connections that all succeed.
#[track_caller]
fn all_seen(lab: &Lab, source: Ipv6Addr) -> Vec<Ipv6Addr> {
    let mut all: Vec<_> = (1..=40)
        .map(|n| seen(lab, source, n).unwrap_or_else(|| panic!("{source}: connection {n} fails")))
        .collect();
    all.sort();
    all.dedup();
    all
}

/// Whether somebody on the internet reaches an address.
fn visit(lab: &Lab, to: Ipv6Addr, patience: Duration) -> Option<HeldTcp> {
    lab.internet.connect(SocketAddr::from((to, ECHO)), patience).and_then(HeldTcp::over).ok()
}

#[track_caller]
fn nothing_spoofed(lab: &Lab) {
    for isp in [1, 2] {
        let spoofers = lab.isp(isp).spoofers();
        assert!(!spoofers.contains("elements"), "sources that left by the wrong provider: {spoofers}");
    }
}

fn rules(lab: &Lab) -> String {
    lab.machine.netns().cmd(&["ip", "-6", "rule"]).ok()
}

#[test]
fn sources_of_each_provider_leave_by_it_as_they_are_and_are_reached_from_outside() {
    let lab = lab_or_skip!(installed(networkd("")));
    both_active(&lab);
    let _service = Server::start(&lab.client().ns, ECHO, Service::Echo);
    for isp in [1, 2] {
        let source = slaac(&lab, lan(isp));
        assert_eq!(all_seen(&lab, source), [source]);
        // The router's own address on the LAN too, and its leased one.
        for own in [on_lan(isp), leased6(isp)] {
            let shares = connect_many(lab.machine.netns(), &Via::address(own), 20, &echoes6());
            assert_eq!(shares.of(isp), 20, "{own}: {shares:?}");
        }
        let mut visit = visit(&lab, source, SOON).expect("a host on the LAN is reached");
        visit.ping(SOON).expect("it answers by the door");
        assert!(
            rules(&lab).contains(&format!("from {} lookup 700{isp}", delegated6(isp))),
            "{}",
            rules(&lab)
        );
    }
    // What has no provider is shared out and masqueraded.
    let shares = connect_many(&lab.client().ns, &Via::address(PRIVATE), 60, &echoes6());
    assert!(shares.failures.is_empty() && shares.isps() == [1, 2], "{shares:?}");
    nothing_spoofed(&lab);
    assert!(!notes(&lab.machine.status()).contains("not known"), "{}", notes(&lab.machine.status()));
}

/// Its prefix is no way out while it stands by, but who came in by it is answered by it.
#[test]
fn the_routers_address_in_the_prefix_of_a_provider_that_stands_by_is_reached() {
    let lab = lab_or_skip!(installed(networkd("")));
    both_active(&lab);
    set(&lab, 1, "tier=2");
    active(&lab, 1);
    let _service = Server::start(lab.machine.netns(), ECHO, Service::Echo);
    for isp in [2, 1] {
        let own = on_lan(isp);
        for _ in 0..5 {
            let mut visit = visit(&lab, own, SOON).unwrap_or_else(|| panic!("{own}: no connection"));
            visit.ping(SOON).unwrap_or_else(|error| panic!("{own}: {error}"));
        }
    }
    nothing_spoofed(&lab);
}

#[test]
fn sources_of_a_provider_that_is_down_leave_by_the_other_translated_and_come_back() {
    let lab = lab_or_skip!(installed(networkd("")));
    both_active(&lab);
    let (first, second) = (slaac(&lab, lan(1)), slaac(&lab, lan(2)));
    let mut stays =
        HeldTcp::connect(&lab.client().ns, &Via::address(second), SocketAddr::from((internet6(1), ECHO)))
            .expect("connects");
    let started = Instant::now();
    lab.isp(1).silent(true);
    let translated = lab.machine.wait("the first one's sources leave by the second", SOON, || {
        seen(&lab, first, 2).filter(|ip| isp_of((*ip).into()) == Some(2))
    });
    println!(
        "new flows with a source of ISP 1 leave by ISP 2 as {translated} after {:.1?}",
        started.elapsed()
    );
    assert_eq!(all_seen(&lab, first), [translated], "all of them");
    assert_eq!(all_seen(&lab, second), [second], "the second one's own stay as they are");
    stays.ping(SOON).expect("who was on the second one does not notice");
    nothing_spoofed(&lab);
    lab.isp(1).silent(false);
    both_active(&lab);
    assert_eq!(all_seen(&lab, first), [first]);
    nothing_spoofed(&lab);
}

#[test]
fn who_wants_no_translation_gets_none_and_no_source_leaves_by_the_wrong_provider() {
    let lab = lab_or_skip!(installed(networkd("nat6 = \"none\"")));
    both_active(&lab);
    let (first, second) = (slaac(&lab, lan(1)), slaac(&lab, lan(2)));
    assert_eq!(all_seen(&lab, first), [first]);
    lab.isp(1).silent(true);
    active(&lab, 1);
    // It goes on to leave by its own provider alone.
    assert_eq!(seen(&lab, first, 3), None);
    assert_eq!(all_seen(&lab, second), [second]);
    nothing_spoofed(&lab);
    lab.isp(1).silent(false);
    both_active(&lab);
    assert_eq!(all_seen(&lab, first), [first]);
    // What belongs to nobody leaves as it is, and the providers drop it.
    assert_eq!(seen(&lab, PRIVATE, 4), None);
    assert!([1, 2].iter().any(|isp| lab.isp(*isp).spoofers().contains(&PRIVATE.to_string())));
}

/// What becomes of the private host where a prefix becomes a prefix: the first that is not used on the LAN.
fn outside(isp: u8, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, u16::from(isp), 0xa01, 0, 0, 0, host)
}

#[test]
fn a_private_lan_is_seen_host_by_host_in_the_delegated_prefixes_and_stays_shut() {
    let lab = lab_or_skip!(installed(networkd("nat6 = \"prefix\"")));
    both_active(&lab);
    let _service = Server::start(&lab.client().ns, ECHO, Service::Echo);
    lab.client().ns.ip("addr add fd77::20/64 dev lan0 nodad");
    assert_eq!(all_seen(&lab, PRIVATE), [1, 2].map(|isp| outside(isp, 0x10)));
    let other = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x20);
    assert_eq!(all_seen(&lab, other), [1, 2].map(|isp| outside(isp, 0x20)));
    // UDP and pings as well.
    lab.client()
        .ns
        .cmd(&["ping", "-6", "-c", "3", "-W", "5", "-I", "fd77::10", &internet6(9).to_string()])
        .ok();
    for isp in [1, 2] {
        let own = slaac(&lab, lan(isp));
        assert_eq!(all_seen(&lab, own), [own]);
        assert!(visit(&lab, outside(isp, 0x10), Duration::from_secs(2)).is_none(), "nobody gets in");
    }
    // A source of the first provider's that leaves by the second becomes one of the second's, host by host.
    let first = slaac(&lab, lan(1));
    lab.isp(1).silent(true);
    active(&lab, 1);
    let host = u128::from(u64::MAX) & first.to_bits();
    let wanted = Ipv6Addr::from(Ipv6Addr::new(0x2001, 0xdb8, 2, 0xa02, 0, 0, 0, 0).to_bits() | host);
    assert_eq!(all_seen(&lab, first), [wanted]);
    nothing_spoofed(&lab);
}

#[test]
fn with_prefix_both_a_private_host_is_reached_by_every_door() {
    let lab = lab_or_skip!(installed(networkd("nat6 = \"prefix-both\"")));
    both_active(&lab);
    let _service = Server::start(&lab.client().ns, ECHO, Service::Echo);
    for isp in [1, 2] {
        let mut visit = visit(&lab, outside(isp, 0x10), SOON).expect("gets in");
        visit.ping(SOON).expect("and is answered by the same door");
        let own = slaac(&lab, lan(isp));
        assert!(self::visit(&lab, own, SOON).is_some(), "as is who has an address of the provider's");
    }
    assert_eq!(all_seen(&lab, PRIVATE), [1, 2].map(|isp| outside(isp, 0x10)));
    nothing_spoofed(&lab);
}

#[test]
fn addresses_come_and_go_and_new_flows_follow() {
    let lab = lab_or_skip!(installed(networkd("")));
    both_active(&lab);
    let shown = || lab.machine.netns().cmd(&["ip", "-6", "-o", "addr", "show", "dev", "eth1"]).stdout;
    let [old, new] =
        [prefix6(1), Ipv6Addr::new(0x2001, 0xdb8, 1, 1, 0, 0, 0, 0)].map(|ip| Ipv6Net::new_assert(ip, 64));
    // Temporary ones (RFC 8981) lead out by their uplink as well.
    let temporary = lab.machine.wait("a temporary address", SOON, || address_in(&shown(), old, "temporary"));
    let ruled = |ip: Ipv6Addr| rules(&lab).contains(&format!("from {ip} lookup 7001")).then_some(());
    lab.machine.wait("a rule for it", SOON, || ruled(temporary));
    let shares = connect_many(lab.machine.netns(), &Via::address(temporary), 30, &echoes6());
    assert_eq!(shares.of(1), 30, "{shares:?}");
    // A second prefix beside the first.
    lab.isp(1).ns.ip("addr add 2001:db8:1:1::fe/64 dev lan nodad");
    let second =
        lab.machine.wait("an address in the new prefix", SOON, || address_in(&shown(), new, "mngtmpaddr"));
    lab.machine.wait("a rule for it", SOON, || ruled(second));
    let shares = connect_many(lab.machine.netns(), &Via::address(second), 30, &echoes6());
    assert_eq!(shares.of(1), 30, "{shares:?}");
    // The first is taken back: announced as deprecated.
    lab.isp(1).ns.ip("addr del 2001:db8:1::fe/64 dev lan\nroute add 2001:db8:1::/64 dev lan");
    lab.machine.wait("the old address is deprecated", SOON, || address_in(&shown(), old, "deprecated"));
    let fresh = poll(SOON, || {
        let many: Vec<_> = (1..=24).filter_map(|n| seen(&lab, PRIVATE, n)).collect();
        let by_first: Vec<_> = many.iter().filter(|ip| isp_of((**ip).into()) == Some(1)).collect();
        (!by_first.is_empty() && by_first.iter().all(|ip| new.contains(*ip))).then_some(())
    });
    assert!(fresh.is_some(), "what is masqueraded takes an address of the new prefix: {}", shown());
    // Who still uses the old one is not cut off.
    ruled(temporary).expect("the deprecated address keeps its rule while it is there");
    let shares = connect_many(lab.machine.netns(), &Via::address(temporary), 10, &echoes6());
    assert_eq!(shares.of(1), 10, "{shares:?}");
    nothing_spoofed(&lab);
}

#[test]
fn networkmanagers_delegations_are_known_by_themselves() {
    let lab = lab_or_skip!(installed(network_manager()));
    let status = both_active(&lab);
    assert!(!notes(&status).contains("not known"), "{}", notes(&status));
    let shown = || lab.machine.netns().cmd(&["ip", "-6", "-o", "addr", "show", "dev", "lan0"]).stdout;
    // It asks for a prefix over the uplink that is the best in that moment, and shares that.
    let isp = lab.machine.wait("a prefix on the LAN", SOON, || {
        let shown = shown();
        [1, 2].into_iter().find(|isp| address_in(&shown, lan(*isp), "").is_some())
    });
    let table = on(&status, &format!("eth{isp}"))["table"].to_string();
    let rule = format!("from {} lookup {table}", delegated6(isp));
    lab.machine.wait(&rule, SOON, || rules(&lab).contains(&rule).then_some(()));
    // The LAN has no private prefix here.
    lab.client().ns.ip("route del default via fd77::1");
    let source = slaac(&lab, lan(isp));
    assert_eq!(all_seen(&lab, source), [source]);
    nothing_spoofed(&lab);
}
