//! Each ISP's resolvers through that ISP, as they answer nobody else; and what a user feels when one of them is cut off.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::ctl::{Ctl, installed, package};
use crate::kit::address::{ECHO, internet4, internet6, resolver4, resolver6};
use crate::kit::dns::{NOWHERE, ask};
use crate::kit::{Isp, IspSpec, Lab, Manager, Ns, Spec, Via, connect_many, lab_or_skip};
use crate::vpn::tunnel;
use crate::watch::{leg, rest, seconds, state, until, until_state, until_used};

const LIMIT: Duration = Duration::from_secs(20);
/// What an answer may take on a busy machine. libc waits for 5 s before it asks another (resolv.conf(5), `timeout`).
const PROMPTLY: Duration = Duration::from_millis(2500);

/// Both ISPs announce resolvers of their own, beyond their modems.
pub(crate) fn own_resolvers(spec: Spec) -> Spec {
    spec.isps([1, 2].map(|isp| IspSpec::new(isp).own_resolvers()))
}

/// The same machine without systemd-resolved: libc asks those in resolv.conf, where NetworkManager writes them.
fn with_resolv_conf(spec: Spec) -> Spec {
    let text = "[main]\ndns=default\nrc-manager=file\nsystemd-resolved=false\n";
    spec.file("/etc/NetworkManager/conf.d/dns.conf", text, 0o644)
}

/// The same machine with systemd-resolved.
pub(crate) fn with_resolved(spec: Spec) -> Spec {
    let unit = "/usr/lib/systemd/system/systemd-resolved.service";
    spec.link("/etc/systemd/system/systemd-resolved.service", unit)
        .link("/etc/systemd/system/multi-user.target.wants/systemd-resolved.service", unit)
        .link("/etc/resolv.conf", "/run/systemd/resolve/stub-resolv.conf")
}

/// Asks every ISP's resolver so many times; returns how many answers each gave.
fn answers(lab: &Lab, ns: &Ns, times: usize) -> Vec<usize> {
    let asked = |isp: &Isp| {
        let resolver = resolver4(isp.number()).into();
        (0..times).filter(|_| ask(ns, resolver, "www.example.org", seconds(1)).is_ok()).count()
    };
    lab.isps().iter().map(asked).collect()
}

/// How long the machine takes to find that a name has this outcome.
#[track_caller]
fn resolving(lab: &Lab, name: &str, exists: bool) -> Duration {
    let start = Instant::now();
    let output = lab.machine.cmd(&["getent", "ahostsv4", name]);
    let took = start.elapsed();
    assert_eq!(output.success(), exists, "{name}: {output}");
    took
}

#[test]
fn each_resolver_is_asked_through_its_uplink() {
    let lab = lab_or_skip!(installed(with_resolv_conf(own_resolvers(Spec::router()))));
    let status = lab.machine.wait_active(2);
    for isp in [1, 2] {
        assert_eq!(leg(&status, isp, "ipv4")["resolvers"], json!([resolver4(isp).to_string()]));
        assert_eq!(leg(&status, isp, "ipv4")["resolvers_in_use"], true);
    }
    println!("{}", lab.machine.sh("cat /etc/resolv.conf; ip route show table 7000; ip rule").ok());
    lab.machine.cmd(&["uplinkctl", "nudge", "--wait", "5"]).ok();
    for ns in [lab.machine.netns(), &lab.client().ns] {
        assert_eq!(answers(&lab, ns, 20), [20, 20]);
    }
    // What the LAN asks is marked as every flow is: by the interface that it leaves by.
    for isp in [1, 2] {
        let flows = format!("conntrack -L -p udp -s 10.77.0.10 -d {} 2>/dev/null", resolver4(isp));
        let flows = lab.machine.sh(&flows).ok();
        let mark = format!("mark={} ", u32::from(isp) << 24);
        assert!(flows.lines().count() >= 20 && flows.lines().all(|flow| flow.contains(&mark)), "{flows}");
    }
    let spent = (0..10).map(|n| resolving(&lab, &format!("a{n}.example.org"), true)).max();
    println!("FIGURE a name takes at most {:.1?}", spent.expect("ten of them"));
    assert_eq!(lab.internet.strangers(), 0);
    // Without us the second ISP's is asked through the first, and does not answer.
    lab.machine.cmd(&["uplinkctl", "flush"]).ok();
    assert_eq!(answers(&lab, lab.machine.netns(), 3), [3, 0]);
    assert_eq!(lab.internet.strangers(), 3);
}

#[test]
fn resolvers_over_ipv6_are_asked_through_their_uplink() {
    let lab = lab_or_skip!(installed(own_resolvers(Spec::desktop()).ipv6()));
    let both = |status: &serde_json::Value| status["active"]["ipv6"].as_array().is_some_and(|l| l.len() == 2);
    let status = lab.machine.wait_status("IPv6 on both", LIMIT, both);
    for isp in [1, 2] {
        assert_eq!(leg(&status, isp, "ipv6")["resolvers"], json!([resolver6(isp).to_string()]));
        for _ in 0..20 {
            let answer = ask(lab.machine.netns(), resolver6(isp).into(), "www.example.org", seconds(1));
            assert!(
                answer.is_ok(),
                "ISP {isp}: {answer:?}\n{}",
                lab.machine.sh("ip -6 route show table 7000").ok()
            );
        }
    }
    assert_eq!(lab.internet.strangers(), 0);
}

#[test]
fn a_resolver_of_both_isps_is_balanced() {
    let same = |isp| IspSpec::new(isp).resolvers(internet4(47), internet6(47));
    let lab = lab_or_skip!(installed(Spec::router().isps([1, 2].map(same))));
    lab.machine.wait_active(2);
    assert_eq!(lab.machine.sh("ip route show table 7000 2>/dev/null || true").ok(), "");
    let to = [SocketAddr::from((internet4(47), ECHO))];
    for ns in [lab.machine.netns(), &lab.client().ns] {
        let shares = connect_many(ns, &Via::any(), 40, &to);
        assert_eq!((shares.isps(), shares.answered()), (vec![1, 2], 40), "{shares:?}");
    }
}

/// With the resolv.conf of NetworkManager, where libc asks one after the other.
#[test]
fn what_leads_nowhere_is_refused_at_once() {
    let lab = lab_or_skip!(with_resolv_conf(own_resolvers(Spec::router())));
    lab.isp(1).silent(true);
    println!("FIGURE without uplinkd a name takes {:.1?}", resolving(&lab, "a.example.org", false));
    lab.isp(1).silent(false);
    lab.machine.install_deb(&package());
    until_used(&lab, &[1, 2]);
    assert_eq!(answers(&lab, &lab.client().ns, 5), [5, 5]);
    let text = lab.machine.read("/etc/resolv.conf");
    let first = text.lines().find_map(|line| line.strip_prefix("nameserver "));
    assert_eq!(first, Some(resolver4(1).to_string().as_str()), "the one that is lost is asked first");

    lab.isp(1).silent(true);
    let cut = Instant::now();
    println!("FIGURE the first name takes {:.1?} after the cut", resolving(&lab, "b.example.org", true));
    until_used(&lab, &[2]);
    println!("FIGURE left {:.1?} after the cut", cut.elapsed());
    lab.machine.cmd(&["uplinkctl", "nudge", "--wait", "5"]).ok();
    let took = resolving(&lab, "c.example.org", true);
    println!("FIGURE then a name takes {took:.1?}\n{}", lab.machine.sh("ip route show table 7000").ok());
    assert!(took < PROMPTLY, "{took:?}");
    let start = Instant::now();
    let refused = ask(&lab.client().ns, resolver4(1).into(), "d.example.org", seconds(5));
    println!("FIGURE a client is refused after {:.1?}: {refused:?}", start.elapsed());
    let kind = refused.map_err(|error| error.kind());
    assert!(matches!(kind, Err(ErrorKind::HostUnreachable | ErrorKind::ConnectionRefused)), "{kind:?}");
    assert_eq!(answers(&lab, &lab.client().ns, 5)[1], 5);
    assert_eq!(leg(&lab.machine.status(), 1, "ipv4")["resolvers_in_use"], false);

    lab.isp(1).silent(false);
    until_used(&lab, &[1, 2]);
    assert_eq!(answers(&lab, lab.machine.netns(), 5), [5, 5]);
    assert_eq!(lab.internet.strangers(), 0);
}

/// Whether systemd-resolved asks an ISP's resolvers.
fn is_asked(lab: &Lab, isp: u8) -> bool {
    let text = lab.machine.cmd(&["resolvectl", "default-route", &lab.isp(isp).device()]).ok();
    text.trim().ends_with("yes")
}

#[track_caller]
fn until_asked(lab: &Lab, wanted: [bool; 2]) -> Duration {
    let start = Instant::now();
    let same = || {
        let found = [1, 2].map(|isp| is_asked(lab, isp)) == wanted;
        if !found {
            rest(20);
        }
        found.then_some(())
    };
    lab.machine.wait(&format!("resolved asks {wanted:?}"), LIMIT, same);
    start.elapsed()
}

/// The slowest of some names that exist, and of some that do not.
fn slowest(lab: &Lab, what: &str) -> [Duration; 2] {
    let slowest = |domain: &str, exists| {
        let times = (0..3).map(|n| resolving(lab, &format!("{what}{n}.{domain}"), exists));
        times.max().expect("three of them")
    };
    let found = [slowest("example.org", true), slowest(NOWHERE, false)];
    println!(
        "FIGURE {what}: a name takes at most {:.1?}, one that does not exist {:.1?}",
        found[0], found[1]
    );
    found
}

#[test]
fn resolved_leaves_out_what_leads_nowhere() {
    let lab = lab_or_skip!(with_resolved(own_resolvers(Spec::router())));
    lab.machine.wait("resolved knows both", LIMIT, || (is_asked(&lab, 1) && is_asked(&lab, 2)).then_some(()));
    lab.isp(1).silent(true);
    slowest(&lab, "unmanaged");
    lab.isp(1).silent(false);
    lab.machine.install_deb(&package());
    until_used(&lab, &[1, 2]);
    slowest(&lab, "both-up");
    assert_eq!(lab.internet.strangers(), 0);

    lab.isp(1).silent(true);
    until_state(&lab, 1, "down");
    println!("FIGURE resolved is told {:.1?} after the verdict", until_asked(&lab, [false, true]));
    let times = slowest(&lab, "one-left-out");
    assert!(times.iter().all(|took| *took < PROMPTLY), "{times:?}");
    // NetworkManager tells resolved everything anew when it has something to tell; so does a resolved that starts.
    lab.machine.sh("nmcli device modify lan0 ipv4.dns 10.77.0.53").ok();
    println!("FIGURE told again {:.1?} after NetworkManager", until_asked(&lab, [false, true]));
    lab.machine.sh("systemctl restart systemd-resolved; systemctl restart uplinkd").ok();
    until_asked(&lab, [false, true]);
    println!(
        "{}",
        lab.machine
            .sh("uplinkctl; cat /run/uplinkd/unasked.json; journalctl -u uplinkd | grep resolvectl")
            .ok()
    );

    assert!(
        !lab.machine.journal("uplinkd").contains("default-route eth1 yes"),
        "it is left as it was meanwhile"
    );

    // The other way round: the one that comes back is asked before the other is not.
    lab.isp(1).silent(false);
    until_used(&lab, &[1, 2]);
    until_asked(&lab, [true, true]);
    lab.isp(2).silent(true);
    until_asked(&lab, [true, false]);
    lab.isp(1).silent(true);
    until(&lab, "both down", seconds(40), |s| [1, 2].iter().all(|&isp| state(s, isp) == "down"));
    until_asked(&lab, [true, true]);
    lab.isp(1).silent(false);
    until_used(&lab, &[1]);
    until_asked(&lab, [true, false]);
}

#[test]
fn resolved_is_as_it_was_after_a_flush_and_a_removal() {
    let lab = lab_or_skip!(installed(with_resolved(own_resolvers(Spec::router()))));
    lab.machine.wait_active(2);
    // By the administrator's own hand: never ours to put back.
    lab.machine.sh("resolvectl default-route lan0 no").ok();
    lab.isp(1).silent(true);
    until_asked(&lab, [false, true]);
    lab.machine.cmd(&["uplinkctl", "flush"]).ok();
    assert_eq!([1, 2].map(|isp| is_asked(&lab, isp)), [true, true]);
    lab.machine.cmd(&["uplinkctl", "reload"]).ok();
    until_asked(&lab, [false, true]);
    // Stopping is not teardown.
    lab.machine.cmd(&["systemctl", "stop", "uplinkd"]).ok();
    assert_eq!([1, 2].map(|isp| is_asked(&lab, isp)), [false, true]);
    lab.machine.sh("apt-get -q -y remove uplinkd").ok();
    assert_eq!([1, 2].map(|isp| is_asked(&lab, isp)), [true, true]);
}

/// How many datagrams to the ISPs' resolvers leave by the uplinks while some are sent. Not to the port of a resolver, as
/// the daemon's own probes go there, by the device: the way is chosen by the address.
fn leaked(lab: &Lab) -> u64 {
    for isp in lab.isps() {
        isp.ns.nft(&format!(
            "table ip leaks\ndelete table ip leaks\ntable ip leaks {{
                counter leaked {{ }}
                chain c {{
                    type filter hook prerouting priority -300;
                    iifname lan ip daddr {{ {}, {} }} udp dport {ECHO} counter name leaked
                }}
            }}\n",
            resolver4(1),
            resolver4(2)
        ));
    }
    // New flows are what counts: one that runs stays on its uplink, also where a port happens to be used again.
    lab.machine.sh(&format!("conntrack -D -p udp --dport {ECHO} >/dev/null 2>&1 || true")).ok();
    for ns in [lab.machine.netns(), &lab.client().ns] {
        for isp in lab.isps() {
            let to = SocketAddr::from((IpAddr::from(resolver4(isp.number())), ECHO));
            ns.run(|| {
                for _ in 0..20 {
                    // What a VPN refuses has not leaked.
                    Via::any().udp(to).and_then(|socket| socket.send_to(b"?", to)).ok();
                }
            });
        }
    }
    // What was sent is there once the ISPs' namespaces have been asked: a veth delivers at once.
    lab.isps().iter().map(|isp| isp.ns.counter("ip leaks", "leaked")).sum()
}

/// Without a VPN all of them leave by the uplinks, as soon as the rest of a VPN has gone.
#[track_caller]
fn none_is_kept_back(lab: &Lab, what: &str) {
    lab.machine.wait(&format!("all datagrams: {what}"), LIMIT, || (leaked(lab) == 80).then_some(()));
}

#[test]
fn no_question_leaks_past_a_vpn() {
    let lab = lab_or_skip!(installed(own_resolvers(Spec::router())));
    lab.machine.wait_active(2);
    none_is_kept_back(&lab, "no VPN yet");
    tunnel(&lab);
    let wg_up = "ip route add default dev tun0 table 51820; ip rule add not fwmark 51820 table 51820; \
                 ip rule add table main suppress_prefixlength 0";
    let wg_down = "ip rule del table 51820; ip rule del table main suppress_prefixlength 0; \
                   ip route flush table 51820";
    let ways = [
        (
            "halves",
            "ip route add 0.0.0.0/1 dev tun0; ip route add 128.0.0.0/1 dev tun0",
            "ip route del 0.0.0.0/1; ip route del 128.0.0.0/1",
        ),
        (
            "a better default",
            "ip route add default dev tun0 metric 50",
            "ip route del default dev tun0 metric 50",
        ),
        ("wg-quick", wg_up, wg_down),
    ];
    let wait = || lab.machine.cmd(&["uplinkctl", "nudge", "--wait", "5"]).ok();
    for (what, up, down) in ways {
        lab.machine.sh(up).ok();
        // The kernel alone sees to it, but for a better default in main, of which the daemon has to hear.
        if what == "a better default" {
            wait();
        }
        assert_eq!(leaked(&lab), 0, "{what}, after us");
        wait();
        assert_eq!(leaked(&lab), 0, "{what}, after us, settled");
        lab.machine.sh(down).ok();
        wait();
        none_is_kept_back(&lab, what);

        lab.machine
            .sh(&format!("systemctl stop uplinkd; uplinkctl flush; {up}; systemctl start uplinkd"))
            .ok();
        lab.machine.wait_active(2);
        assert_eq!(leaked(&lab), 0, "{what}, before us");
        lab.machine.sh(down).ok();
        wait();
        none_is_kept_back(&lab, what);
        assert_eq!(answers(&lab, lab.machine.netns(), 5), [5, 5], "{what}");
    }
}

/// What resolved answers for a link of networkd's, and that the daemon's user may tell networkd (see sources/resolved.rs).
#[test]
fn networkd_is_told_of_its_own_links() {
    let lab =
        lab_or_skip!(installed(with_resolved(own_resolvers(Spec::desktop())).manager(Manager::Networkd)));
    lab.machine.wait("resolved knows both", LIMIT, || (is_asked(&lab, 1) && is_asked(&lab, 2)).then_some(()));
    let index =
        lab.machine.netns().sh("cat /sys/class/net/eth1/ifindex || ip -o link show eth1 | cut -d: -f1").ok();
    let tell = |user: &str, service: &str, asked: bool| {
        let path = service.replace("org.freedesktop.", "/org/freedesktop/");
        lab.machine.sh(&format!(
            "setpriv --reuid={user} --regid=nogroup --clear-groups busctl call {service} {path} {service}.Manager \
             SetLinkDefaultRoute ib {} {asked}",
            index.trim()
        ))
    };
    let (resolved, networkd) = ("org.freedesktop.resolve1", "org.freedesktop.network1");
    let busy = tell("uplinkd", resolved, false);
    assert!(!busy.success() && busy.stderr.contains("managed"), "{busy}");
    let refused = tell("nobody", networkd, false);
    assert!(!refused.success(), "{refused}");
    tell("uplinkd", networkd, false).ok();
    until_asked(&lab, [false, true]);
    tell("uplinkd", networkd, true).ok();
    until_asked(&lab, [true, true]);
}
