//! networkd-dispatcher and its hook.

use std::time::Duration;

use crate::ctl::{Ctl, installed, ours};
use crate::kit::spec::Manager;
use crate::kit::{Spec, lab_or_skip};

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn without_the_daemon_networkd_dispatcher_reconciles_once() {
    let lab = lab_or_skip!(installed(Spec::router().manager(Manager::Networkd)));
    lab.machine.wait_active(2);
    lab.machine.sh("systemctl start networkd-dispatcher; systemctl disable -q --now uplinkd").ok();
    let shows = |sign: &str, wanted: bool| {
        let what = format!("{sign} {}", if wanted { "there" } else { "gone" });
        lab.machine.wait(&what, LIMIT, || (ours(&lab.machine).contains(sign) == wanted).then_some(()));
    };
    shows("from 192.168.2.10", true);
    lab.machine.sh("networkctl down eth2").ok();
    shows("from 192.168.2.10", false);
    shows("nexthop", false);
    lab.machine.sh("networkctl up eth2").ok();
    shows("from 192.168.2.10", true);
    shows("nexthop via 192.168.2.254", true);
    let log = lab.machine.journal("networkd-dispatcher");
    println!("{log}");
    assert!(!log.contains("invalid permissions"), "{log}");
}
