//! Beside firewalls that load, reload and flush: firewalld, ufw, and a file of nftables.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::balance::{bound_sockets_leave_by_their_uplink, visit_by_every_door, visitors_reach_the_machine};
use crate::containers::move_with_the_uplink;
use crate::ctl::{Ctl, installed, on, set};
use crate::kit::address::{ECHO, echoes4, echoes6, internet6};
use crate::kit::spec::profile_auto;
use crate::kit::{HeldTcp, Lab, Server, Service, Spec, UdpFlow, Via, connect_many, lab_or_skip};
use crate::restart::losses;

/// A firewall that reloads drops what is new for a moment, probes as well; an uplink that is given up for it takes a while.
const LIMIT: Duration = Duration::from_secs(60);

/// Our table with its handles, which tell it from one that was loaded anew, and without what its sets hold.
fn table(lab: &Lab) -> String {
    lab.machine.cmd(&["nft", "-at", "list", "table", "inet", "uplinkd"]).stdout
}

/// Everybody else's rules, without counters.
fn theirs(lab: &Lab) -> String {
    let text = lab.machine.foreign_snapshot();
    let (_, nft) = text.split_once("# nft").expect("a snapshot has a part about nftables");
    nft.split("# sysctl").next().unwrap_or_default().to_owned()
}

/// The LAN and the machine reach the internet over both uplinks, each with the right address.
#[track_caller]
fn all_reach_out(lab: &Lab, what: &str, six: bool) {
    for ns in [&lab.client().ns, lab.machine.netns()] {
        let four = [echoes4()];
        for dests in four.into_iter().chain(six.then(echoes6)) {
            let shares = connect_many(ns, &Via::any(), 60, &dests);
            println!(
                "{what}: {}, {}: {} of {} by ISP 1",
                ns.name(),
                dests[0],
                shares.of(1),
                shares.answered()
            );
            assert!(shares.failures.is_empty() && shares.strange.is_empty(), "{what}: {shares:?}");
            assert_eq!(shares.isps(), [1, 2], "{what}: {shares:?}");
        }
    }
    for isp in lab.isps() {
        isp.not_spoofed(what);
    }
}

/// Declares the uplinks "up" by hand, or leaves them to the probes again. A firewall that reloads drops all for a while,
/// answers to probes as well: for long enough, where the machine is busy, to look like an uplink that is down, which is not
/// what is watched then.
fn decide(lab: &Lab, how: &str) {
    let status = lab.machine.status();
    for device in ["eth1", "eth2"] {
        let name = on(&status, device)["name"].as_str().expect("a name").to_owned();
        lab.machine.cmd(&["uplinkctl", how, &name]).ok();
    }
}

/// How long our table is away when a command takes it, with the command's own time.
#[track_caller]
fn gone_for(lab: &Lab, command: &str) -> Duration {
    // Not so fast that it would count as a fight, which is answered ever more slowly on purpose.
    std::thread::sleep(Duration::from_millis(2500));
    let script = format!(
        "begin=$(date +%s%N); {command}
         until nft list chain inet uplinkd masquerade_private 2>/dev/null | grep -q 'local masquerade' &&
               nft list chain inet uplinkd slot_1 2>/dev/null | grep -q 'ct mark set'; do :; done
         echo $(($(date +%s%N) - begin))"
    );
    let nanoseconds = lab.machine.sh(&script).ok().trim().parse().expect("a number");
    Duration::from_nanos(nanoseconds)
}

/// A router whose profiles say in which zone each link is: both uplinks outside, the LAN inside.
fn zoned() -> Spec {
    let outside = "\n[connection]\nzone=external\n";
    let lan = "[connection]\nid=lan\ntype=ethernet\ninterface-name=lan0\nzone=internal\n\n\
               [ipv4]\nmethod=manual\naddress1=10.77.0.1/24\n\n[ipv6]\nmethod=manual\naddress1=fd77::1/64\n";
    let uplink = |spec: Spec, n| {
        spec.profile(&format!("isp{n}"), &profile_auto(&format!("isp{n}"), &format!("eth{n}"), outside))
    };
    installed([1, 2].into_iter().fold(Spec::router(), uplink).profile("lan", lan))
}

/// Starts firewalld with what an administrator lets through.
fn start_firewalld(lab: &Lab) {
    lab.machine
        .sh("systemctl start firewalld
         firewall-cmd -q --permanent --zone=external --add-port=7/tcp
         firewall-cmd -q --permanent --zone=external --add-forward-port=port=8080:proto=tcp:toport=7:toaddr=10.77.0.10
         firewall-cmd -q --permanent --zone=external --add-rich-rule='rule family=ipv6 forward-port port=8080 protocol=tcp to-port=7 to-addr=fd77::10'
         firewall-cmd -q --permanent --new-policy=out
         firewall-cmd -q --permanent --policy=out --add-ingress-zone=internal
         firewall-cmd -q --permanent --policy=out --add-egress-zone=external
         firewall-cmd -q --permanent --policy=out --set-target=ACCEPT
         firewall-cmd -q --reload")
        .ok();
    for (device, zone) in [("eth1", "external"), ("eth2", "external"), ("lan0", "internal")] {
        let told = lab.machine.cmd(&["firewall-cmd", &format!("--get-zone-of-interface={device}")]).ok();
        assert_eq!(told.trim(), zone, "{device}");
    }
    println!(
        "firewalld {}",
        lab.machine.sh("firewall-cmd --version; firewall-cmd --zone=external --list-all").ok()
    );
}

#[test]
fn firewalld_with_zones_lets_both_uplinks_be_used() {
    let lab = lab_or_skip!(zoned().ipv6());
    lab.machine.wait_both_families();
    start_firewalld(&lab);
    lab.machine.wait_both_families();
    all_reach_out(&lab, "zones", true);
    let before = theirs(&lab);
    let _behind = Server::start(&lab.client().ns, ECHO, Service::Echo);
    // Both uplinks alike, and one that carries nothing of its own.
    for tier in [1, 2] {
        set(&lab, 2, &format!("tier={tier}"));
        lab.machine.wait_active(3 - tier);
        visitors_reach_the_machine(&lab);
        visit_by_every_door(&lab, 8080);
        bound_sockets_leave_by_their_uplink(&lab);
        visited_over_ipv6(&lab);
    }
    set(&lab, 2, "tier=1");
    lab.machine.wait_both_families();
    move_with_the_uplink(&lab, &lab.client().ns, "10.77.0.");
    lab.machine.sh("systemctl restart uplinkd").ok();
    lab.machine.wait_both_families();
    lab.machine.sh("uplinkctl flush; systemctl restart uplinkd").ok();
    lab.machine.wait_both_families();
    assert_eq!(theirs(&lab), before, "their rules");
}

/// Strict reverse path checks of IPv6, which firewalld makes by default, must let in what comes by either uplink, though
/// main's default would send the answer by one of them.
fn visited_over_ipv6(lab: &Lab) {
    let rules = lab.machine.cmd(&["nft", "list", "chain", "inet", "firewalld", "filter_PREROUTING"]).ok();
    assert!(rules.contains("fib saddr . mark . iif oif missing drop"), "no strict check: {rules}");
    let _service = Server::start(lab.machine.netns(), ECHO, Service::Echo);
    for isp in lab.isps() {
        let device = isp.device();
        let text =
            lab.machine.cmd(&["ip", "-6", "-br", "addr", "show", "dev", &device, "scope", "global"]).ok();
        let own = text.split_whitespace().find_map(|word| word.split_once('/')?.0.parse::<IpAddr>().ok());
        let own = own.expect("a global address");
        // To the machine; and to a host behind it, where no address of ours tells the way back.
        for port in [ECHO, 8080] {
            let visit = lab.internet.connect(SocketAddr::new(own, port), Duration::from_secs(3));
            let visit = visit.unwrap_or_else(|error| panic!("port {port} by {device}: {error}"));
            let mut visit = HeldTcp::over(visit).expect("greeted");
            visit.ping(Duration::from_secs(3)).expect("an answer");
        }
        // And out by it, whether or not main would.
        let to = SocketAddr::new(internet6(1).into(), ECHO);
        let shares = connect_many(lab.machine.netns(), &Via::device(&device), 8, &[to]);
        assert_eq!(shares.of(isp.number()), 8, "{shares:?}");
        isp.not_spoofed("over IPv6");
    }
}

#[test]
fn reloads_of_firewalld_leave_our_table_alone() {
    let lab = lab_or_skip!(zoned().exclusive());
    lab.machine.wait_active(2);
    start_firewalld(&lab);
    lab.machine.wait_active(2);
    decide(&lab, "up");
    let (ours, before) = (table(&lab), theirs(&lab));
    for command in ["firewall-cmd --reload", "firewall-cmd --complete-reload", "systemctl restart firewalld"]
    {
        let lost = losses(&lab, command, || drop(lab.machine.sh(command).ok()));
        println!("{command}: {lost} packets lost");
        assert_eq!(table(&lab), ours, "{command}: our table");
        // Started anew, it takes the links in any order.
        let same = theirs(&lab) == before;
        assert!(same || command.starts_with("systemctl"), "{command}: their rules\n{}", theirs(&lab));
        all_reach_out(&lab, command, false);
    }
}

#[test]
fn ufw_with_route_rules_lets_both_uplinks_be_used() {
    let lab = lab_or_skip!(installed(Spec::router()).exclusive());
    lab.machine.wait_active(2);
    let ours = table(&lab);
    decide(&lab, "up");
    lab.machine
        .sh("ufw allow 7/tcp
         ufw route allow in on lan0 out on eth1
         ufw route allow in on lan0 out on eth2
         ufw route allow in on eth1 out on lan0 to 10.77.0.10 port 7 proto tcp
         ufw route allow in on eth2 out on lan0 to 10.77.0.10 port 7 proto tcp
         printf '*nat\\n:PREROUTING ACCEPT [0:0]\\n-A PREROUTING -i eth+ -p tcp --dport 8080 -j DNAT --to 10.77.0.10:7\\nCOMMIT\\n' >>/etc/ufw/before.rules
         ufw --force enable")
        .ok();
    println!("{}", lab.machine.sh("ufw version; ufw status verbose").ok());
    // What guides to hardening add: the kernel checks the way back strictly, everywhere.
    lab.machine.cmd(&["sysctl", "-qw", "net.ipv4.conf.all.rp_filter=1"]).ok();
    for device in ["eth1", "eth2"] {
        let key = format!("net.ipv4.conf.{device}.rp_filter");
        let loose = || (lab.machine.netns().sysctl_read(&key) == "2").then_some(());
        lab.machine.wait(&format!("{key} = 2"), LIMIT, loose);
    }
    let _behind = Server::start(&lab.client().ns, ECHO, Service::Echo);
    let before = theirs(&lab);
    for tier in [1, 2] {
        set(&lab, 2, &format!("tier={tier}"));
        lab.machine.wait_active(3 - tier);
        visitors_reach_the_machine(&lab);
        visit_by_every_door(&lab, 8080);
        bound_sockets_leave_by_their_uplink(&lab);
    }
    set(&lab, 2, "tier=1");
    lab.machine.wait_active(2);
    all_reach_out(&lab, "ufw", false);
    assert_eq!(theirs(&lab), before, "their rules");
    for command in ["ufw reload", "ufw disable", "ufw --force enable"] {
        let lost = losses(&lab, command, || drop(lab.machine.sh(command).ok()));
        println!("{command}: {lost} packets lost");
        assert_eq!(table(&lab), ours, "{command}: our table");
        all_reach_out(&lab, command, false);
    }
    decide(&lab, "auto");
    move_with_the_uplink(&lab, &lab.client().ns, "10.77.0.");
}

#[test]
fn a_ruleset_that_flushes_everything_costs_our_table_for_a_moment() {
    let lab = lab_or_skip!(installed(Spec::router()).exclusive());
    lab.machine.wait_active(2);
    let file = lab.machine.read("/etc/nftables.conf");
    assert!(file.contains("flush ruleset"), "{file}");
    lab.machine.cmd(&["nft", "-f", "/etc/nftables.conf"]).ok();
    let before = theirs(&lab);
    for command in [
        "nft -f /etc/nftables.conf",
        "nft flush ruleset",
        "nft delete table inet uplinkd",
        "nft flush table inet uplinkd",
        "nft flush chain inet uplinkd masquerade_private",
        // Others jump there, so that it is still in use.
        "nft flush chain inet uplinkd slot_1",
    ] {
        let mut times: Vec<_> = (0..5).map(|_| gone_for(&lab, command)).collect();
        times.sort();
        println!("{command}: back after {times:.1?}, with the command's own time");
        assert!(times[0] < Duration::from_millis(100) && times[4] < Duration::from_secs(2), "{times:?}");
        all_reach_out(&lab, command, false);
    }
    // The unit itself, under traffic. What is sent in between goes out as it is: without any NAT.
    lab.machine.cmd(&["systemctl", "start", "nftables"]).ok();
    for verb in ["restart", "reload"] {
        std::thread::sleep(Duration::from_millis(2500));
        let lost = losses(&lab, verb, || drop(lab.machine.cmd(&["systemctl", verb, "nftables"]).ok()));
        println!("nftables.service, {verb}: {lost} packets lost");
        assert!(lost < 200, "{verb}: more than a fifth of a second of the ten flows and the new ones");
        assert_eq!(theirs(&lab), before, "{verb}: their rules");
    }
    let log = lab.machine.journal("uplinkd");
    assert!(!log.contains("somebody keeps"), "{log}");
}

/// A flow from before a firewall was there goes on when it comes, and when it goes.
#[test]
fn a_firewall_that_comes_and_goes_moves_no_flow() {
    let lab = lab_or_skip!(zoned());
    lab.machine.wait_active(2);
    let flows: Vec<_> = (echoes4().into_iter().take(12))
        .map(|to| UdpFlow::start(&lab.client().ns, &Via::any(), to, Duration::from_millis(20)))
        .collect();
    start_firewalld(&lab);
    lab.machine.sh("systemctl stop firewalld; uplinkctl nudge --wait 5").ok();
    for report in flows.into_iter().map(UdpFlow::stop) {
        assert_eq!(report.seen().len(), 1, "{}", report.summary());
    }
    all_reach_out(&lab, "after firewalld", false);
}
