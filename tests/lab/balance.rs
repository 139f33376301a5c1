//! How flows are shared out, and that each stays where it began.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::ctl::{Ctl, installed, on, set};
use crate::kit::address::{DESTINATIONS, ECHO, echoes4, echoes6, internet4};
use crate::kit::{
    HeldTcp, IspSpec, Lab, Ns, Server, Service, Shares, Spec, UdpFlow, Via, connect_many, isp_of, lab_or_skip,
};

/// The share that ISP 1 must have of so many connections, and did in every lot of 300.
fn assert_two_to_one(who: &str, ns: &Ns) {
    let mut all = Shares::default();
    let (mut first, mut total) = (0, 0);
    for lot in 1..=4 {
        let shares = connect_many(ns, &Via::any(), 300, &echoes4());
        println!("{who}, lot {lot}: {} of {} by ISP 1", shares.of(1), shares.answered());
        assert!(shares.failures.is_empty(), "{:?}", shares.failures);
        first += shares.of(1);
        total += shares.answered();
        all = shares;
    }
    // One lot strays by 2.7 % (one sigma), the four together by 1.4 %: these bounds are five of the latter.
    let percent = first * 100 / total;
    assert!((60..=73).contains(&percent), "{who}: {percent} % of {total} by ISP 1; the last lot was {all:?}");
}

#[test]
fn weights_share_out_the_clients_and_the_routers_own_connections() {
    let lab = lab_or_skip!(installed(Spec::router()));
    lab.machine.wait_active(2);
    set(&lab, 1, "weight=2");
    lab.machine.wait_status("weight 2", Duration::from_secs(5), |s| on(s, "eth1")["weight"] == 2);
    assert_two_to_one("client", &lab.client().ns);
    assert_two_to_one("router", lab.machine.netns());
}

#[test]
fn ipv6_is_balanced_and_bound_like_ipv4() {
    let lab = lab_or_skip!(installed(Spec::router().ipv6()));
    lab.machine.wait_status("both active over IPv6", Duration::from_secs(15), |s| {
        s["active"]["ipv6"].as_array().is_some_and(|list| list.len() == 2)
    });
    set(&lab, 1, "weight=2");
    for (who, ns) in [("client", &lab.client().ns), ("router", lab.machine.netns())] {
        let shares = connect_many(ns, &Via::any(), 600, &echoes6());
        println!("{who}: {} of {} by ISP 1", shares.of(1), shares.answered());
        assert!(shares.failures.is_empty(), "{:?}", shares.failures);
        assert!((57..=76).contains(&(shares.of(1) * 100 / 600)), "{who}: {shares:?}");
    }
    for isp in [1, 2] {
        let shares = connect_many(lab.machine.netns(), &Via::device(&lab.isp(isp).device()), 40, &echoes6());
        assert_eq!(shares.of(isp), 40, "{shares:?}");
        lab.isp(isp).not_spoofed("bound sockets");
    }
    // A host of the LAN with an address of one provider's is answered by whichever carries it.
    let global = "2001:db8:1:ffff::10";
    lab.machine.netns().ip("addr add 2001:db8:1:ffff::1/64 dev lan0 nodad");
    lab.client().ns.ip(&format!("addr add {global}/64 dev lan0 nodad"));
    let source = Via::address(global.parse::<std::net::IpAddr>().expect("an address"));
    let shares = connect_many(&lab.client().ns, &source, 100, &echoes6());
    assert!(shares.failures.is_empty() && shares.isps() == [1, 2], "{shares:?}");
}

#[test]
fn sockets_bound_to_a_device_or_an_address_leave_by_it() {
    let lab = lab_or_skip!(installed(Spec::router()));
    lab.machine.wait_active(2);
    bound_sockets_leave_by_their_uplink(&lab);
}

/// Shared with the desktop, which must do the same without nftables.
pub(crate) fn bound_sockets_leave_by_their_uplink(lab: &Lab) {
    for isp in [1, 2] {
        let isp = lab.isp(isp);
        for via in [Via::device(&isp.device()), Via::address(isp.lease())] {
            let shares = connect_many(lab.machine.netns(), &via, 40, &echoes4());
            assert_eq!(shares.of(isp.number()), 40, "{via:?}: {shares:?}");
        }
    }
}

#[test]
fn visitors_are_answered_by_the_door_they_came_in() {
    let lab = lab_or_skip!(installed(Spec::router()));
    lab.machine.wait_active(2);
    // A port forward of the administrator's own, as any firewall makes it.
    let client = "10.77.0.10";
    lab.machine.write(
        "/root/forwards.nft",
        &format!(
            "table ip forwards {{ chain pre {{ type nat hook prerouting priority dstnat; \
             iifname {{ \"eth1\", \"eth2\" }} tcp dport 8080 dnat to {client}:{ECHO}; }}; }}\n"
        ),
    );
    lab.machine.cmd(&["nft", "-f", "/root/forwards.nft"]).ok();

    let _behind = Server::start(&lab.client().ns, ECHO, Service::Echo);
    visitors_reach_the_machine(&lab);
    // Also by the uplink that carries nothing of its own.
    set(&lab, 2, "tier=2");
    lab.machine.wait_active(1);
    visitors_reach_the_machine(&lab);
    visit_by_every_door(&lab, 8080);
}

/// Shared with the desktop.
pub(crate) fn visitors_reach_the_machine(lab: &Lab) {
    let _service = Server::start(lab.machine.netns(), ECHO, Service::Echo);
    visit_by_every_door(lab, ECHO);
}

pub(crate) fn visit_by_every_door(lab: &Lab, port: u16) {
    for isp in [1, 2] {
        let to = SocketAddr::from((lab.isp(isp).public(), port));
        let mut visit = lab
            .internet
            .connect(to, Duration::from_secs(3))
            .map(HeldTcp::over)
            .expect("a visitor is let in")
            .expect("greeted");
        visit.ping(Duration::from_secs(3)).expect("who is visited answers");
        lab.isp(isp).not_spoofed("answers");
    }
}

#[test]
fn running_flows_stay_while_weights_change_and_uplinks_come_and_go() {
    let lab = lab_or_skip!(installed(Spec::router().isps([1, 2, 3].map(IspSpec::new)).no_wait()));
    lab.machine.wait_active(3);
    lab.isp(3).carrier(false);
    lab.machine.wait_active(2);
    let ns = &lab.client().ns;
    let flows: Vec<UdpFlow> = (1..=24)
        .map(|n| {
            UdpFlow::start(ns, &Via::any(), SocketAddr::from((internet4(n), ECHO)), Duration::from_millis(20))
        })
        .collect();
    let mut held: Vec<HeldTcp> = (25..=DESTINATIONS)
        .map(|n| HeldTcp::connect(ns, &Via::any(), SocketAddr::from((internet4(n), ECHO))).expect("connects"))
        .collect();
    let pings = |held: &mut Vec<HeldTcp>| {
        for tcp in held {
            tcp.ping(Duration::from_secs(2)).expect("a held connection lives on");
        }
    };
    set(&lab, 1, "weight=7");
    pings(&mut held);
    lab.isp(3).carrier(true);
    lab.machine.wait_active(3);
    pings(&mut held);
    set(&lab, 2, "weight=5");
    lab.isp(3).carrier(false);
    lab.machine.wait_active(2);
    pings(&mut held);
    set(&lab, 1, "tier=2");
    lab.machine.wait_active(1);
    pings(&mut held);
    let mut by: Vec<u8> = Vec::new();
    for report in flows.into_iter().map(UdpFlow::stop) {
        let seen: Vec<(IpAddr, usize)> = report.seen();
        assert_eq!((seen.len(), report.lost()), (1, 0), "{}", report.summary());
        by.extend(isp_of(seen[0].0));
    }
    assert!(by.contains(&1) && by.contains(&2), "both carried some: {by:?}");
}
