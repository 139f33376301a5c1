//! The lab's faults: each does what it says, to both families, and goes away again.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use crate::kit::address::{
    BULK, DOMAIN, ECHO, FLOOD, HTTP, HTTPS, PORTAL_CHECKS, RESOLVERS4, RESOLVERS6, internet4, internet6,
    web4, web6,
};
use crate::kit::{Filter, Lab, Ns, Spec, TcpDownload, UdpFlow, UdpReport, Via, lab_or_skip};

const SOON: Duration = Duration::from_secs(10);
/// More than anything takes that works.
const PATIENCE: Duration = Duration::from_millis(700);

fn echo(n: u8) -> SocketAddr {
    (internet4(n), ECHO).into()
}

fn spec() -> Spec {
    Spec::desktop().ipv6()
}

/// Waits until each uplink has its IPv6 address, which comes a moment after the route.
fn both_families(lab: &Lab) {
    for isp in lab.isps() {
        let view = View::of(lab, isp.number());
        lab.machine.wait("an answer over IPv6", SOON, || view.dns(internet6(1)));
    }
}

/// The internet as seen through one ISP.
struct View<'a> {
    ns: &'a Ns,
    device: String,
    via: Via,
}

impl View<'_> {
    fn of(lab: &Lab, isp: u8) -> View<'_> {
        let device = lab.isp(isp).device();
        View { ns: lab.machine.netns(), via: Via::device(&device), device }
    }

    fn ping(&self, host: impl Into<IpAddr>) -> bool {
        let host = host.into().to_string();
        self.ns.cmd(&["ping", "-n", "-c1", "-W0.7", "-I", &self.device, &host]).success()
    }

    /// The response code for `. NS`.
    fn dns(&self, server: impl Into<IpAddr>) -> Option<u8> {
        let server = SocketAddr::new(server.into(), DOMAIN);
        self.ns.run(|| {
            let socket = self.via.udp(server).ok()?;
            socket.set_read_timeout(Some(PATIENCE)).ok()?;
            socket.send_to(b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\0\0\x02\0\x01", server).ok()?;
            let mut answer = [0; 512];
            socket.recv(&mut answer).ok()?;
            assert_eq!(answer[..2], *b"\x12\x34");
            Some(answer[3] & 15)
        })
    }

    fn tcp(&self, host: impl Into<IpAddr>) -> bool {
        let to = SocketAddr::new(host.into(), HTTPS);
        self.ns.run(|| self.via.tcp(to, PATIENCE)).is_ok()
    }

    fn http(&self, address: impl Into<IpAddr>, host: &str, path: &str) -> String {
        let to = SocketAddr::new(address.into(), HTTP);
        let get = || {
            let mut stream = self.via.tcp(to, PATIENCE)?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text).map(|_| text)
        };
        self.ns.run(|| get().unwrap_or_else(|error: std::io::Error| error.to_string()))
    }

    /// A flow of 0.3 s, a datagram each 5 ms.
    fn flow(&self) -> UdpReport {
        let flow = UdpFlow::start(self.ns, &self.via, echo(3), Duration::from_millis(5));
        thread::sleep(Duration::from_millis(300));
        flow.stop()
    }

    /// What works of ping, DNS and TCP, to the first resolver of each family.
    fn works(&self) -> [(bool, bool, bool); 2] {
        [IpAddr::from(RESOLVERS4[0]), RESOLVERS6[0].into()]
            .map(|host| (self.ping(host), self.dns(host) == Some(0), self.tcp(host)))
    }
}

const ALL: [(bool, bool, bool); 2] = [(true, true, true); 2];
const NONE: [(bool, bool, bool); 2] = [(false, false, false); 2];

#[test]
fn the_internet_answers_to_every_probe() {
    let lab = lab_or_skip!(spec());
    both_families(&lab);
    lab.internet.add_address(RESOLVERS4[0]);
    lab.internet.add_address(RESOLVERS6[0]);
    for isp in lab.isps() {
        let view = View::of(&lab, isp.number());
        let hosts = RESOLVERS4.map(IpAddr::from).into_iter().chain(RESOLVERS6.map(IpAddr::from));
        for host in hosts {
            assert!(view.ping(host) && view.tcp(host) && view.dns(host) == Some(0), "{host}");
        }
        assert_eq!(view.dns(isp.gateway()), Some(0), "the ISP's own resolver");
        for web in [IpAddr::from(web4()), web6().into()] {
            let [firefox, ubuntu] = PORTAL_CHECKS;
            let text = view.http(web, firefox, "/success.txt");
            assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with("\r\n\r\nsuccess\n"), "{text}");
            assert!(view.http(web, ubuntu, "/").contains(" 204 "));
            assert!(view.http(web, firefox, "/").contains(" 200 "));
        }
    }
    for name in PORTAL_CHECKS {
        let found = lab.machine.cmd(&["getent", "ahosts", name]).ok();
        assert!(found.contains(&web4().to_string()) && found.contains(&web6().to_string()), "{found}");
    }
}

/// How many datagrams of flows the internet has got since this was asked last.
fn arrived(lab: &Lab) -> u64 {
    let table = "table ip arrivals { counter flows { }; chain c { type filter hook prerouting priority -400;
        udp dport 7 counter name flows; }; }";
    let text = lab.internet.ns.cmd(&["nft", "list", "counter", "ip", "arrivals", "flows"]).stdout;
    lab.internet.ns.nft(&format!("add table ip arrivals\ndelete table ip arrivals\n{table}\n"));
    let number = text.split("packets ").nth(1).and_then(|rest| rest.split(' ').next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[test]
fn losses_have_a_direction_and_end() {
    let lab = lab_or_skip!(spec());
    both_families(&lab);
    let (view, other, isp) = (View::of(&lab, 1), View::of(&lab, 2), lab.isp(1));
    assert_eq!((arrived(&lab), view.flow().lost()), (0, 0));
    for (what, up, down) in [("silent", true, true), ("deaf", false, true), ("mute", true, false)] {
        let say = |on| match what {
            "silent" => isp.silent(on),
            "deaf" => isp.deaf(on),
            _ => isp.mute(on),
        };
        say(true);
        arrived(&lab);
        let flow = view.flow();
        assert_eq!((flow.answered(), arrived(&lab) == 0), (0, up), "{what}, lost down: {down}");
        assert_eq!(view.works(), NONE, "{what}");
        assert!(view.ping(isp.gateway()), "{what}: the modem answers");
        assert_eq!(view.dns(isp.gateway()), None, "{what}: its resolver waits in vain");
        assert_eq!(other.works(), ALL, "{what}: the other ISP");
        say(false);
        assert_eq!((view.flow().lost(), view.works()), (0, ALL), "{what}");
    }
    // Each packet for itself, in each direction: of both ways 36 % survive, of the way up 60 %.
    isp.lose(40);
    let losses = || {
        let flow = UdpFlow::start(view.ns, &view.via, echo(3), Duration::from_millis(1));
        thread::sleep(Duration::from_secs(2));
        flow.stop()
    };
    arrived(&lab);
    let flow = losses();
    let percent = |part: usize| part * 100 / flow.sent();
    let up = percent(usize::try_from(arrived(&lab)).expect("a small number"));
    println!("40 % lost: {up} % arrived, {} % came back of {}", percent(flow.answered()), flow.sent());
    assert!((55..=65).contains(&up) && (31..=41).contains(&percent(flow.answered())));
    isp.lose(0);
    assert_eq!(view.flow().lost(), 0);
}

#[test]
fn a_filter_swallows_one_protocol() {
    let lab = lab_or_skip!(spec());
    both_families(&lab);
    let (view, isp) = (View::of(&lab, 1), lab.isp(1));
    for (filter, left) in [
        (Filter::Icmp, (false, true, true)),
        (Filter::Dns, (true, false, true)),
        (Filter::Tcp, (true, true, false)),
    ] {
        isp.filter(filter, true);
        assert_eq!(view.works(), [left; 2], "{filter:?}");
        assert_eq!((view.flow().lost(), view.dns(isp.gateway())), (0, Some(0)), "{filter:?}");
        isp.filter(filter, false);
        assert_eq!(view.works(), ALL, "{filter:?}");
    }
}

#[test]
fn an_operator_and_the_whole_internet_go_away() {
    let lab = lab_or_skip!(spec());
    both_families(&lab);
    let views = [View::of(&lab, 1), View::of(&lab, 2)];
    for gone in [IpAddr::from(RESOLVERS4[0]), RESOLVERS6[0].into()] {
        lab.internet.outage(gone, true);
        for view in &views {
            let expected = if gone.is_ipv4() { [NONE[0], ALL[1]] } else { [ALL[0], NONE[1]] };
            assert_eq!(view.works(), expected, "{gone}");
        }
        lab.internet.outage(gone, false);
        lab.internet.outage(gone, false);
        assert_eq!(views[0].works(), ALL, "{gone}");
    }
    lab.internet.gone(true);
    for view in &views {
        assert_eq!(view.works(), NONE);
        assert_eq!(views[0].dns(lab.isp(1).gateway()), None);
    }
    lab.internet.gone(false);
    for view in &views {
        assert_eq!(view.works(), ALL);
    }
}

#[test]
fn a_dead_modem_and_a_login_page_concern_both_families() {
    let lab = lab_or_skip!(spec());
    both_families(&lab);
    let (view, isp) = (View::of(&lab, 1), lab.isp(1));
    isp.dead(true);
    assert_eq!((view.works(), view.ping(isp.gateway())), (NONE, false));
    isp.dead(false);
    assert_eq!(view.works(), ALL);
    isp.portal(true);
    assert_eq!((view.works(), view.dns(isp.gateway())), (NONE, Some(0)));
    for web in [IpAddr::from(web4()), web6().into()] {
        let text = view.http(web, PORTAL_CHECKS[0], "/success.txt");
        assert!(text.contains(" 302 "), "{web}: {text}");
    }
    isp.portal(false);
    assert_eq!(view.works(), ALL);
}

#[test]
fn flapping_comes_and_goes_and_ends() {
    let lab = lab_or_skip!(Spec::desktop());
    let view = View::of(&lab, 1);
    let flow = UdpFlow::start(view.ns, &view.via, echo(3), Duration::from_millis(5));
    let flap = lab.isp(1).flap(Duration::from_millis(600), Duration::from_millis(300));
    thread::sleep(Duration::from_millis(2300));
    let start = Instant::now();
    drop(flap);
    assert!(start.elapsed() < Duration::from_millis(500), "it ends at once: {:?}", start.elapsed());
    let report = flow.stop();
    println!("{}", report.summary());
    let silences = report.packets.windows(2).filter(|two| two[0].answer.is_some() && two[1].answer.is_none());
    assert!((3..=5).contains(&silences.count()), "{}", report.summary());
    assert_eq!(view.flow().lost(), 0);
}

/// The middle one of a flow's round trips, the shortest and the longest.
fn round_trips(report: &UdpReport) -> [Duration; 3] {
    let times = report.packets.iter().filter_map(|packet| Some(packet.answer?.0 - packet.sent));
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    [times[times.len() / 2], times[0], times[times.len() - 1]]
}

#[test]
fn a_delay_is_kept_and_loses_nothing() {
    let lab = lab_or_skip!(spec().exclusive());
    both_families(&lab);
    let (view, isp) = (View::of(&lab, 1), lab.isp(1));
    let run = |delay: u64, interval: u64, time: u64| {
        let flow = UdpFlow::start(view.ns, &view.via, echo(3), Duration::from_micros(interval));
        thread::sleep(Duration::from_millis(time));
        // Late answers are waited for as long as the flow's own grace, so the last ones may be missing.
        let report = flow.stop();
        let to = report.ran.saturating_sub(Duration::from_millis(delay));
        let (lost, sent) = report.lost_between(Duration::ZERO, to);
        let [median, least, most] = round_trips(&report);
        println!(
            "delay {delay} ms, {} a second: {lost} of {sent} lost, round trip {median:?}, {least:?} to {most:?}",
            sent * 1000 / usize::try_from(to.as_millis()).expect("seconds")
        );
        let wanted = Duration::from_millis(delay);
        assert!(least >= wanted && median < wanted + Duration::from_millis(20), "{median:?}");
        assert_eq!(lost, 0);
    };
    run(0, 500, 1000);
    for delay in [800, 20, 0] {
        isp.delay(Duration::from_millis(delay));
        run(delay, 500, 2000 + delay);
    }
    // What waits is not lost when the delay ends, and all that goes over it works.
    isp.delay(Duration::from_millis(800));
    let flow = UdpFlow::start(view.ns, &view.via, echo(3), Duration::from_micros(500));
    thread::sleep(Duration::from_millis(1000));
    isp.delay(Duration::ZERO);
    thread::sleep(Duration::from_millis(300));
    let report = flow.stop();
    println!("800 ms, then none: {}", report.summary());
    assert_eq!(report.lost(), 0);
    assert_eq!(view.works(), ALL);
    assert!(view.http(web4(), PORTAL_CHECKS[0], "/").ends_with(&format!("{}\n", isp.public())));
}

#[test]
fn a_slow_wire_carries_bulk() {
    let lab = lab_or_skip!(spec().exclusive());
    both_families(&lab);
    let ns = lab.machine.netns();
    lab.isp(1).delay(Duration::from_millis(20));
    let dests = [(internet4(6).into(), BULK), (internet6(6).into(), BULK), (internet4(6).into(), FLOOD)];
    for dest in dests.map(|(address, port): (IpAddr, u16)| SocketAddr::new(address, port)) {
        let download = TcpDownload::start(ns, &Via::device("eth1"), dest).expect("the bulk port answers");
        thread::sleep(Duration::from_secs(2));
        let report = download.stop();
        println!("{dest} over a slow wire: {report:?}");
        assert!(report.bytes > 2_000_000 && report.broke.is_none(), "{report:?}");
        assert!(report.longest_stall < Duration::from_millis(300), "{report:?}");
    }
}
