//! Installing on a running machine, and taking it away again.

use crate::ctl::{Ctl, installed, on, ours};
use crate::kit::address::echoes4;
use crate::kit::{Spec, Via, connect_many, lab_or_skip};

#[test]
fn two_uplinks_are_found_and_shown() {
    let lab = lab_or_skip!(installed(Spec::router()));
    let status = lab.machine.wait_active(2);
    println!("{}", lab.machine.cmd(&["uplinkctl"]).ok());
    println!("{}", ours(&lab.machine));
    println!("{}", lab.machine.journal("uplinkd"));
    for isp in [1, 2] {
        let uplink = on(&status, &lab.isp(isp).device());
        assert_eq!(uplink["ipv4"]["state"], "up");
        assert_eq!(uplink["ipv4"]["gateway"], lab.isp(isp).gateway().to_string());
    }
    let shares = connect_many(&lab.client().ns, &Via::any(), 100, &echoes4());
    println!("{shares:?}");
    assert_eq!(shares.isps(), [1, 2]);
}

/// Not a test but a tool: boots a router with the package and runs the script in `LAB_SCRIPT` on it.
#[test]
#[ignore = "runs LAB_SCRIPT, for a look by hand"]
fn script() {
    let lab = lab_or_skip!(installed(Spec::router()));
    lab.machine.wait_active(2);
    let script = std::env::var("LAB_SCRIPT").unwrap_or_else(|_| "uplinkctl".to_owned());
    let output = lab.machine.cmd(&["sh", "-c", &script]);
    println!("{}\n{}", output.stdout, output.stderr);
}
