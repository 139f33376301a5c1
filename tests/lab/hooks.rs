//! NetworkManager's dispatcher and what it waits for.

use std::time::{Duration, Instant};

use crate::ctl::{Ctl, installed, ours, unheld};
use crate::kit::{Spec, lab_or_skip};

const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn a_connection_is_announced_only_when_its_routing_stands() {
    let lab = lab_or_skip!(installed(unheld(Spec::router())));
    lab.machine.wait_active(2);
    let mut times = Vec::new();
    for _ in 0..20 {
        lab.machine.cmd(&["nmcli", "device", "disconnect", "eth2"]).ok();
        lab.machine.wait_active(1);
        let start = Instant::now();
        // One shell, so that nothing but the moment of nmcli's return counts.
        let script = "nmcli -w 20 device connect eth2 >&2; ip -N rule; ip -N route show table all proto 177";
        let text = lab.machine.sh(script).ok();
        times.push(start.elapsed());
        for sign in ["oif eth2", "from 192.168.2.10", "nexthop via 192.168.2.254"] {
            assert!(text.contains(sign), "{sign} is missing when nmcli returns:\n{text}");
        }
    }
    times.sort();
    println!("nmcli device connect: median {:?}, longest {:?}", times[10], times[19]);
}

#[test]
fn without_the_daemon_each_event_reconciles_once() {
    let last = ("/etc/NetworkManager/dispatcher.d/99-seen", "#!/bin/sh\necho \"$1 $2\" >>/run/seen\n");
    let lab = lab_or_skip!(installed(Spec::router()).file(last.0, last.1, 0o755));
    lab.machine.wait_active(2);
    // Stopped by hand, but meant to run: then all stays as it is.
    lab.machine.sh("systemctl stop uplinkd; nmcli device disconnect eth2; /usr/libexec/uplinkd/look 0").ok();
    // What the dispatcher runs late would find the daemon disabled.
    lab.machine.wait("the dispatcher to have run all scripts", LIMIT, || {
        lab.machine.sh("cat /run/seen 2>/dev/null || true").ok().contains("eth2 down").then_some(())
    });
    assert!(ours(&lab.machine).contains("oif eth2"), "nothing is done behind the back of who stopped it");
    // Disabled, but masked, or systemd does not say in time.
    let silent = "mkdir /run/silent; printf '#!/bin/sh\\nexec sleep 60\\n' >/run/silent/systemctl; \
                  chmod 755 /run/silent/systemctl";
    lab.machine.sh(&format!("systemctl disable -q uplinkd; {silent}")).ok();
    for unknown in ["systemctl mask -q uplinkd", "systemctl unmask -q uplinkd; export PATH=/run/silent:$PATH"]
    {
        let start = Instant::now();
        lab.machine.sh(&format!("{unknown}; /usr/libexec/uplinkd/look 0")).ok();
        println!("nothing done after {:?}: {unknown}", start.elapsed());
        assert!(start.elapsed() < LIMIT, "{unknown}");
        assert!(ours(&lab.machine).contains("oif eth2"), "nothing is done: {unknown}");
    }
    lab.machine.cmd(&["nmcli", "device", "connect", "eth2"]).ok();
    let shows = |sign: &str, wanted: bool| {
        let what = format!("{sign} {}", if wanted { "there" } else { "gone" });
        lab.machine.wait(&what, LIMIT, || (ours(&lab.machine).contains(sign) == wanted).then_some(()));
    };
    lab.machine.cmd(&["nmcli", "device", "disconnect", "eth2"]).ok();
    shows("oif eth2", false);
    shows("nexthop", false);
    lab.machine.cmd(&["nmcli", "device", "connect", "eth2"]).ok();
    assert!(ours(&lab.machine).contains("oif eth2"), "when nmcli returns");
    shows("nexthop via 192.168.2.254", true);
    crate::balance::bound_sockets_leave_by_their_uplink(&lab);
    // What the hook wrote is no obstacle for the daemon.
    lab.machine.cmd(&["systemctl", "start", "uplinkd"]).ok();
    lab.machine.wait_active(2);
    assert_eq!(
        lab.machine.cmd(&["find", "/run/uplinkd", "/var/lib/uplinkd", "!", "-user", "uplinkd"]).ok(),
        ""
    );
}

#[test]
fn a_hanging_daemon_holds_no_connection_up_for_long() {
    let lab = lab_or_skip!(installed(Spec::router()));
    lab.machine.wait_active(2);
    lab.machine.cmd(&["nmcli", "device", "disconnect", "eth2"]).ok();
    lab.machine.wait_active(1);
    let signal = |signal: &str| {
        lab.machine.cmd(&["systemctl", "kill", &format!("--signal={signal}"), "uplinkd"]).ok();
    };
    signal("STOP");
    let start = Instant::now();
    lab.machine.cmd(&["nmcli", "-w", "30", "device", "connect", "eth2"]).ok();
    let took = start.elapsed();
    println!("connected after {took:?} while uplinkd hangs");
    assert!(took < Duration::from_secs(8), "{took:?}");
    signal("CONT");
    lab.machine.wait_active(2);
}
