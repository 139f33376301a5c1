//! Uplinks that look alike: one subnet, one gateway address, one lease; and two interfaces into one LAN.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ipnet::Ipv4Net;

use crate::ctl::{Ctl, installed, on};
use crate::kit::address::{ECHO, HTTP, echoes4, internet4};
use crate::kit::{HeldTcp, IspSpec, Lab, Ns, Server, Service, Spec, Via, connect_many, lab_or_skip};

const LIMIT: Duration = Duration::from_secs(15);

/// Where modems have their page, whoever made them.
const MODEM: Ipv4Addr = Ipv4Addr::new(192, 168, 100, 1);

/// Two boxes of one make, as they come: they differ in nothing but whose they are.
fn alike() -> [IspSpec; 2] {
    [1, 2].map(|number| IspSpec::new(number).subnet(Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 1, 0), 24)))
}

/// Has the machine's own service, and one behind a port forward, visited by both doors.
fn visited_by_both_doors(lab: &Lab) {
    crate::balance::visitors_reach_the_machine(lab);
    let Some(client) = &lab.client else { return };
    lab.machine.nft(&format!(
        "table ip forwards {{ }}
        delete table ip forwards
        table ip forwards {{
            chain pre {{ type nat hook prerouting priority dstnat;
                iifname {{ eth1, eth2 }} tcp dport 8080 dnat to 10.77.0.10:{ECHO}; }}
        }}\n"
    ));
    let _behind = Server::start(&client.ns, ECHO, Service::Echo);
    crate::balance::visit_by_every_door(lab, 8080);
}

/// Connections of this end by both uplinks, by ISP.
fn by_both(ns: &Ns) -> Vec<(u8, HeldTcp)> {
    let connect = |n| {
        let held =
            HeldTcp::connect(ns, &Via::any(), SocketAddr::from((internet4(n), ECHO))).expect("connects");
        (crate::kit::isp_of(held.seen).expect("an ISP's address"), held)
    };
    let held: Vec<_> = (1..=24).map(connect).collect();
    for isp in [1, 2] {
        assert!(held.iter().any(|(by, _)| *by == isp), "none by ISP {isp}");
    }
    held
}

/// Which of them still answer.
fn answering(held: &mut [(u8, HeldTcp)], isp: u8) -> (usize, usize) {
    let of: Vec<_> = held.iter_mut().filter(|(by, _)| *by == isp).collect();
    let count = of.len();
    (of.into_iter().filter_map(|(_, tcp)| tcp.ping(Duration::from_secs(2)).ok()).count(), count)
}

fn name(lab: &Lab, isp: u8) -> String {
    on(&lab.machine.status(), &lab.isp(isp).device())["name"].as_str().unwrap_or_default().to_owned()
}

/// All that must work, whether there is a LAN behind the machine or not.
fn it_is_balanced_visited_and_failed_over(lab: &Lab) {
    lab.machine.wait_active(2);
    println!("{}", lab.machine.cmd(&["uplinkctl"]).ok());
    let machine = lab.machine.netns();
    let ends: Vec<&Ns> = [machine].into_iter().chain(lab.client.iter().map(|client| &client.ns)).collect();
    for ns in &ends {
        let shares = connect_many(ns, &Via::any(), 120, &echoes4());
        println!("{}: {} and {} of 120", ns.name(), shares.of(1), shares.of(2));
        assert!(shares.failures.is_empty() && shares.of(1) >= 30 && shares.of(2) >= 30, "{shares:?}");
    }
    for isp in [1, 2] {
        assert_eq!(connect_many(machine, &Via::device(&lab.isp(isp).device()), 20, &echoes4()).of(isp), 20);
    }
    visited_by_both_doors(lab);

    // Whoever is taken out of the balance keeps its running connections, and lets its visitors in.
    let mut held: Vec<_> = ends.iter().map(|ns| by_both(ns)).collect();
    for isp in [1, 2] {
        lab.machine.cmd(&["uplinkctl", "drain", &name(lab, isp)]).ok();
        lab.machine.wait_active(1);
        for (ns, held) in ends.iter().zip(&mut held) {
            for by in [1, 2] {
                let (alive, all) = answering(held, by);
                assert_eq!(alive, all, "{}: of ISP {by}, with {isp} drained", ns.name());
            }
        }
        visited_by_both_doors(lab);
        lab.machine.cmd(&["uplinkctl", "undrain", &name(lab, isp)]).ok();
        lab.machine.wait_active(2);
    }

    // One of them dies behind its modem: all that is new goes by the other, whose own do not notice.
    lab.isp(1).silent(true);
    lab.machine.wait_active(1);
    for (ns, held) in ends.iter().zip(&mut held) {
        let shares = connect_many(ns, &Via::any(), 40, &echoes4());
        assert_eq!(shares.of(2), 40, "{}: {shares:?}", ns.name());
        let (alive, all) = answering(held, 2);
        let (kept, lost) = answering(held, 1);
        println!("{}: {alive} of {all} go on by ISP 2, {kept} of {lost} of ISP 1's", ns.name());
        assert_eq!((alive, kept), (all, 0), "{}", ns.name());
    }
    lab.isp(1).silent(false);
    lab.machine.wait_status("both again", Duration::from_secs(30), |s| {
        s["active"]["ipv4"].as_array().is_some_and(|list| list.len() == 2)
    });
    visited_by_both_doors(lab);
}

#[test]
fn a_router_with_one_address_on_two_uplinks() {
    let lab = lab_or_skip!(installed(Spec::router().isps(alike())));
    it_is_balanced_visited_and_failed_over(&lab);
}

#[test]
fn a_desktop_with_one_address_on_two_uplinks() {
    let lab = lab_or_skip!(installed(Spec::desktop().isps(alike())));
    it_is_balanced_visited_and_failed_over(&lab);
    // For as long as they share an address, and no longer.
    let table = || lab.machine.cmd(&["nft", "list", "tables"]).ok().contains("inet uplinkd");
    assert!(table());
    lab.isp(2).renumber("192.168.1.66".parse().expect("an address"));
    lab.machine.renew("eth2");
    lab.machine.wait("no table of ours any more", LIMIT, || (!table()).then_some(()));
}

#[test]
fn one_subnet_and_one_gateway_with_two_leases() {
    let [first, second] = alike();
    let other = second.lease("192.168.1.11".parse().expect("an address"));
    let lab = lab_or_skip!(installed(Spec::router().isps([first, other])));
    lab.machine.wait_active(2);
    for ns in [lab.machine.netns(), &lab.client().ns] {
        let shares = connect_many(ns, &Via::any(), 120, &echoes4());
        assert!(shares.failures.is_empty() && shares.of(1) >= 30 && shares.of(2) >= 30, "{shares:?}");
    }
    crate::balance::bound_sockets_leave_by_their_uplink(&lab);
    visited_by_both_doors(&lab);
    lab.isp(1).silent(true);
    lab.machine.wait_active(1);
    for ns in [lab.machine.netns(), &lab.client().ns] {
        assert_eq!(connect_many(ns, &Via::any(), 40, &echoes4()).of(2), 40);
    }
}

#[test]
fn each_modem_shows_its_page_to_who_is_bound_to_its_link() {
    let lab = lab_or_skip!(installed(Spec::desktop().isps(alike())));
    lab.machine.wait_active(2);
    for isp in lab.isps() {
        isp.ns.ip(&format!("addr add {MODEM}/24 dev lan\n"));
    }
    let page_of = |isp: u8| {
        // Only this one serves a page: who gets it has come to the right modem.
        let _page = Server::start(&lab.isp(isp).ns, HTTP, Service::Http);
        for other in [1, 2] {
            let device = lab.isp(other).device();
            let url = format!("http://{MODEM}/");
            let got = lab.machine.cmd(&["python3", "-c", FETCH, &device, &url]);
            assert_eq!(got.success(), other == isp, "{device}, with the page at ISP {isp}: {got}");
            let ping = lab.machine.cmd(&["ping", "-c1", "-W2", "-I", &device, &MODEM.to_string()]);
            assert!(ping.success(), "{ping}");
        }
    };
    [1, 2].into_iter().for_each(page_of);
    // With an address of one's own in the modem's network on one of the links, as some modems ask for.
    lab.machine.netns().ip("addr add 192.168.100.2/24 dev eth1\n");
    lab.machine.cmd(&["uplinkctl", "nudge", "--wait", "5"]).ok();
    [1, 2].into_iter().for_each(page_of);
}

/// What `curl --interface DEVICE URL` does, which is not installed there.
const FETCH: &str = "import socket, sys, urllib.parse\n\
    s = socket.socket(); s.settimeout(3)\n\
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, sys.argv[1].encode())\n\
    s.connect((urllib.parse.urlsplit(sys.argv[2]).hostname, 80))\n\
    s.send(b'GET / HTTP/1.0\\r\\n\\r\\n'); assert s.recv(100).startswith(b'HTTP/1.')";

#[test]
fn a_second_interface_into_one_lan_stands_by_and_stays_so() {
    let lab = lab_or_skip!(installed(Spec::desktop().isp_count(1)));
    lab.machine.wait_active(1);
    let machine = lab.machine.netns();
    machine.ip(
        "link add wifi link eth1 type macvlan mode bridge\naddr add 192.168.1.20/24 dev wifi\nlink set wifi up\n\
         route add default via 192.168.1.254 dev wifi metric 600\n",
    );
    lab.machine.wait_status("a twin", LIMIT, |s| {
        s["notes"].to_string().contains("leads to the same ipv4 gateway")
            && on(s, "wifi")["ipv4"]["state"] == "up"
    });
    // Also what lasts for a moment is in the log.
    let defaults =
        || lab.machine.journal("uplinkd").lines().filter(|line| line.contains("table main")).count();
    let since = defaults();
    for _ in 0..30 {
        // The kernel forgets the neighbours of an interface for less.
        machine.cmd(&["ip", "neigh", "flush", "dev", "wifi"]).ok();
        lab.machine.cmd(&["uplinkctl", "nudge", "--wait", "5"]).ok();
        let status = lab.machine.status();
        assert_eq!(status["active"]["ipv4"].as_array().map(Vec::len), Some(1), "{status:#}");
        assert_eq!(on(&status, "eth1")["active"], true, "{status:#}");
    }
    assert_eq!(defaults(), since, "the balanced default was not touched");
    // It is there when it is needed.
    lab.machine.cmd(&["uplinkctl", "drain", &name(&lab, 1)]).ok();
    lab.machine.wait_status("the other in its place", LIMIT, |s| on(s, "wifi")["active"] == true);
    assert_eq!(connect_many(machine, &Via::any(), 20, &echoes4()).of(1), 20);
}
