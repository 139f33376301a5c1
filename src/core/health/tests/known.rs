//! What the properties have found and nobody has mended yet: a test each that fails, and a switch with which the
//! properties look away. Who mends one sets its switch to false, and takes both out when all is quiet.

use super::MS;
use super::net::Net;
use crate::core::health::*;

/// See [`a_proof_from_before_a_portal_proves_nothing`].
pub(super) const STALE_PROOF: bool = true;
/// See [`what_is_seldom_asked_does_not_stay_degraded`] and [`a_short_window_does_not_keep_it_degraded`].
pub(super) const TOO_FEW_TO_RECOVER: bool = true;
/// See [`a_portal_ends_when_its_checks_are_taken_away`] and [`a_portal_is_looked_at_again_after_a_sleep`].
pub(super) const LOST_LOOK: bool = true;
/// See [`what_a_page_once_said_makes_no_portal_of_an_outage`].
pub(super) const STALE_PORTAL: bool = true;
/// See [`a_portal_on_the_way_up_does_not_end_the_thrift_of_a_metered_link`].
pub(super) const GOOD_FOR_EVER: bool = true;

const SECOND: Duration = Duration::from_secs(1);

fn portal() -> Option<Outcome> {
    Some(Outcome::Portal("redirected to login.example".into()))
}

#[test]
#[ignore = "known: Monitor::proof survives a verdict of Portal, so a hotspot that goes silent is Up for a while"]
fn a_proof_from_before_a_portal_proves_nothing() {
    let mut net = Net::usual();
    net.page = portal();
    net.until(Standing::Portal, 3 * SECOND);
    net.run(600 * SECOND).cut();
    net.until(Standing::Unproven, 20 * SECOND);
    net.run(60 * SECOND);
    assert!(net.turns.iter().all(|(_, s)| *s != Standing::Up), "{:?}", net.turns);
}

#[test]
#[ignore = "known: is_fine wants ten samples, which a metered link that carries nothing never has in its window"]
fn what_is_seldom_asked_does_not_stay_degraded() {
    let mut net = Net::usual();
    net.configure(|subject| subject.metered = true);
    net.run(5 * SECOND);
    // Its queue is full while it carries everything; then the traffic goes elsewhere.
    net.traffic = (200, 200);
    net.answers(Some(900 * MS));
    net.until(Standing::Degraded, 120 * SECOND);
    net.traffic = (0, 0);
    net.answers(Some(20 * MS));
    net.until(Standing::Up, 3600 * SECOND);
}

#[test]
#[ignore = "known: the same with an interval that is more than a tenth of the window, as window = \"5s\" alone makes it"]
fn a_short_window_does_not_keep_it_degraded() {
    let mut net = Net::usual();
    net.configure(|subject| subject.limits.window = 5 * SECOND);
    net.run(5 * SECOND).answers(Some(900 * MS));
    // Slower than it is waited for, so that there are bursts, and with them enough samples.
    net.until(Standing::Degraded, 120 * SECOND);
    net.answers(Some(20 * MS));
    net.until(Standing::Up, 600 * SECOND);
}

#[test]
#[ignore = "known: only a look ends a verdict of Portal, and without checks there is none"]
fn a_portal_ends_when_its_checks_are_taken_away() {
    let mut net = Net::usual();
    net.page = portal();
    net.until(Standing::Portal, 3 * SECOND);
    // The administrator knows better, and says probes = ["icmp:1.1.1.1", …].
    net.configure(|subject| subject.checks.clear());
    net.until(Standing::Up, 600 * SECOND);
}

#[test]
#[ignore = "known: Portal::checks takes `due`, and forget_flying does not put it back"]
fn a_portal_is_looked_at_again_after_a_sleep() {
    let mut net = Net::usual();
    net.page = portal();
    net.until(Standing::Portal, 3 * SECOND);
    // The hotspot goes out of reach, a look is on its way, and the lid is closed.
    net.cut();
    let looks = net.sent.len();
    while net.sent.len() == looks {
        net.run(10 * MS);
    }
    net.flying.clear();
    net.now += 3600 * SECOND;
    net.monitor.begin_anew(net.now);
    net.mend();
    net.until(Standing::Up, 600 * SECOND);
}

#[test]
#[ignore = "known: Targets::saw_portal goes by what was last said, however long ago, and no look follows for 5 minutes"]
fn what_a_page_once_said_makes_no_portal_of_an_outage() {
    let mut net = Net::new(&["icmp:1.1.1.1", "icmp:8.8.8.8", "http://status.example/ status=200"]);
    // One page is broken for everybody; the look for a portal finds that others are right.
    net.impostor = Some(2);
    net.traffic = (50, 50);
    net.run(60 * SECOND);
    assert_eq!(net.standing(), Standing::Up, "{:?}", net.turns);
    net.cut();
    net.run(10 * SECOND).mend();
    net.until(Standing::Up, 60 * SECOND);
    assert!(net.turns.iter().all(|(_, s)| *s != Standing::Portal), "{:?}", net.turns);
}

#[test]
#[ignore = "known: `good` is not put back when it leaves Down by a portal, and `rest` takes it for an uplink on trial"]
fn a_portal_on_the_way_up_does_not_end_the_thrift_of_a_metered_link() {
    let mut net = Net::usual();
    net.configure(|subject| subject.metered = true);
    net.run(5 * SECOND).traffic = (50, 50);
    net.run(5 * SECOND).cut();
    net.until(Standing::Down, 3 * SECOND);
    net.mend();
    net.traffic = (0, 0);
    // Its manager sees a portal while it is on trial.
    while net.monitor.report(net.now).good < 2 {
        net.run(10 * MS);
    }
    net.page = portal();
    net.monitor.hear(Some(Connectivity::Portal), net.now);
    net.until(Standing::Portal, 5 * SECOND);
    net.page = Some(Outcome::Answered(30 * MS));
    net.until(Standing::Up, 60 * SECOND);
    let before = net.sent.len();
    net.run(3600 * SECOND);
    let sent = net.sent.len() - before;
    assert!(sent < 80, "{sent} probes in an hour");
}

#[test]
#[ignore = "known: one late answer takes a verdict back, also where a quorum is asked for and it is none"]
fn a_late_answer_of_too_few_disproves_nothing() {
    let mut net = Net::usual();
    net.configure(|subject| subject.limits.quorum = 2);
    net.run(5 * SECOND).answers(None);
    net.targets[0].1 = Some(1200 * MS);
    net.until(Standing::Down, 5 * SECOND);
    let before = net.turns.len();
    net.run(60 * SECOND);
    assert_eq!(net.turns.len(), before, "{:?}", net.turns);
}

#[test]
#[ignore = "known: a look whose answer never comes, because the program that asked is gone, is the last one"]
fn an_answer_that_never_comes_does_not_end_the_looking() {
    let mut net = Net::usual();
    net.page = portal();
    net.until(Standing::Portal, 3 * SECOND);
    let looks = net.sent.len();
    while net.sent.len() == looks {
        net.run(MS);
    }
    net.flying.clear();
    net.mend();
    net.until(Standing::Up, 600 * SECOND);
}

#[test]
#[ignore = "known: a burst that is put off is followed by another without a pause, also where every byte costs"]
fn doubt_does_not_cost_a_metered_link_much() {
    let mut net = Net::new(&["icmp:192.0.2.1", "icmp:192.0.2.2", "icmp:192.0.2.3", "icmp:192.0.2.4"]);
    net.configure(|subject| (subject.metered, subject.checks) = (true, Vec::new()));
    net.traffic = (50, 50);
    net.run(5 * SECOND).answers(None);
    let before = net.sent.len();
    net.run(600 * SECOND);
    let sent = net.sent.len() - before;
    assert!(sent < 4 * 600, "{sent} probes in ten minutes");
}
