//! The lab itself, without any daemon.

use std::time::Duration;

use crate::kit::address::echoes4;
use crate::kit::{Spec, Via, connect_many, lab_or_skip};

#[test]
fn boots_with_leases_and_bus() {
    let lab = lab_or_skip!(Spec::desktop());
    let devices = lab.machine.cmd(&["nmcli", "-t", "device"]).ok();
    println!("{devices}");
    for isp in [1, 2] {
        assert!(devices.contains(&format!("eth{isp}:ethernet:connected")), "{devices}");
        let via = Via::device(&lab.isp(isp).device());
        let shares = connect_many(lab.machine.netns(), &via, 10, &echoes4());
        println!("{shares:?}");
    }
    assert!(lab.booted < Duration::from_secs(10));
}
