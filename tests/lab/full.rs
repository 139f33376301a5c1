//! Lines that are really full: a queue in front of each, and loss when it overflows.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use crate::ctl::{Ctl, installed};
use crate::kit::address::{ECHO, FLOOD, echoes4, isp_of};
use crate::kit::{Lab, Load, Spec, TcpDownload, UdpFlow, Via, connect_many, lab_or_skip, wait};
use crate::watch::{rest, seconds, state, to, transitions, until, until_used};

/// What each line carries in each direction, in bits a second.
const LINE: u32 = 10_000_000;

fn narrow(lab: &Lab) {
    for isp in lab.isps() {
        isp.narrow(Some(LINE));
    }
}

/// Downloads of the LAN's from these hosts of the internet, as fast as they come.
#[track_caller]
fn downloads(lab: &Lab, hosts: RangeInclusive<u8>) -> Vec<TcpDownload> {
    let start = |n| TcpDownload::start(&lab.client().ns, &Via::any(), to(n, FLOOD)).ok();
    // In front of a full line a handshake is lost as well, and again.
    hosts.map(|n| wait("a download to begin", seconds(30), || start(n))).collect()
}

/// By which ISP each goes.
fn ways(downloads: &[TcpDownload]) -> Vec<Option<u8>> {
    downloads.iter().map(|one| one.progress().seen.and_then(isp_of)).collect()
}

/// What they carry together within some time, in percent of a line.
fn carried(downloads: &[TcpDownload], time: Duration) -> u64 {
    let bytes = || downloads.iter().map(|one| one.progress().bytes).sum::<u64>();
    let (before, start) = (bytes(), Instant::now());
    rest(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    let bits = u128::from(bytes() - before) * 8 * 1000 / start.elapsed().as_millis();
    u64::try_from(bits * 100 / u128::from(LINE)).unwrap_or(u64::MAX)
}

/// Neither of the uplinks is down, nor was.
#[track_caller]
fn none_fell(lab: &Lab, when: &str) {
    for isp in [1, 2] {
        let went = transitions(lab, isp);
        println!("{when}: ISP {isp} is {}; {went:?}", state(&lab.machine.status(), isp));
        assert!(went.iter().all(|(state, _)| state != "down"), "{when}: ISP {isp}: {went:?}");
    }
}

#[test]
fn full_lines_are_not_taken_for_dead_ones_and_carry_all_that_they_can() {
    let lab = lab_or_skip!(installed(Spec::router()).exclusive());
    lab.machine.wait_active(2);
    narrow(&lab);
    let many = downloads(&lab, 1..=12);
    let ways = ways(&many);
    assert!(ways.contains(&Some(1)) && ways.contains(&Some(2)), "{ways:?}");
    let carried = carried(&many, seconds(20));
    println!("full: FIGURE downloads by {ways:?} carry {carried} % of a line");
    none_fell(&lab, "full of downloads");
    assert!(carried > 150, "{carried} % of one line, where there are two");

    // Datagrams do not give way to anything, and these are more than a line takes.
    let floods: Vec<_> =
        (21..=23).map(|n| Load::start(&lab.client().ns, &Via::any(), to(n, ECHO), LINE * 3 / 5)).collect();
    rest(15_000);
    none_fell(&lab, "flooded");
    let shares = connect_many(&lab.client().ns, &Via::any(), 40, &echoes4());
    println!("full: FIGURE new connections in the flood: {shares:?}");
    for flood in floods {
        flood.stop();
    }
    for download in many {
        let report = download.stop();
        assert_eq!(report.broke, None, "{report:?}");
    }
}

#[test]
fn what_is_new_spills_from_a_full_line_to_the_next() {
    let lab = lab_or_skip!(installed(Spec::router()).exclusive());
    lab.machine.wait_active(2);
    narrow(&lab);
    let lines = [1, 2].map(|isp| {
        format!(
            "[[uplink]]\nmatch.interface = \"eth{isp}\"\ndownload = \"10M\"\nupload = \"10M\"\ntier = {isp}\n"
        )
    });
    let text = format!("[balance]\nmethod = \"overflow\"\n{}", lines.concat());
    lab.machine.write("/etc/uplinkd/conf.d/50-full.toml", &text);
    lab.machine.cmd(&["uplinkctl", "reload"]).ok();
    until(&lab, "overflow", seconds(10), |status| status["method"] == "overflow");
    until_used(&lab, &[1]);

    let mut all = downloads(&lab, 1..=3);
    println!("spill: FIGURE {:.1?} after three downloads have begun", until_used(&lab, &[2]));
    let call = UdpFlow::start(&lab.client().ns, &Via::any(), to(30, ECHO), Duration::from_millis(20));
    rest(3000);
    let call = call.stop();
    println!("spill: a call meanwhile: {}", call.summary());
    let isps: Vec<_> = call.ways().iter().map(|way| way.isp).collect();
    assert_eq!((call.lost(), isps), (0, vec![Some(2)]), "it had a line for itself: {}", call.summary());
    all.extend(downloads(&lab, 4..=6));
    assert_eq!(ways(&all), [1, 1, 1, 2, 2, 2].map(Some), "the first stay, the others take the other");
    let carried = carried(&all, seconds(10));
    println!("spill: FIGURE six downloads carry {carried} % of a line");
    assert!(carried > 150, "{carried} % of one line, where there are two");
    none_fell(&lab, "both full");
    for download in all.drain(..3) {
        assert_eq!(download.stop().broke, None);
    }
    println!("spill: FIGURE the first is used again {:.1?} after it is free", until_used(&lab, &[1]));
}
