//! What arbitrary bad days have shown once: a test for each.

use super::MS;
use super::net::Net;
use crate::core::health::*;

const SECOND: Duration = Duration::from_secs(1);

fn portal() -> Option<Outcome> {
    Some(Outcome::Portal("redirected to login.example".into()))
}

#[test]
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
fn what_is_seldom_asked_does_not_stay_degraded() {
    let mut net = Net::usual();
    net.configure(|subject| subject.sparse = true);
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
fn a_portal_ends_when_its_checks_are_taken_away() {
    let mut net = Net::usual();
    net.page = portal();
    net.until(Standing::Portal, 3 * SECOND);
    // The administrator knows better, and says probes = ["icmp:1.1.1.1", …].
    net.configure(|subject| subject.checks.clear());
    net.until(Standing::Up, 600 * SECOND);
}

#[test]
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
fn a_portal_on_the_way_up_does_not_end_the_thrift_of_a_metered_link() {
    let mut net = Net::usual();
    net.configure(|subject| subject.sparse = true);
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
fn doubt_does_not_cost_a_metered_link_much() {
    let mut net = Net::new(&["icmp:192.0.2.1", "icmp:192.0.2.2", "icmp:192.0.2.3", "icmp:192.0.2.4"]);
    net.configure(|subject| (subject.sparse, subject.checks) = (true, Vec::new()));
    net.traffic = (50, 50);
    net.run(5 * SECOND).answers(None);
    let before = net.sent.len();
    net.run(600 * SECOND);
    let sent = net.sent.len() - before;
    assert!(sent < 4 * 600, "{sent} probes in ten minutes");
}

#[test]
fn a_wrong_page_among_the_targets_is_no_portal_that_never_ends() {
    let mut net = Net::new(&["http://status.example/ status=200"]);
    net.configure(|subject| subject.checks.clear());
    net.impostor = Some(0);
    net.until(Standing::Down, 20 * SECOND);
    net.impostor = None;
    net.until(Standing::Up, 60 * SECOND);
}

#[test]
fn what_is_not_probed_any_more_hears_of_no_portal() {
    let mut net = Net::usual();
    net.page = portal();
    // The look is on its way.
    net.monitor.poll(net.now).into_iter().for_each(|request| {
        net.flying.push((net.now + 30 * MS, request.id, Outcome::Portal("redirected".into())));
    });
    net.configure(|subject| subject.targets.clear());
    net.run(10 * SECOND);
    assert_eq!(net.standing(), Standing::Up, "{:?}", net.turns);
}

#[test]
fn a_portal_is_seen_though_a_look_was_under_way_when_it_came_up() {
    let mut net = Net::usual();
    net.page = Some(Outcome::Answered(4 * SECOND));
    net.traffic = (50, 50);
    net.until(Standing::Up, 2 * SECOND);
    (net.page, net.traffic) = (portal(), (50, 0));
    net.answers(None);
    net.until(Standing::Down, 3 * SECOND);
    net.until(Standing::Portal, 5 * SECOND);
}

#[test]
fn what_is_probed_again_is_not_called_unprobed() {
    let mut net = Net::usual();
    let why = |net: &Net| net.monitor.opinion().why.clone();
    net.configure(|subject| subject.targets.clear());
    assert_eq!(why(&net), "it is not probed");
    net.configure(|_| {});
    assert_eq!((net.standing(), why(&net).contains("not probed")), (Standing::Up, false));
}

#[test]
fn an_answer_counts_by_the_limits_of_now() {
    let mut net = Net::usual();
    net.run(5 * SECOND);
    net.configure(|subject| (subject.limits.quorum, subject.limits.down_after) = (2, 20));
    // A burst in which one of four answers, and two are wanted.
    net.answers(None).targets[0].1 = Some(20 * MS);
    net.run(2 * SECOND);
    net.configure(|_| {});
    net.run(10 * SECOND);
    assert!(net.turns.iter().all(|(_, s)| *s != Standing::Down), "{:?}", net.turns);
}
