//! Policies: whose traffic takes which uplink, what becomes of it when that is lost, and that none leaks.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use crate::ctl::{Ctl, installed, unheld};
use crate::kit::address::{ECHO, echoes4, echoes6, internet4, internet6};
use crate::kit::{HeldTcp, Lab, Ns, Spec, Via, connect_many, isp_of, lab_or_skip};

const FILE: &str = "/etc/uplinkd/conf.d/20-policies.toml";
const LIMIT: Duration = Duration::from_secs(30);

/// The names of the uplinks, beside whatever else a test configures.
const NAMES: &str = "[[uplink]]\nmatch.interface = 'eth1'\nname = 'one'\n\n[[uplink]]\nmatch.interface = 'eth2'\nname = 'two'\n\n";

pub(crate) fn spec(policies: &str) -> Spec {
    unheld(installed(Spec::router().ipv6())).file(FILE, &format!("{NAMES}{policies}"), 0o644)
}

/// Has other policies read.
#[track_caller]
fn set(lab: &Lab, policies: &str) {
    lab.machine.write(FILE, &format!("{NAMES}{policies}"));
    lab.machine.cmd(&["uplinkctl", "reload"]).ok();
}

/// Waits until a policy is as wanted in a family.
#[track_caller]
fn stands(lab: &Lab, policy: &str, family: &str, state: &str, uplinks: &[&str]) -> Value {
    let of = |status: &Value| {
        let all = status["policies"].as_array().cloned().unwrap_or_default();
        let one = all.into_iter().find(|one| one["name"] == policy);
        one.map(|one| one[family].clone()).unwrap_or_default()
    };
    let what = format!("policy {policy}, {family}: {state} {uplinks:?}");
    lab.machine.wait_status(&what, LIMIT, |status| {
        let leg = of(status);
        leg["state"] == state && leg["uplinks"] == serde_json::json!(uplinks)
    })
}

pub(crate) fn echo4(n: u8) -> SocketAddr {
    SocketAddr::from((internet4(n), ECHO))
}

fn echo6(n: u8) -> SocketAddr {
    SocketAddr::from((internet6(n), ECHO))
}

/// All of some connections go by one ISP.
#[track_caller]
pub(crate) fn all_by(isp: u8, who: &str, ns: &Ns, via: &Via, dests: &[SocketAddr]) {
    let shares = connect_many(ns, via, 12, dests);
    assert!(shares.failures.is_empty() && shares.of(isp) == 12, "{who} to {dests:?}: {shares:?}");
}

/// Some connections go by both.
#[track_caller]
pub(crate) fn some_by_both(who: &str, ns: &Ns, dests: &[SocketAddr]) {
    let shares = connect_many(ns, &Via::any(), 40, dests);
    assert!(shares.failures.is_empty() && shares.isps() == [1, 2], "{who}: {shares:?}");
}

#[test]
fn matches_move_their_traffic_and_leave_the_rest() {
    let lab = lab_or_skip!(spec(
        "[[policy]]\nname = 'to'\nmatch.to = ['203.0.113.1', '2001:db8:ffff::1']\nuplinks = 'two'\n\
         [[policy]]\nname = 'port'\nmatch = { ports = 7, to = '203.0.113.2' }\nuplinks = 'one'\n\
         [[policy]]\nname = 'link'\nmatch = { interface = 'lan*', to = '203.0.113.3' }\nuplinks = 'two'\n\
         [[policy]]\nname = 'client'\nmatch = { from = '10.77.0.0/24', to = '203.0.113.4' }\nuplinks = 'one'\n\
         [[policy]]\nname = 'program'\nmatch = { user = 'nobody' }\nmethod = 'enforced'\nuplinks = 'two'\n\
         [[policy]]\nname = 'list'\nmatch.to = '/etc/uplinkd/list'\nuplinks = 'one'\n"
    )
    .file("/etc/uplinkd/list", "# Two of them.\n203.0.113.8/31\n2001:db8:ffff::8/127\n", 0o644));
    lab.machine.wait_both_families();
    stands(&lab, "list", "ipv4", "used", &["one"]);
    let (client, own) = (&lab.client().ns, lab.machine.netns());
    assert_eq!(internet6(1).to_string(), "2001:db8:ffff::1");
    for (who, ns) in [("client", client), ("router", own)] {
        all_by(2, who, ns, &Via::any(), &[echo4(1), echo6(1)]);
        all_by(1, who, ns, &Via::any(), &[echo4(2)]);
        all_by(1, who, ns, &Via::any(), &[echo4(8), echo4(9), echo6(8), echo6(9)]);
        some_by_both(who, ns, &[20, 21, 22, 23, 24, 25, 26, 27].map(echo4));
        some_by_both(who, ns, &[20, 21, 22, 23, 24, 25, 26, 27].map(echo6));
    }
    all_by(2, "client", client, &Via::any(), &[echo4(3)]);
    all_by(1, "client", client, &Via::any(), &[echo4(4)]);
    // A program of somebody else's: with the right source, whatever the default route would have been.
    for dest in [echo4(30), echo6(30), echo4(31), echo6(31), echo4(32), echo6(32)] {
        let script = format!(
            "exec 3<>/dev/tcp/{}/{} && read -r line <&3 && echo \"${{line%% *}}\"",
            dest.ip(),
            dest.port()
        );
        let command = ["setpriv", "--reuid=nobody", "--clear-groups", "bash", "-c", &script];
        let seen = lab.machine.cmd(&command).ok();
        assert_eq!(seen.trim().parse().ok().and_then(isp_of), Some(2), "{dest}: {seen}");
    }
    // What carries a mark of somebody's is left alone.
    let marked = connect_many(own, &Via::mark(0x10), 40, &[echo4(1)]);
    assert!(marked.failures.is_empty() && marked.isps() == [1, 2], "{marked:?}");
    for isp in lab.isps() {
        assert_eq!(isp.spoofed(), 0, "ISP {} got a packet with another's address", isp.number());
    }
    // And it is all shown, and all gone when it is not wanted.
    let told = lab.machine.cmd(&["uplinkctl"]).ok();
    assert!(told.contains("POLICY") && told.contains("program"), "{told}");
    let plan = lab.machine.cmd(&["uplinkctl", "plan", "--full"]).ok();
    assert!(plan.contains("table inet uplinkd_policy"), "{plan}");
    lab.machine.cmd(&["uplinkctl", "flush"]).ok();
    assert!(!lab.machine.cmd(&["nft", "list", "tables"]).ok().contains("uplinkd_policy"));
}

/// Counts what leaves by the second uplink for the servers of the policy.
fn count_leaks(lab: &Lab) {
    lab.machine.nft(
        "table inet leaks { counter by2 { }; chain out { type filter hook postrouting priority 300; \
         oifname eth2 ip daddr 203.0.113.0/27 counter name by2; \
         oifname eth2 ip6 daddr 2001:db8:ffff::/123 counter name by2; }; }\n",
    );
}

#[track_caller]
fn leaked(lab: &Lab) -> u64 {
    let text = lab.machine.cmd(&["nft", "list", "counter", "inet", "leaks", "by2"]).ok();
    let mut words = text.split_whitespace().skip_while(|word| *word != "packets");
    words.nth(1).and_then(|number| number.parse().ok()).expect("a counter")
}

/// Tries both families from the client and from the machine; nothing gets through.
#[track_caller]
fn nothing_gets_out(lab: &Lab, what: &str) {
    for (who, ns) in [("client", &lab.client().ns), ("router", lab.machine.netns())] {
        for dests in [echoes4(), echoes6()] {
            let shares = connect_many(ns, &Via::any(), 3, &dests);
            assert_eq!(shares.answered(), 0, "{what}, {who}: {shares:?}");
        }
        let socket = ns.run(|| Via::any().udp(echo4(1)));
        drop(socket.and_then(|socket| socket.send(b"?")));
    }
    assert_eq!(leaked(lab), 0, "{what}: packets by the other uplink");
}

#[test]
fn what_is_enforced_never_leaks() {
    let lab = lab_or_skip!(spec(
        "[[policy]]\nname = 'everything'\nmatch.to = ['203.0.113.0/27', '2001:db8:ffff::/123']\nmethod = 'enforced'\nuplinks = 'one'\n"
    ));
    lab.machine.wait_both_families();
    stands(&lab, "everything", "ipv6", "used", &["one"]);
    count_leaks(&lab);
    let works = |what: &str| {
        for (who, ns) in [("client", &lab.client().ns), ("router", lab.machine.netns())] {
            for dests in [echoes4(), echoes6()] {
                all_by(1, &format!("{what}, {who}"), ns, &Via::any(), &dests);
            }
        }
        assert_eq!(leaked(&lab), 0, "{what}");
    };
    works("at first");
    let mut held = HeldTcp::connect(&lab.client().ns, &Via::any(), echo4(1)).expect("connects");
    let down = || {
        for family in ["ipv4", "ipv6"] {
            stands(&lab, "everything", family, "blocked", &[]);
        }
    };
    let back = |what: &str| {
        for family in ["ipv4", "ipv6"] {
            stands(&lab, "everything", family, "used", &["one"]);
        }
        works(what);
    };
    // Without a carrier, from the first moment; then when that is known.
    lab.isp(1).carrier(false);
    nothing_gets_out(&lab, "at once");
    down();
    nothing_gets_out(&lab, "no carrier");
    assert!(held.ping(Duration::from_secs(1)).is_err(), "a connection over it goes on elsewhere");
    assert_eq!(leaked(&lab), 0, "a connection that ran");
    lab.isp(1).carrier(true);
    back("the carrier is back");
    lab.isp(1).silent(true);
    nothing_gets_out(&lab, "silent, and not known yet");
    down();
    nothing_gets_out(&lab, "silent");
    lab.isp(1).silent(false);
    back("it speaks again");
    // Without a daemon.
    lab.machine.sh("systemctl kill -s KILL uplinkd; systemctl stop uplinkd").ok();
    works("no daemon");
    lab.isp(1).carrier(false);
    nothing_gets_out(&lab, "no carrier and no daemon");
    lab.machine.cmd(&["systemctl", "start", "uplinkd"]).ok();
    down();
    nothing_gets_out(&lab, "started without its carrier");
    // The link is taken away altogether, with its addresses and routes.
    lab.machine.cmd(&["ip", "link", "set", "eth1", "down"]).ok();
    nothing_gets_out(&lab, "administratively down");
    all_by(2, "what no policy is for", &lab.client().ns, &Via::any(), &[echo4(40), echo6(40)]);
}

#[test]
fn each_answer_to_a_failure_is_the_one_that_was_chosen() {
    let policy = |name: &str, to: &str, more: &str| {
        format!("[[policy]]\nname = '{name}'\nmatch.to = ['203.0.113.{to}', '2001:db8:ffff::{to}']\n{more}\n")
    };
    let lab = lab_or_skip!(spec(
        &[
            policy("next", "1", "uplinks = 'one'\non-failure = 'next'"),
            policy("block", "2", "uplinks = 'one'\non-failure = 'block'"),
            policy("pass", "3", "uplinks = 'one'"),
            policy("listed", "4", "method = 'priority'\nuplinks = ['one', 'two']"),
            policy("later", "1", "uplinks = 'two'\non-failure = 'block'"),
        ]
        .concat()
    ));
    lab.machine.wait_both_families();
    stands(&lab, "later", "ipv6", "used", &["two"]);
    let namespaces = [("client", &lab.client().ns), ("router", lab.machine.netns())];
    let healthy = |what: &str| {
        for (who, ns) in namespaces {
            for n in 1..=4 {
                all_by(1, &format!("{what}, {who}"), ns, &Via::any(), &[echo4(n), echo6(n)]);
            }
        }
    };
    healthy("both up");
    lab.isp(1).silent(true);
    for (name, state, uplinks) in [
        ("next", "next", &[][..]),
        ("block", "blocked", &[]),
        ("pass", "default", &[]),
        ("listed", "used", &["two"]),
    ] {
        for family in ["ipv4", "ipv6"] {
            stands(&lab, name, family, state, uplinks);
        }
    }
    for (who, ns) in namespaces {
        for n in [1, 3, 4] {
            all_by(2, who, ns, &Via::any(), &[echo4(n), echo6(n)]);
        }
        let refused = connect_many(ns, &Via::any(), 4, &[echo4(2), echo6(2)]);
        assert_eq!(refused.answered(), 0, "{who}: {refused:?}");
    }
    lab.isp(1).silent(false);
    for name in ["next", "block", "pass", "listed"] {
        for family in ["ipv4", "ipv6"] {
            stands(&lab, name, family, "used", &["one"]);
        }
    }
    healthy("both up again");
}

#[test]
fn shares_hold_and_flows_and_clients_stay_over_changes() {
    let weighted = "[[policy]]\nname = 'shared'\nmatch.to = '203.0.113.0/28'\nuplinks = ['one', 'two']\n";
    let sticky =
        "[[policy]]\nname = 'bank'\nmatch.to = '203.0.113.16/28'\nmethod = 'persistence'\nidle = '1h'\n";
    let heavy = "[[uplink]]\nmatch.interface = 'eth1'\nweight = 3\n\n";
    let lab = lab_or_skip!(spec(&format!("{heavy}{weighted}{sticky}")));
    lab.machine.wait_both_families();
    stands(&lab, "bank", "ipv4", "used", &["one", "two"]);
    let ns = &lab.client().ns;
    for (who, ns) in [("client", ns), ("router", lab.machine.netns())] {
        let shares = connect_many(ns, &Via::any(), 400, &[1, 2, 3, 4].map(echo4));
        println!("{who}: {} of {} by ISP 1, 300 wanted", shares.of(1), shares.answered());
        assert!(shares.failures.is_empty() && shares.of(1).abs_diff(300) <= 8, "{shares:?}");
    }
    // Clients of one LAN.
    let clients: Vec<[u8; 4]> = (100..140).map(|n| [10, 77, 0, n]).collect();
    for [.., n] in &clients {
        ns.ip(&format!("addr add 10.77.0.{n}/24 dev lan0"));
    }
    let by = || -> Vec<u8> {
        let one = |ip: &[u8; 4]| connect_many(ns, &Via::address(*ip), 2, &[echo4(17), echo4(18)]);
        clients.iter().map(one).map(|shares| if let [isp] = shares.isps()[..] { isp } else { 0 }).collect()
    };
    let first = by();
    let count = first.iter().filter(|isp| **isp == 1).count();
    println!("{count} of 40 clients by ISP 1 with weights 3:1");
    assert!(!first.contains(&0) && (20..=39).contains(&count), "{first:?}");
    let mut held: Vec<HeldTcp> =
        (1..=12).map(|n| HeldTcp::connect(ns, &Via::any(), echo4(n)).expect("connects")).collect();
    let mut alive = |what: &str| {
        for tcp in &mut held {
            tcp.ping(Duration::from_secs(3)).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
    };
    // Other policies ahead, other weights, a restart: nothing moves.
    let ahead = "[[policy]]\nname = 'ahead'\nmatch.ports = 9999\nuplinks = 'two'\n";
    set(&lab, &format!("{heavy}{ahead}{weighted}{sticky}"));
    stands(&lab, "ahead", "ipv4", "used", &["two"]);
    alive("a reload");
    assert_eq!(by(), first, "a reload");
    lab.machine.cmd(&["systemctl", "restart", "uplinkd"]).ok();
    stands(&lab, "ahead", "ipv4", "used", &["two"]);
    alive("a restart");
    assert_eq!(by(), first, "a restart");
    // The second is lost and comes back: only who was on it moves, once.
    lab.isp(2).silent(true);
    stands(&lab, "bank", "ipv4", "used", &["one"]);
    assert!(by().iter().all(|isp| *isp == 1));
    lab.isp(2).silent(false);
    stands(&lab, "bank", "ipv4", "used", &["one", "two"]);
    assert!(by().iter().all(|isp| *isp == 1), "who has moved stays");
    lab.machine.sh("nft delete table inet uplinkd_policy").ok();
    lab.machine.wait("the table is back", LIMIT, || {
        lab.machine.cmd(&["nft", "list", "chain", "inet", "uplinkd_policy", "behind"]).success().then_some(())
    });
    assert_eq!(by(), first, "without a memory all are where they were");
}

#[test]
fn wrong_policies_are_told_and_change_nothing() {
    let lab = lab_or_skip!(spec("[[policy]]\nname = 'good'\nmatch.to = '203.0.113.1'\nuplinks = 'two'\n"));
    lab.machine.wait_both_families();
    stands(&lab, "good", "ipv4", "used", &["two"]);
    let line = |n: u32| match n {
        70_001 => "rubbish\n".to_owned(),
        n => format!("100.{}.{}.{}\n", 64 + (n >> 16), n >> 8 & 255, n & 255),
    };
    lab.machine.write("/etc/uplinkd/long", &(1..=100_000).map(line).collect::<String>());
    for (policy, told) in [
        ("match = {}", "match: {} is not allowed"),
        ("match.ports = 1\nmethod = 'quickest'", "method: 'quickest' is not allowed; weighted,"),
        ("match = { user = 'root', interface = 'lan0' }", "nothing can match"),
        ("match.to = '/etc/uplinkd/long'", "/etc/uplinkd/long:70001:1: prefix: rubbish is not allowed"),
    ] {
        lab.machine.write(FILE, &format!("{NAMES}[[policy]]\n{policy}\n"));
        let check = lab.machine.cmd(&["uplinkctl", "check"]);
        assert!(!check.success() && check.to_string().contains(told), "{check}");
        assert!(!lab.machine.cmd(&["uplinkctl", "reload"]).success(), "{policy}");
        all_by(2, "client", &lab.client().ns, &Via::any(), &[echo4(1)]);
    }
    // A name that nobody has may come later; and the bad line may be left out.
    set(
        &lab,
        "[[policy]]\nname = 'wrong'\nmatch.to = '203.0.113.2'\nmethod = 'enforced'\nuplinks = 'tow'\n\
         [[policy]]\nname = 'long'\nmatch.to = ['/etc/uplinkd/long', '203.0.113.1']\nuplinks = 'two'\nbad-lines = 'skip'\n",
    );
    stands(&lab, "wrong", "ipv4", "blocked", &[]);
    let status = stands(&lab, "long", "ipv4", "used", &["two"]);
    let notes = status["notes"].to_string();
    assert!(notes.contains("no uplink is called tow; there are one, two"), "{notes}");
    assert!(
        notes.contains("/etc/uplinkd/long:70001: no address or prefix; 1 line of the list left out"),
        "{notes}"
    );
    all_by(2, "client", &lab.client().ns, &Via::any(), &[echo4(1)]);
    println!("{}", lab.machine.sh("grep -E \"VmRSS|VmHWM\" /proc/$(pidof uplinkd)/status").ok());
}
