//! A machine that does not forward: everything by rules alone.

use crate::ctl::{Ctl, installed, package, set};
use crate::kit::address::echoes4;
use crate::kit::{Spec, Via, connect_many, lab_or_skip};

#[test]
fn a_desktop_gets_no_nftables_and_no_conntrack() {
    let lab = lab_or_skip!(installed(Spec::desktop()));
    lab.machine.wait_active(2);
    set(&lab, 1, "weight=2");
    let shares = connect_many(lab.machine.netns(), &Via::any(), 600, &echoes4());
    println!("{shares:?}");
    let percent = shares.of(1) * 100 / 600;
    assert!((58..=75).contains(&percent), "{shares:?}");
    crate::balance::bound_sockets_leave_by_their_uplink(&lab);
    crate::balance::visitors_reach_the_machine(&lab);
    set(&lab, 2, "tier=2");
    lab.machine.wait_active(1);
    crate::balance::visitors_reach_the_machine(&lab);
    assert_eq!(lab.machine.cmd(&["nft", "list", "ruleset"]).ok(), "");
    // Nothing is tracked, because nothing asked for it.
    let tracked = lab.machine.cmd(&["conntrack", "-C"]).ok();
    assert_eq!(tracked.trim(), "0");
}

#[test]
fn a_single_uplink_changes_nothing_for_others() {
    let lab = lab_or_skip!(Spec::router().isp_count(1));
    let before = lab.machine.foreign_snapshot();
    lab.machine.install_deb(&package());
    lab.machine.wait_active(1);
    println!("{}", crate::ctl::ours(&lab.machine));
    assert_eq!(lab.machine.foreign_snapshot(), before);
    assert_eq!(lab.machine.cmd(&["nft", "list", "ruleset"]).ok(), "");
    let main = lab.machine.cmd(&["ip", "route", "show", "default", "proto", "177"]).ok();
    assert_eq!(main, "");
}
