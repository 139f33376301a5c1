//! Links without a gateway: lines that are dialled, and come back as another device with another address.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::ctl::{Ctl, on, package};
use crate::kit::address::{ECHO, echoes4, echoes6, internet4, internet6};
use crate::kit::line::{DEVICE, ipv6};
use crate::kit::{
    HeldTcp, IspSpec, Lab, Line, Manager, Ns, Server, Service, Spec, UdpFlow, Via, connect_many, lab_or_skip,
};

const LIMIT: Duration = Duration::from_secs(15);
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 2);
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 64, 7, 9);

/// A router without a manager, with a fixed line and one that is dialled.
fn spec() -> Spec {
    let config = format!("[[uplink]]\nmatch.interface = \"{DEVICE}\"\nname = \"dsl\"\nweight = 3\n");
    Spec::router().isps([IspSpec::new(1), IspSpec::new(2).no_dhcp()]).manager(Manager::Nobody).file(
        "/etc/uplinkd/conf.d/dsl.toml",
        &config,
        0o644,
    )
}

fn start(lab: &Lab) -> Line {
    lab.machine.netns().ip(
        "addr add 10.77.0.1/24 dev lan0\naddr add fd77::1/64 dev lan0 nodad\nlink set lan0 up\n\
         addr add 192.168.1.10/24 dev eth1\nlink set eth1 up\n\
         route add default via 192.168.1.254 dev eth1 metric 100\n",
    );
    let line = Line::dial(lab, 2, FIRST);
    lab.machine.install_deb(&package());
    lab.machine.wait_active(2);
    line
}

fn name_slot_weight(status: &Value) -> [Value; 3] {
    ["name", "slot", "weight"].map(|key| on(status, DEVICE)[key].clone())
}

fn index(lab: &Lab) -> String {
    let line = lab.machine.netns().cmd(&["ip", "-o", "link", "show", DEVICE]).ok();
    line.split(':').next().unwrap_or_default().to_owned()
}

/// What conntrack knows of an address.
fn tracked(lab: &Lab, address: Ipv4Addr) -> String {
    let all = lab.machine.cmd(&["conntrack", "-L"]).stdout;
    let dest = format!("dst={address} ");
    all.lines().filter(|line| line.contains(&dest)).map(|line| format!("{line}\n")).collect()
}

/// An administrator's own NAT, which binds flows to an address as masquerading does not: the kernel forgets neither.
fn nat(lab: &Lab, address: Ipv4Addr) {
    lab.machine.nft(&format!(
        "table ip own {{ }}
        delete table ip own
        table ip own {{
            chain post {{ type nat hook postrouting priority srcnat;
                oifname {DEVICE} udp dport {ECHO} snat to {address}; }}
            chain pre {{ type nat hook prerouting priority dstnat;
                iifname {DEVICE} tcp dport 8080 dnat to 10.77.0.10:{ECHO}; }}
        }}"
    ));
}

fn flow(ns: &Ns, n: u8) -> UdpFlow {
    UdpFlow::start(ns, &Via::any(), SocketAddr::from((internet4(n), ECHO)), Duration::from_millis(10))
}

#[test]
fn a_line_that_redials_stays_the_same_uplink_and_leaves_nothing_behind() {
    let lab = lab_or_skip!(spec());
    let line = start(&lab);
    let (machine, client) = (lab.machine.netns(), &lab.client().ns);
    nat(&lab, FIRST);
    let before = name_slot_weight(&lab.machine.status());
    assert_eq!((&before[0], &before[2]), (&"dsl".into(), &3.into()));
    let first_index = index(&lab);
    let shares = connect_many(client, &Via::any(), 200, &echoes4());
    println!("clients: {} by the fixed line, {} by the dialled one", shares.of(1), shares.of(2));
    assert!(shares.failures.is_empty() && (110..=185).contains(&shares.of(2)), "{shares:?}");
    assert_eq!(connect_many(machine, &Via::device(DEVICE), 20, &echoes4()).of(2), 20);
    assert_eq!(connect_many(machine, &Via::address(FIRST), 20, &echoes4()).of(2), 20);

    // A visitor behind the port that is forwarded, a connection of the machine, and flows of clients by both.
    let _service = Server::start(client, ECHO, Service::Echo);
    let visit = lab.internet.connect((lab.isp(2).public(), 8080).into(), Duration::from_secs(3));
    let mut visit = HeldTcp::over(visit.expect("a visitor is let in")).expect("greeted");
    visit.ping(Duration::from_secs(3)).expect("who is visited answers");
    let own = SocketAddr::from((internet4(40), ECHO));
    let mut own = HeldTcp::connect(machine, &Via::address(FIRST), own).expect("connects");
    let flows: Vec<UdpFlow> = (1..=24).map(|n| flow(client, n)).collect();
    std::thread::sleep(Duration::from_millis(500));
    let held = tracked(&lab, FIRST).lines().count();

    let hung_up = Instant::now();
    line.hang_up(&lab);
    let gone = hung_up.elapsed();
    let broke =
        own.ping(Duration::from_secs(5)).expect_err("a connection from an address that has gone ends");
    println!(
        "hung up in {gone:?}; the machine's own connection: {broke}, {:?} after the device had gone",
        hung_up.elapsed() - gone
    );
    assert_eq!(broke.kind(), std::io::ErrorKind::ConnectionAborted);
    lab.machine.wait_active(1);
    lab.machine.wait("no entry of the old address", LIMIT, || tracked(&lab, FIRST).is_empty().then_some(()));
    println!("{held} entries of conntrack used the old address; none does {:?} after", hung_up.elapsed());
    std::thread::sleep(Duration::from_millis(500));
    for report in flows.into_iter().map(UdpFlow::stop) {
        let ways: Vec<_> = report.ways().iter().map(|way| way.isp).collect();
        println!("flow: {} by {ways:?}", report.summary());
        match ways.first() {
            // The kernel dropped the whole multipath route: who was on the other leg must not notice.
            Some(Some(1)) => assert_eq!(report.lost(), 0, "{}", report.summary()),
            _ => assert_eq!(ways.last(), Some(&Some(1)), "it goes on by the other line"),
        }
    }

    let line = Line::dial(&lab, 2, SECOND);
    nat(&lab, SECOND);
    let dialled = Instant::now();
    let after = lab.machine.wait_active(2);
    println!("in use again {:?} after it was dialled", dialled.elapsed());
    assert_ne!(index(&lab), first_index, "another device");
    assert_eq!(name_slot_weight(&after), before, "the same uplink");
    let shares = connect_many(client, &Via::any(), 200, &echoes4());
    assert!(shares.failures.is_empty() && (110..=185).contains(&shares.of(2)), "{shares:?}");
    assert_eq!(connect_many(machine, &Via::device(DEVICE), 20, &echoes4()).of(2), 20);
    assert_eq!(connect_many(machine, &Via::address(SECOND), 20, &echoes4()).of(2), 20);
    assert_eq!(line.strays(&lab), 0, "nothing came with the old address");
}

#[test]
fn an_address_that_is_replaced_takes_its_flows_along() {
    let lab = lab_or_skip!(spec());
    let line = start(&lab);
    let (machine, client) = (lab.machine.netns(), &lab.client().ns);
    nat(&lab, FIRST);
    let only = on(&lab.machine.status(), "eth1")["name"].as_str().unwrap_or_default().to_owned();
    lab.machine.cmd(&["uplinkctl", "drain", &only]).ok();
    lab.machine.wait_active(1);
    let dest = SocketAddr::from((internet4(9), ECHO));
    let mut own = HeldTcp::connect(machine, &Via::any(), dest).expect("connects");
    let flow = flow(client, 1);
    std::thread::sleep(Duration::from_millis(300));
    nat(&lab, SECOND);
    line.renumber(&lab, FIRST, SECOND);
    let changed = Instant::now();
    let broke = own.ping(Duration::from_secs(5)).expect_err("it ends though there is no other uplink");
    println!("renumbered: the machine's own connection: {broke} after {:?}", changed.elapsed());
    assert_eq!(broke.kind(), std::io::ErrorKind::ConnectionAborted);
    lab.machine.wait("no entry of the old address", LIMIT, || tracked(&lab, FIRST).is_empty().then_some(()));
    println!("renumbered: no entry of the old address after {:?}", changed.elapsed());
    lab.machine.wait("the client's flow by the new address", LIMIT, || {
        tracked(&lab, SECOND).contains(&format!("dport={ECHO}")).then_some(())
    });
    // It went on for as long as it takes to see it.
    let report = flow.stop();
    println!("renumbered: the client's flow: {}", report.summary());
}

#[test]
fn a_line_that_redials_again_and_again_is_held_back() {
    let lab = lab_or_skip!(spec());
    let mut line = start(&lab);
    for address in [SECOND, FIRST] {
        line.hang_up(&lab);
        lab.machine.wait_active(1);
        line = Line::dial(&lab, 2, address);
        let wanted = if address == SECOND { "up" } else { "held" };
        lab.machine.wait_status(&format!("a line that is {wanted}"), LIMIT, |s| {
            on(s, DEVICE)["ipv4"]["state"] == wanted
        });
    }
    println!("{}", lab.machine.cmd(&["uplinkctl", "status", "dsl"]).ok());
    lab.machine.wait_status("its time to be over", Duration::from_secs(30), |s| {
        on(s, DEVICE)["ipv4"]["state"] == "up"
    });
}

/// Has every SYN and SYN with ACK that passes counted by its segment size, in a namespace.
fn count_sizes(ns: &Ns, device: &str) {
    let count = |flags: &str, name: &str, family: &str, size: u32| {
        format!(
            "iifname {device} meta nfproto {family} tcp flags & (syn | ack) == {flags} \
             tcp option maxseg size {size} counter name {name}_{family}_{size}\n"
        )
    };
    let (mut rules, mut counters) = (String::new(), String::new());
    for (name, flags) in [("syn", "syn"), ("answer", "syn | ack")] {
        for (family, size) in [("ipv4", 1460), ("ipv4", 1452), ("ipv6", 1440), ("ipv6", 1432)] {
            rules += &count(flags, name, family, size);
            counters += &format!("counter {name}_{family}_{size} {{ }}\n");
        }
    }
    ns.nft(&format!(
        "table inet sizes {{\n{counters}chain every {{ type filter hook prerouting priority -300;\n{rules}}}\n}}"
    ));
}

/// What was counted.
fn sizes(ns: &Ns, name: &str) -> usize {
    let text = ns.cmd(&["nft", "list", "counter", "inet", "sizes", name]).ok();
    let mut words = text.split_whitespace().skip_while(|word| *word != "packets");
    words.nth(1).and_then(|number| number.parse().ok()).expect("nft prints the counter")
}

#[test]
fn who_connects_over_a_narrow_line_is_told_so_at_both_ends() {
    let lab = lab_or_skip!(spec());
    let _line = start(&lab);
    let (client, provider) = (&lab.client().ns, &lab.isp(2).ns);
    nat(&lab, FIRST);
    count_sizes(client, "lan0");
    count_sizes(provider, "line");
    lab.machine.wait_status("IPv6 by the line", LIMIT, |s| s["active"]["ipv6"] == serde_json::json!(["dsl"]));
    let four = connect_many(client, &Via::any(), 60, &echoes4());
    let six = connect_many(client, &Via::any(), 30, &echoes6()[..30]);
    println!("IPv4 {four:?}, IPv6 {six:?}");
    assert!(four.failures.is_empty() && six.failures.is_empty());
    let seen = |ns: &Ns, name: &str| sizes(ns, name);
    // What the ISP gets, and what the client gets back; by the other line all is as it was.
    assert_eq!(seen(provider, "syn_ipv4_1460"), 0);
    assert_eq!(seen(provider, "syn_ipv6_1440"), 0);
    // One that is sent again counts again.
    assert!(seen(client, "answer_ipv4_1452") >= four.of(2) && seen(client, "answer_ipv6_1432") >= six.of(2));
    assert!(seen(client, "answer_ipv4_1460") >= four.of(1));
    assert!(seen(provider, "syn_ipv4_1452") >= four.of(2) && seen(provider, "syn_ipv6_1432") >= six.of(2));
    println!(
        "the ISP got {} SYNs of 1452 and {} of 1432",
        seen(provider, "syn_ipv4_1452"),
        seen(provider, "syn_ipv6_1432")
    );

    // A visitor from outside: the SYN comes in, and the answer goes out.
    let _service = Server::start(client, ECHO, Service::Echo);
    let visit = lab.internet.connect((lab.isp(2).public(), 8080).into(), Duration::from_secs(3));
    HeldTcp::over(visit.expect("a visitor is let in")).expect("greeted");
    assert!(seen(client, "syn_ipv4_1452") > 0 && seen(client, "syn_ipv4_1460") == 0);
    assert!(seen(provider, "answer_ipv4_1452") > 0 && seen(provider, "answer_ipv4_1460") == 0);

    // The machine's own end knows its device's size by itself, and says the smaller one.
    let own = connect_many(lab.machine.netns(), &Via::address(ipv6(2)), 5, &[(internet6(31), ECHO).into()]);
    assert_eq!(own.of(2), 5, "{own:?}");
    let table = lab.machine.cmd(&["nft", "list", "table", "inet", "uplinkd"]).ok();
    assert!(table.contains("mtu_1492"), "{table}");
}
