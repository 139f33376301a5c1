//! Real VPNs over the uplinks: nothing plain may leave beside a full tunnel, and the tunnel outlives its uplink.

mod guard;
mod openvpn;
mod wireguard;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::balance::bound_sockets_leave_by_their_uplink;
use crate::ctl::{Ctl, on, ours, package};
use crate::kit::address::{ECHO, echoes4, internet4};
use crate::kit::{
    HeldTcp, Isp, Lab, NewFlows, NewTcp, Ns, Server, Service, Spec, UdpFlow, Via, connect_many,
};
use crate::watch::rest;
use guard::{Guard, Seen};

/// How a tunnel's own packets are known: `udp` or `tcp`, the server's address and port.
#[derive(Debug, Clone, Copy)]
struct Outer {
    protocol: &'static str,
    server: Ipv4Addr,
    port: u16,
}

/// How long a tunnel may take to stand.
const UP: Duration = Duration::from_secs(30);

/// A way in which the uplink under a tunnel dies.
type Death = (&'static str, fn(&Isp, bool));

const SILENT: Death = ("silent", |isp, on| isp.silent(on));
const CARRIER: Death = ("carrier", |isp, on| isp.carrier(!on));

/// Until NetworkManager gives the link up, and takes all routes over it away.
const LONG: Death = ("carrier, for long", |isp, on| {
    isp.carrier(!on);
    if on {
        rest(10_000);
    }
});

/// A VPN of which one end is the lab's machine.
trait Vpn {
    /// The machine's address in it: what the internet sees of all that goes through it.
    const INSIDE: Ipv4Addr;
    /// Its device in the machine.
    fn device(&self) -> &str;
    /// How the outer packets are known.
    fn outer(&self) -> Outer;
    /// Connects, and returns when packets get through.
    fn connect(&self, lab: &Lab);
    /// Disconnects, and returns when everything of it is gone.
    fn disconnect(&self, lab: &Lab);
}

/// A router whose administrator masquerades into the tunnel and forwards a port to a client. uplinkd is not installed yet.
fn router(lab: &Lab) {
    lab.machine.write(
        "/root/own.nft",
        &format!(
            "table inet own {{
                chain out {{ type nat hook postrouting priority srcnat;
                    oifname {{ wg0, tun0, tailscale0 }} masquerade; }}
                chain in {{ type nat hook prerouting priority dstnat;
                    iifname {{ eth1, eth2 }} tcp dport 8080 dnat ip to 10.77.0.10:{ECHO}; }}
            }}\n"
        ),
    );
    lab.machine.cmd(&["nft", "-f", "/root/own.nft"]).ok();
}

fn spec() -> Spec {
    Spec::router()
}

/// Installs uplinkd, and waits for both uplinks.
fn ready(lab: &Lab) {
    lab.machine.install_deb(&package());
    lab.machine.wait_active(2);
}

/// The tunnel comes and goes while uplinkd runs; then it stands while uplinkd comes for the first time.
#[track_caller]
fn both_orders<V: Vpn>(lab: &Lab, vpn: &V, what: &str) {
    vpn.connect(lab);
    ready(lab);
    holds(lab, vpn, &format!("{what} before uplinkd"));
    vpn.disconnect(lab);
    balanced(lab);
    let before = ours(&lab.machine);
    vpn.connect(lab);
    holds(lab, vpn, &format!("{what} after uplinkd"));
    vpn.disconnect(lab);
    lab.machine.wait("ours as before", UP, || (ours(&lab.machine) == before).then_some(()));
    balanced(lab);
}

/// Waits until connections of before have ended for good: their last packets go where the connection was.
#[track_caller]
fn ended(lab: &Lab) {
    let states = "established syn-sent fin-wait-1 fin-wait-2 close-wait last-ack closing";
    let states = states.split(' ').flat_map(|state| ["state", state]);
    let words: Vec<_> = ["ss", "-Htn"].into_iter().chain(states).chain(["dport = :7"]).collect();
    for ns in [lab.machine.netns(), &lab.client().ns] {
        let none = || lab.machine.cmd_at(ns, &words).ok().is_empty().then_some(());
        lab.machine.wait("the end of what was connected", UP, none);
    }
}

/// All new flows of the machine and its LAN are in the tunnel, none leaves by an uplink.
#[track_caller]
fn leaks_nothing<V: Vpn>(lab: &Lab, vpn: &V, what: &str) {
    let seen = in_tunnel(lab, vpn, what, (&echoes4(), V::INSIDE.into()));
    println!("{what}: {seen}");
    seen.assert_nothing_plain4(what);
}

/// A second of new flows of both protocols to there, from the machine and from its LAN, all of which the internet must see
/// come from `inside`; and what the ISPs saw meanwhile.
#[track_caller]
fn in_tunnel<V: Vpn>(lab: &Lab, vpn: &V, what: &str, (to, inside): (&[SocketAddr], IpAddr)) -> Seen {
    lab.machine.cmd(&["uplinkctl", "nudge", "--wait", "5"]).ok();
    ended(lab);
    let guard = Guard::new(lab, vpn.outer());
    for (who, ns) in [("machine", lab.machine.netns()), ("client", &lab.client().ns)] {
        let udp = NewFlows::start(ns, &Via::any(), to, 100);
        let tcp = NewTcp::start(ns, &Via::any(), to, 50, Duration::from_secs(3));
        rest(1000);
        for report in [udp.stop(), tcp.stop()] {
            let strangers = report.seen().into_iter().filter(|(seen, _)| *seen != inside);
            assert_eq!(strangers.collect::<Vec<_>>(), [], "{what}: {who}");
            assert_eq!(report.lost(), 0, "{what}: {who}: {}", report.summary());
        }
    }
    let seen = guard.read();
    assert!(seen.tunnel() >= 200, "{what}: {seen}");
    seen
}

/// [`leaks_nothing`]; who comes in by an uplink is answered there; and the tunnel itself is no uplink.
#[track_caller]
fn holds<V: Vpn>(lab: &Lab, vpn: &V, what: &str) {
    leaks_nothing(lab, vpn, what);
    doors(lab);
    no_uplink(lab, vpn);
}

/// Visitors of the machine, and of a client by a forwarded port, are answered by their door; bound sockets obey.
#[track_caller]
fn doors(lab: &Lab) {
    crate::balance::visitors_reach_the_machine(lab);
    let _behind = Server::start(&lab.client().ns, ECHO, Service::Echo);
    crate::balance::visit_by_every_door(lab, 8080);
    bound_sockets_leave_by_their_uplink(lab);
}

#[track_caller]
fn no_uplink<V: Vpn>(lab: &Lab, vpn: &V) {
    let status = lab.machine.status();
    assert!(on(&status, vpn.device()).is_null(), "{status}");
    assert_eq!(status["active"]["ipv4"].as_array().map(Vec::len), Some(2), "{status}");
}

/// Without a tunnel all new flows are shared out, and nothing failed.
#[track_caller]
fn balanced(lab: &Lab) {
    lab.machine.cmd(&["uplinkctl", "nudge", "--wait", "5"]).ok();
    for ns in [lab.machine.netns(), &lab.client().ns] {
        let shares = connect_many(ns, &Via::any(), 60, &echoes4());
        assert_eq!((shares.isps(), shares.answered()), (vec![1, 2], 60), "{shares:?}");
    }
}

/// The uplink that carries the tunnel dies and comes back, under traffic: what became of that.
///
/// Nothing plain leaves meanwhile, and packets get through again, by the other uplink, within `limit`.
#[track_caller]
fn outlives<V: Vpn>(lab: &Lab, vpn: &V, death: Death, limit: Duration) {
    let what = format!("{} {}", vpn.device(), death.0);
    ended(lab);
    let guard = Guard::new(lab, vpn.outer());
    let to = |n| SocketAddr::from((internet4(n), ECHO));
    let flow = |ns: &Ns, n| UdpFlow::start(ns, &Via::any(), to(n), Duration::from_millis(20));
    let running = [flow(lab.machine.netns(), 1), flow(&lab.client().ns, 2)];
    let mut held = HeldTcp::connect(&lab.client().ns, &Via::any(), to(3)).expect("connects");
    rest(1000);
    let carrier = guard.read().carrier();
    let isp = lab.isp(carrier);
    let at = Instant::now();
    death.1(isp, true);
    let other = lab.machine.wait(&format!("{what}: the other uplink"), limit, || {
        let (before, after) = (guard.read(), {
            rest(200);
            guard.read()
        });
        after.grown_since(&before).into_iter().find(|&number| number != carrier)
    });
    println!("{what}: outer packets by ISP {other} instead of {carrier} after {:.1?}", at.elapsed());
    rest(3000);
    let reports = running.map(UdpFlow::stop);
    for report in &reports {
        let recovery = report.recovery(at);
        println!("{what}: {recovery:?}, lost {} of {}", report.lost(), report.sent());
        assert!(recovery.recovered.is_some_and(|after| after < limit), "{what}: {}", report.summary());
        assert!(report.seen().iter().all(|(seen, _)| *seen == IpAddr::from(V::INSIDE)), "{what}");
    }
    held.ping(Duration::from_secs(5)).expect("a connection inside the tunnel lives on");
    let seen = guard.read();
    println!("{what}: {seen}");
    seen.assert_nothing_plain4(&what);
    death.1(isp, false);
    lab.machine.wait_status("both again", Duration::from_secs(60), |status| {
        status["active"]["ipv4"].as_array().is_some_and(|list| list.len() == 2)
    });
    held.ping(Duration::from_secs(5)).expect("and still");
}
