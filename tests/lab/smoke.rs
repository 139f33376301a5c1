//! The lab itself, without any daemon.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::kit::address::{BULK, ECHO, HTTP, echoes4, echoes6, internet4, internet6};
use crate::kit::traffic::seen;
use crate::kit::{
    HeldTcp, IspSpec, Lab, Manager, NewFlows, Server, Service, Spec, TcpDownload, UdpFlow, Via, connect_many,
    isp_of, lab_or_skip, poll,
};

const SOON: Duration = Duration::from_secs(10);

fn echo(n: u8) -> SocketAddr {
    (internet4(n), ECHO).into()
}

fn default_of(lab: &Lab, device: &str) -> String {
    let words = ["ip", "-4", "route", "show", "default", "dev", device];
    lab.machine.netns().cmd(&words).ok()
}

#[test]
fn both_uplinks_get_leases_and_the_bus_answers() {
    let lab = lab_or_skip!(Spec::desktop());
    let devices = lab.machine.cmd(&["nmcli", "-t", "device"]).ok();
    for device in ["eth1", "eth2"] {
        let line = format!("{device}:ethernet:connected");
        assert!(devices.contains(&line), "{devices}");
    }
    let names = lab.machine.cmd(&["busctl", "--no-pager", "list"]).ok();
    assert!(names.contains("org.freedesktop.NetworkManager"), "{names}");
    let resolved = lab.machine.cmd(&["getent", "ahostsv4", "name.example"]).ok();
    assert!(resolved.contains(&internet4(1).to_string()), "{resolved}");
    lab.machine.write("/etc/some/file", "text\n");
    assert_eq!(lab.machine.read("/etc/some/file"), "text\n");
}

#[test]
fn the_seen_address_tells_the_isp() {
    let lab = lab_or_skip!(Spec::desktop());
    let ns = lab.machine.netns();
    for isp in lab.isps() {
        let by_device = connect_many(ns, &Via::device(&isp.device()), 5, &echoes4());
        assert_eq!(by_device.of(isp.number()), 5, "{by_device:?}");
    }
    let by_default = connect_many(ns, &Via::any(), 5, &echoes4());
    assert_eq!(by_default.answered(), 5, "{by_default:?}");
    // The second address leaves by the first uplink, whose ISP drops it: nobody has made rules.
    let wrong = Via::address(lab.isp(2).lease());
    seen(ns, &wrong, echo(1)).expect_err("an ISP drops what is not its own");
    assert!(lab.isp(1).spoofed() > 0);
}

#[test]
fn a_client_reaches_the_internet_through_the_machine() {
    let lab = lab_or_skip!(Spec::router());
    let client = &lab.client().ns;
    seen(client, &Via::any(), echo(1)).expect_err("nobody masquerades yet");
    lab.machine.netns().nft(
        "table ip by_hand { chain post { type nat hook postrouting priority srcnat;
            oifname { eth1, eth2 } masquerade; }; }",
    );
    let shares = connect_many(client, &Via::any(), 20, &echoes4());
    assert_eq!(shares.answered(), 20, "{shares:?}");
}

#[test]
fn carrier_loss_is_seen_and_ends() {
    let lab = lab_or_skip!(Spec::desktop());
    let gone = |gone: bool| (default_of(&lab, "eth1").contains("linkdown") == gone).then_some(());
    lab.isp(1).carrier(false);
    lab.machine.wait("the carrier to go", SOON, || gone(true));
    lab.isp(1).carrier(true);
    lab.machine.wait("the carrier to return", SOON, || gone(false));
    let via = Via::device("eth1");
    let answered = || seen(lab.machine.netns(), &via, echo(2)).ok();
    assert_eq!(lab.machine.wait("an answer", SOON, answered), IpAddr::from(lab.isp(1).public()));
}

#[test]
fn silence_loss_and_death_of_a_modem() {
    let lab = lab_or_skip!(Spec::desktop());
    let ns = lab.machine.netns();
    let run = || {
        let flow = UdpFlow::start(ns, &Via::device("eth1"), echo(3), Duration::from_millis(5));
        std::thread::sleep(Duration::from_millis(500));
        flow.stop()
    };
    let ping = |host: String| ns.cmd(&["ping", "-n", "-c1", "-W1", "-I", "eth1", &host]).success();
    let gateway = lab.isp(1).gateway().to_string();
    assert_eq!(run().lost(), 0);
    lab.isp(1).silent(true);
    let silent = run();
    assert_eq!(silent.answered(), 0, "{}", silent.summary());
    assert!(ping(gateway.clone()), "a silent ISP's modem answers");
    lab.isp(1).lose(50);
    let half = run();
    assert!(half.lost() > 0 && half.answered() > 0, "{}", half.summary());
    lab.isp(1).silent(false);
    assert_eq!(run().lost(), 0);
    lab.isp(1).dead(true);
    assert!(!ping(gateway.clone()), "a dead modem does not answer");
    assert!(!default_of(&lab, "eth1").contains("linkdown"));
    lab.isp(1).dead(false);
    assert!(ping(gateway));
}

fn gateway_arrives(lab: &Lab, gateway: Ipv4Addr) {
    let wanted = format!("via {gateway} ");
    let arrived = || default_of(lab, "eth1").contains(&wanted).then_some(());
    lab.machine.wait("the new gateway", SOON, arrived);
    let seen = seen(lab.machine.netns(), &Via::device("eth1"), echo(4));
    assert_eq!(seen.expect("the new gateway forwards"), IpAddr::from(lab.isp(1).public()));
}

#[test]
fn a_moved_gateway_arrives() {
    let lab = lab_or_skip!(Spec::desktop());
    let moved = Ipv4Addr::new(192, 168, 1, 253);
    lab.isp(1).move_gateway(moved);
    lab.machine.renew("eth1");
    gateway_arrives(&lab, moved);
    lab.isp(1).move_subnet("10.55.0.0/24".parse().expect("a subnet"));
    lab.machine.renew("eth1");
    gateway_arrives(&lab, Ipv4Addr::new(10, 55, 0, 254));
}

#[test]
fn a_restarted_modem_brings_its_new_lease() {
    // NetworkManager of Debian 12 does not ask again when the carrier returns.
    let lab = lab_or_skip!(Spec::desktop().suite("trixie"));
    let moved = Ipv4Addr::new(192, 168, 1, 253);
    lab.isp(1).move_gateway(moved);
    lab.isp(1).blip();
    gateway_arrives(&lab, moved);
    lab.isp(1).move_subnet("10.55.0.0/24".parse().expect("a subnet"));
    lab.isp(1).blip();
    gateway_arrives(&lab, Ipv4Addr::new(10, 55, 0, 254));
}

#[test]
fn a_short_lease_renews_itself() {
    let [first, second] = [1, 2].map(IspSpec::new);
    let lab = lab_or_skip!(Spec::desktop().isps([first.renew_after(3), second]));
    let moved = Ipv4Addr::new(192, 168, 1, 253);
    lab.isp(1).move_gateway(moved);
    gateway_arrives(&lab, moved);
}

#[test]
fn advertisements_give_default_routes() {
    let lab = lab_or_skip!(Spec::desktop().ipv6());
    for isp in lab.isps() {
        let via = Via::device(&isp.device());
        // The kernel takes the address from advertisements a moment after the route.
        let answered = || seen(lab.machine.netns(), &via, (internet6(1), ECHO).into()).ok();
        let seen = lab.machine.wait("an answer over IPv6", SOON, answered);
        assert_eq!(isp_of(seen), Some(isp.number()), "{seen}");
    }
    let shares = connect_many(lab.machine.netns(), &Via::any(), 10, &echoes6());
    assert_eq!(shares.answered(), 10, "{shares:?}");
}

#[test]
fn visitors_reach_the_machine() {
    let lab = lab_or_skip!(Spec::desktop());
    let ns = lab.machine.netns();
    let server = Server::start(ns, 8080, Service::Echo);
    let second = lab.isp(2);
    ns.ip(&format!(
        "rule add from {} lookup 102\nroute add default via {} dev eth2 table 102",
        second.lease(),
        second.gateway()
    ));
    for isp in lab.isps() {
        let stream = lab.internet.connect((isp.public(), 8080).into(), SOON);
        let held = stream.and_then(HeldTcp::over);
        let mut held = held.unwrap_or_else(|error| panic!("by ISP {}: {error}", isp.number()));
        held.ping(SOON).expect("the machine echoes");
    }
    assert_eq!(server.accepted(), 2);
}

#[test]
fn undisturbed_traffic_loses_nothing() {
    let lab = lab_or_skip!(Spec::desktop());
    let ns = lab.machine.netns();
    let flow = UdpFlow::start(ns, &Via::any(), echo(5), Duration::from_millis(20));
    let flows = NewFlows::start(ns, &Via::any(), &echoes4(), 200);
    let download = TcpDownload::start(ns, &Via::any(), (internet4(6), BULK).into());
    let download = download.expect("the bulk port answers");
    let mut held = HeldTcp::connect(ns, &Via::any(), echo(7)).expect("the echo port answers");
    std::thread::sleep(Duration::from_secs(1));
    held.ping(SOON).expect("an echo");
    let (flow, flows, download) = (flow.stop(), flows.stop(), download.stop());
    println!("{}\n{}\n{download:?}", flow.summary(), flows.summary());
    assert_eq!((flow.lost(), flows.lost()), (0, 0));
    assert!(flow.sent() >= 40 && flows.sent() >= 150);
    assert!(download.bytes > 100_000 && download.broke.is_none());
}

#[test]
fn a_login_page_catches_the_web_only_there() {
    let lab = lab_or_skip!(Spec::desktop());
    let get = |device: &str| {
        let script = format!(
            "exec 3<>/dev/tcp/{}/{HTTP}; printf 'GET /generate_204 HTTP/1.1\\r\\n\\r\\n' >&3; cat <&3",
            internet4(1)
        );
        // bash cannot bind to a device: leave this one as the only default route.
        let other = if device == "eth1" { "eth2" } else { "eth1" };
        let route = default_of(&lab, other);
        let route = route.trim();
        lab.machine.netns().ip(&format!("route del {route} dev {other}"));
        let text = lab.machine.cmd(&["timeout", "5", "bash", "-c", &script]).stdout;
        lab.machine.netns().ip(&format!("route add {route} dev {other}"));
        text
    };
    lab.isp(1).portal(true);
    assert!(get("eth1").contains(" 302 "), "{}", get("eth1"));
    assert!(get("eth2").contains(" 204 "), "{}", get("eth2"));
    lab.isp(1).portal(false);
    assert!(get("eth1").contains(" 204 "), "{}", get("eth1"));
}

#[test]
fn networkd_brings_the_uplinks_up() {
    let lab = lab_or_skip!(Spec::router().ipv6().manager(Manager::Networkd));
    let links = lab.machine.cmd(&["networkctl", "--no-pager", "list"]).ok();
    assert!(links.contains("eth1"), "{links}");
    let shares = connect_many(lab.machine.netns(), &Via::device("eth2"), 3, &echoes4());
    assert_eq!(shares.of(2), 3, "{shares:?}");
}

#[test]
fn snapshots_leave_out_what_is_ours() {
    let lab = lab_or_skip!(Spec::router().ipv6());
    let before = lab.machine.foreign_snapshot();
    let ns = lab.machine.netns();
    ns.ip("route add default proto 177 metric 9 nexthop via 192.168.1.254 nexthop via 192.168.2.254\n\
           rule add preference 7000 lookup main suppress_prefixlength 1 protocol 177");
    ns.nft("table inet uplinkd { chain one { }; }");
    assert_eq!(before, lab.machine.foreign_snapshot());
    ns.ip("route add 192.0.2.0/24 via 192.168.1.254 proto 178");
    assert_ne!(before, lab.machine.foreign_snapshot());
}

#[test]
fn packages_can_be_installed() {
    let lab = lab_or_skip!(Spec::desktop().no_wait());
    if Command::new("dpkg-deb").arg("--version").output().is_err() {
        return crate::kit::skipped("packages_can_be_installed", "dpkg-deb is not installed");
    }
    let dir = std::env::temp_dir().join(format!("{}-deb", lab.machine.name()));
    fs::create_dir_all(dir.join("tree/DEBIAN")).expect("a directory of our own");
    let control = "Package: lab-probe\nVersion: 1\nArchitecture: all\nMaintainer: the lab <lab@localhost>\n\
                   Depends: systemd, nftables\nDescription: an empty package\n";
    fs::write(dir.join("tree/DEBIAN/control"), control).expect("a file of our own");
    let package = dir.join("probe.deb");
    let built = Command::new("dpkg-deb").arg("--build").arg(dir.join("tree")).arg(&package).output();
    assert!(built.is_ok_and(|output| output.status.success()));
    let took = lab.machine.install_deb(&package);
    fs::remove_dir_all(&dir).expect("a directory of our own");
    println!("installed in {took:?}");
    let state = lab.machine.cmd(&["dpkg-query", "-W", "-f", "${db:Status-Abbrev}", "lab-probe"]);
    assert_eq!(state.ok().trim(), "ii");
}

/// Whether any process or thread is in one of these network namespaces.
fn inhabited(inodes: &[u64]) -> Option<PathBuf> {
    let processes = fs::read_dir("/proc").expect("/proc is there").flatten();
    let threads = processes.flat_map(|process| {
        let tasks = fs::read_dir(process.path().join("task"));
        tasks.into_iter().flatten().flatten()
    });
    threads.map(|thread| thread.path()).find(|thread| {
        let ns = fs::metadata(thread.join("ns/net"));
        ns.is_ok_and(|ns| inodes.contains(&ns.ino()))
    })
}

#[test]
fn nothing_is_left_behind() {
    let lab = lab_or_skip!(Spec::router());
    lab.isp(1).delay(Duration::from_millis(10));
    let flow = UdpFlow::start(lab.machine.netns(), &Via::any(), echo(8), Duration::from_millis(20));
    let inodes: Vec<u64> = lab.namespaces().iter().map(|ns| ns.inode()).collect();
    let (name, init) = (lab.machine.name().to_owned(), lab.machine.init());
    assert_eq!(inodes.len(), 6, "the machine, the client, the internet, two ISPs and a wire");
    assert!(inhabited(&inodes).is_some());
    drop(flow);
    drop(lab);
    let empty = poll(SOON, || inhabited(&inodes).is_none().then_some(()));
    assert!(empty.is_some(), "still inhabited by {:?}", inhabited(&inodes));
    assert!(!Path::new("/proc").join(init.to_string()).exists(), "init lives");
    assert!(!std::env::temp_dir().join(&name).exists(), "its directory is left");
    let mounts = fs::read_to_string("/proc/self/mounts").expect("/proc is there");
    assert!(!mounts.contains(&name), "{mounts}");
    for line in mounts.lines().filter(|line| line.contains(" cgroup2 ")) {
        let group = Path::new(line.split(' ').nth(1).unwrap_or("/")).join(&name);
        assert!(!group.exists(), "{} is left", group.display());
    }
}
