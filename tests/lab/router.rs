//! The machine as a router: what it forwards, and for whom.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::balance::visit_by_every_door;
use crate::ctl::{Ctl, installed, on, set};
use crate::kit::address::{ECHO, LAN_GATEWAY, echoes4, echoes6};
use crate::kit::traffic::seen;
use crate::kit::{
    HeldTcp, IspSpec, Lab, Manager, Ns, Server, Service, Spec, UdpFlow, Via, connect_many, lab_or_skip,
};

const SOON: Duration = Duration::from_secs(20);

/// Where tests write what they say of the router.
const FILE: &str = "/etc/uplinkd/conf.d/20-router.toml";

/// A router that nobody has made one: it does not forward.
fn unmade(spec: Spec) -> Spec {
    spec.sysctl("net.ipv4.ip_forward", "0").sysctl("net.ipv6.conf.all.forwarding", "0")
}

fn setting(lab: &Lab, key: &str) -> String {
    lab.machine.netns().sysctl_read(key)
}

const FORWARDING: [&str; 2] = ["net.ipv4.conf.all.forwarding", "net.ipv6.conf.all.forwarding"];

fn forwarding(lab: &Lab) -> [String; 2] {
    FORWARDING.map(|key| setting(lab, key))
}

#[test]
fn a_machine_is_made_a_router_and_is_none_afterwards() {
    let lab = lab_or_skip!(installed(unmade(Spec::router())));
    lab.machine.wait_active(2);
    let client = &lab.client().ns;
    let shares = connect_many(client, &Via::any(), 4, &echoes4());
    assert_eq!((shares.answered(), forwarding(&lab)), (0, ["0", "0"].map(String::from)), "{shares:?}");

    lab.machine.write(FILE, "[router]\nenable = true\nlan = \"lan0\"\n");
    lab.machine.sh("uplinkctl reload").ok();
    let status = lab.machine.wait_status("a router", SOON, |s| s["forwarding"]["ipv4"] == true);
    assert_eq!(status["router"]["lan"], serde_json::json!(["lan0"]), "{status}");
    assert!(lab.machine.sh("uplinkctl").ok().contains("\nLAN: lan0; private IPv4 sources are masqueraded\n"));
    assert_eq!(forwarding(&lab), ["1", "1"].map(String::from));
    let shares = connect_many(client, &Via::any(), 200, &echoes4());
    println!("client: {} and {} of 200", shares.of(1), shares.of(2));
    assert_eq!((shares.answered(), shares.isps()), (200, vec![1, 2]), "{shares:?}");
    // What somebody switches off is switched on again.
    lab.machine.netns().sysctl("net.ipv4.ip_forward", "0");
    lab.machine.wait("forwarding again", SOON, || (forwarding(&lab)[0] == "1").then_some(()));

    lab.machine.sh("uplinkctl flush").ok();
    assert_eq!(forwarding(&lab), ["0", "0"].map(String::from));
}

#[test]
fn one_uplink_is_enough_for_a_router() {
    let lab = lab_or_skip!(installed(unmade(Spec::router().isp_count(1))));
    lab.machine.wait_active(1);
    lab.machine.write(FILE, "[router]\nenable = true\n");
    lab.machine.sh("uplinkctl reload").ok();
    lab.machine.wait_status("a router", SOON, |s| s["forwarding"]["ipv4"] == true);
    let shares = connect_many(&lab.client().ns, &Via::any(), 20, &echoes4());
    assert_eq!(shares.of(1), 20, "{shares:?}");
    lab.machine.write(FILE, "[router]\nenable = true\nmasquerade = false\n");
    lab.machine.sh("uplinkctl reload").ok();
    lab.machine.wait_status("no masquerading", SOON, |s| s["router"]["masquerade"] == false);
    let shares = connect_many(&lab.client().ns, &Via::any(), 4, &echoes4());
    assert!(shares.answered() == 0 && lab.isp(1).spoofed() > 0, "the LAN's own addresses leave: {shares:?}");
}

#[test]
fn an_uplink_by_the_kernels_own_advertisements_outlives_forwarding() {
    let by_hand = Spec::router().ipv6().manager(Manager::Nobody).no_wait();
    let lab = lab_or_skip!(unmade(by_hand).file(FILE, "[router]\nenable = true\n", 0o644));
    let ns = lab.machine.netns();
    for device in ["eth1", "eth2"] {
        ns.sysctl(&format!("net.ipv6.conf.{device}.accept_ra"), "1");
        ns.ip(&format!("link set {device} up"));
    }
    ns.ip("link set lan0 up\naddr add fd77::1/64 dev lan0 nodad");
    let advertised = || lab.machine.defaults6().len();
    lab.machine.wait("advertisements", SOON, || (advertised() == 2).then_some(()));
    lab.machine.install_deb(&crate::ctl::package());
    let both = |s: &serde_json::Value| s["active"]["ipv6"].as_array().is_some_and(|list| list.len() == 2);
    lab.machine.wait_status("two uplinks", Duration::from_secs(40), both);
    let accepted =
        || ["eth1", "eth2"].map(|device| setting(&lab, &format!("net.ipv6.conf.{device}.accept_ra")));
    assert_eq!((accepted(), forwarding(&lab)), (["2", "2"].map(String::from), ["1", "1"].map(String::from)));
    let shares = connect_many(&lab.client().ns, &Via::any(), 40, &echoes6());
    println!("client over IPv6: {} and {} of 40", shares.of(1), shares.of(2));
    assert_eq!((shares.answered(), shares.isps()), (40, vec![1, 2]), "{shares:?}");
    lab.machine.sh("uplinkctl flush").ok();
    assert_eq!((accepted(), forwarding(&lab)), (["1", "1"].map(String::from), ["0", "0"].map(String::from)));
    assert_eq!(advertised(), 2);
}

/// The port of the machine that leads to the client's echo.
const PORT: u16 = 8080;

const FORWARDS: &str = r#"
[[forward]]
protocol = "both"
port = 8080
to = "10.77.0.10:7"

[[forward]]
port = 8080
to = "[fd77::10]:7"
"#;

#[test]
fn forwarded_ports_lead_in_by_every_door_and_from_inside() {
    let lab = lab_or_skip!(installed(Spec::router().ipv6()).file(FILE, FORWARDS, 0o644));
    lab.machine.wait_both_families();
    let client = &lab.client().ns;
    let service = Server::start(client, ECHO, Service::Echo);
    visit_by_every_door(&lab, PORT);
    // Also by the uplink that carries nothing of its own.
    set(&lab, 2, "tier=2");
    lab.machine.wait_active(1);
    visit_by_every_door(&lab, PORT);
    assert_eq!(service.accepted(), 4);
    for isp in [1, 2] {
        let to = SocketAddr::from((lab.isp(isp).public(), PORT));
        let flow = UdpFlow::start(&lab.internet.ns, &Via::any(), to, Duration::from_millis(10));
        std::thread::sleep(Duration::from_millis(300));
        let flow = flow.stop();
        println!("UDP by ISP {isp}: {}", flow.summary());
        assert!(flow.sent() > 10 && flow.lost() == 0, "{}", flow.summary());
    }
    let status = lab.machine.status();
    for isp in [1, 2] {
        let lease = SocketAddr::from((lab.isp(isp).lease(), PORT));
        // Back into the LAN that it came from, with the machine's address there.
        assert_eq!(seen(client, &Via::any(), lease).expect("hairpin"), IpAddr::from(LAN_GATEWAY));
        assert!(seen(lab.machine.netns(), &Via::any(), lease).is_ok(), "the machine itself");
        let six = on(&status, &lab.isp(isp).device())["ipv6"]["addresses"][0].as_str().expect("an address");
        let six: IpAddr = six.split('/').next().expect("one").parse().expect("an address");
        assert!(seen(client, &Via::any(), (six, PORT).into()).is_ok(), "hairpin to {six}");
        assert!(seen(&lab.internet.ns, &Via::any(), (six, PORT).into()).is_ok(), "a visitor of {six}");
        assert_eq!(lab.isp(isp).spoofed(), 0, "{}", lab.isp(isp).spoofers());
    }
    println!("{} visitors over TCP", service.accepted());
}

#[test]
fn forwards_follow_the_address_and_survive_a_bad_file() {
    let lab = lab_or_skip!(installed(Spec::router()).file(FILE, FORWARDS, 0o644));
    lab.machine.wait_active(2);
    let client = &lab.client().ns;
    let _service = Server::start(client, ECHO, Service::Echo);
    let inside = |address: IpAddr| seen(client, &Via::any(), (address, PORT).into());
    inside(lab.isp(1).lease().into()).expect("hairpin");
    let new = std::net::Ipv4Addr::new(192, 168, 1, 77);
    lab.isp(1).renumber(new);
    lab.machine.renew("eth1");
    lab.machine.wait("hairpin to the new address", SOON, || inside(new.into()).ok());
    // What ran over the old address counts as spoofed; not so what begins now.
    let visit = || {
        for isp in [1, 2] {
            let to = (lab.isp(isp).public(), PORT).into();
            seen(&lab.internet.ns, &Via::any(), to).unwrap_or_else(|e| panic!("a visitor by ISP {isp}: {e}"));
        }
    };
    visit();

    let twice = format!("{FORWARDS}\n[[forward]]\nport = \"8000-8100\"\nto = \"10.77.0.11\"\n");
    lab.machine.write(FILE, &twice);
    let told = lab.machine.sh("uplinkctl check; uplinkctl reload");
    let told = format!("{}{}", told.stdout, told.stderr);
    println!("{told}");
    let named = format!(
        "{FILE}:12:8: port: tcp 8000-8100 to 10.77.0.11 overlaps with tcp and udp 8080 to 10.77.0.10:7 at {FILE}:2"
    );
    assert!(told.contains(&named), "{told}");
    visit();
    // What is not said any more is over for whoever comes now.
    lab.machine.write(FILE, "");
    lab.machine.sh("uplinkctl reload").ok();
    lab.machine.wait("no forwards", SOON, || inside(new.into()).is_err().then_some(()));
    assert!(lab.internet.connect((lab.isp(2).public(), PORT).into(), Duration::from_secs(3)).is_err());
}

#[test]
fn guests_have_one_uplink_and_see_nobody() {
    const GROUPS: &str =
        "[[group]]\nmembers = [\"lan0\", \":uplink\"]\n[[group]]\nmembers = [\"guest\", \"NAME\"]\n";
    // NetworkManager would take away the address that is given to it here.
    let ours = "[keyfile]\nunmanaged-devices=interface-name:guest\n";
    let spec = Spec::router().file("/etc/NetworkManager/conf.d/guest.conf", ours, 0o644);
    let lab = lab_or_skip!(installed(spec));
    lab.machine.wait_active(2);
    let guest = Ns::new("guest");
    lab.machine.netns().ip(&format!(
        "link add guest type veth peer name eth netns {}\naddr add 10.78.0.1/24 dev guest\nlink set guest up",
        guest.path()
    ));
    guest.ip("addr add 10.78.0.10/24 dev eth\nlink set eth up\nroute add default via 10.78.0.1");
    let _service = Server::start(&lab.client().ns, ECHO, Service::Echo);
    let client = SocketAddr::from(([10, 77, 0, 10], ECHO));
    // Without a group everybody talks to everybody.
    lab.machine.wait("the other LAN", SOON, || seen(&guest, &Via::any(), client).ok());
    let name = on(&lab.machine.status(), "eth2")["name"].as_str().expect("a name").to_owned();
    lab.machine.write(FILE, &GROUPS.replace("NAME", &name));
    lab.machine.sh("uplinkctl reload").ok();
    lab.machine.wait("groups", SOON, || seen(&guest, &Via::any(), client).is_err().then_some(()));
    let shares = connect_many(&guest, &Via::any(), 100, &echoes4());
    println!("guests: {} and {} of 100", shares.of(1), shares.of(2));
    assert_eq!(shares.of(2), 100, "{shares:?}");
    let shares = connect_many(&lab.client().ns, &Via::any(), 100, &echoes4());
    println!("LAN: {} and {} of 100", shares.of(1), shares.of(2));
    assert_eq!((shares.answered(), shares.isps()), (100, vec![1, 2]), "{shares:?}");
    assert!(seen(lab.machine.netns(), &Via::any(), client).is_ok(), "the machine itself");
    // The guests' uplink fails: they have none, and do not get the other.
    lab.isp(2).silent(true);
    lab.machine.wait_active(1);
    let shares = connect_many(&guest, &Via::any(), 10, &echoes4());
    assert_eq!(shares.answered(), 0, "{shares:?}");
    let shares = connect_many(&lab.client().ns, &Via::any(), 20, &echoes4());
    assert_eq!(shares.of(1), 20, "{shares:?}");
}

#[test]
fn a_firewall_closes_the_uplinks_and_cuts_nothing_that_is_needed() {
    const FIREWALL: &str = "[firewall]\nenable = true\nallow = \"tcp:7\"\n";
    let [first, second] = [1, 2].map(|n| IspSpec::new(n).renew_after(3).ipv6());
    let lab = lab_or_skip!(installed(Spec::router().isps([first, second])));
    lab.machine.wait_both_families();
    let client = &lab.client().ns;
    let machine = lab.machine.netns();
    let _open = Server::start(machine, ECHO, Service::Echo);
    let _closed = Server::start(machine, 9, Service::Echo);
    let _behind = Server::start(client, ECHO, Service::Echo);
    let visit =
        |isp: u8, port: u16| seen(&lab.internet.ns, &Via::any(), (lab.isp(isp).public(), port).into());
    let mut running = HeldTcp::connect(client, &Via::any(), echoes4()[0]).expect("connects");
    assert!(visit(1, 9).is_ok() && visit(2, 9).is_ok(), "nothing is closed yet");
    let six = |isp: u8| {
        let status = lab.machine.status();
        let address = on(&status, &lab.isp(isp).device())["ipv6"]["addresses"][0].as_str().map(str::to_owned);
        address.expect("an address").split('/').next().expect("one").parse::<IpAddr>().expect("an address")
    };

    lab.machine.write(FILE, &format!("{FORWARDS}\n{FIREWALL}"));
    lab.machine.sh("uplinkctl reload").ok();
    lab.machine.wait_status("a firewall", SOON, |s| s["router"]["firewall"] == serde_json::json!(["tcp:7"]));
    lab.machine.wait("closed uplinks", SOON, || visit(1, 9).is_err().then_some(()));
    running.ping(SOON).expect("what runs goes on");
    for isp in [1, 2] {
        assert!(visit(isp, ECHO).is_ok() && visit(isp, PORT).is_ok(), "a service and a forward by ISP {isp}");
        assert!(visit(isp, 9).is_err(), "closed by ISP {isp}");
        let six = six(isp);
        assert!(seen(&lab.internet.ns, &Via::any(), (six, ECHO).into()).is_ok(), "{six}");
        assert!(seen(&lab.internet.ns, &Via::any(), (six, 9).into()).is_err(), "{six}");
    }
    assert!(seen(client, &Via::any(), (LAN_GATEWAY, 9).into()).is_ok(), "the LAN is free");
    for dests in [echoes4(), echoes6()] {
        let shares = connect_many(client, &Via::any(), 40, &dests);
        println!("client: {} and {} of 40", shares.of(1), shares.of(2));
        assert_eq!((shares.answered(), shares.isps()), (40, vec![1, 2]), "{shares:?}");
    }
    // Leases and advertisements go on, and a new gateway arrives; probes keep both uplinks in use.
    let moved = std::net::Ipv4Addr::new(192, 168, 1, 253);
    lab.isp(1).move_gateway(moved);
    lab.machine.renew("eth1");
    lab.machine
        .wait_status("the new gateway", SOON, |s| on(s, "eth1")["ipv4"]["gateway"] == moved.to_string());
    lab.machine.wait_both_families();
    let probed = |s: &serde_json::Value| {
        let samples = |device| on(s, device)["ipv6"]["health"]["samples"].as_u64().unwrap_or(0);
        samples("eth1") >= 12 && samples("eth2") >= 12
    };
    let status = lab.machine.wait_status("a dozen probes", Duration::from_secs(60), probed);
    let failures = ["eth1", "eth2"].map(|device| on(&status, device)["ipv6"]["health"]["failures"].clone());
    assert_eq!(failures, [0, 0].map(serde_json::Value::from), "probes are answered");
    running.ping(SOON).expect("what ran before goes on");
    lab.machine.write(FILE, "");
    lab.machine.sh("uplinkctl reload").ok();
    lab.machine.wait("open uplinks", SOON, || visit(1, 9).ok());
}
