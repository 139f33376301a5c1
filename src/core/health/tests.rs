//! The monitor in simulated time, on a network that fails on demand.

mod mended;
mod net;
mod properties;
mod witness;

use super::*;
use net::{Net, probe};

const MS: Duration = Duration::from_millis(1);

#[test]
fn a_new_uplink_is_used_once_it_has_answered() {
    let mut net = Net::usual();
    let took = net.until(Standing::Up, Duration::from_secs(1));
    assert!(took < 60 * MS, "{took:?}");
    assert_eq!(net.sent.len(), 5, "one volley and one look for a portal");
}

#[test]
fn a_healthy_uplink_is_asked_once_a_second_by_turns() {
    let mut net = Net::usual();
    net.run(Duration::from_secs(10));
    net.sent.clear();
    net.run(Duration::from_secs(20));
    assert!((19..=20).contains(&net.sent.len()), "{}", net.sent.len());
    for (target, _) in &net.targets {
        assert!(net.sent.iter().filter(|(_, probe)| probe == target).count() >= 4, "{target}");
    }
}

#[test]
fn a_silent_death_is_seen_in_less_than_a_second_under_traffic() {
    for phase in (0..1000).step_by(37) {
        let mut net = Net::usual();
        net.traffic = (100, 100);
        net.run(Duration::from_secs(5) + phase * MS);
        net.cut();
        let took = net.until(Standing::Down, Duration::from_secs(3));
        let sent: Vec<_> = net.sent.iter().rev().take(14).map(|(at, p)| format!("{at:?} {p}")).collect();
        assert!(took < 900 * MS, "{took:?} at {phase}: {sent:?}");
        assert!(
            net.monitor.opinion().why.contains("packets sent and 0 received"),
            "{:?}",
            net.monitor.opinion()
        );
    }
}

#[test]
fn a_silent_death_is_seen_within_four_seconds_when_idle() {
    for phase in (0..1000).step_by(37) {
        let mut net = Net::usual();
        net.run(Duration::from_secs(5) + phase * MS);
        net.cut();
        let took = net.until(Standing::Down, Duration::from_secs(6));
        assert!(took < 3 * 1000 * MS, "{took:?} at {phase}");
    }
}

#[test]
fn it_comes_back_after_good_rounds_and_not_before() {
    let mut net = Net::usual();
    net.run(Duration::from_secs(5)).cut();
    net.run(Duration::from_secs(30)).mend();
    let took = net.until(Standing::Up, Duration::from_secs(20));
    assert!((3900 * MS..=7000 * MS).contains(&took), "{took:?}");
}

#[test]
fn one_operator_or_one_protocol_condemns_nobody() {
    for dead in [vec![0], vec![1], vec![2], vec![3], vec![0, 1], vec![0, 1, 2], vec![1, 2, 3]] {
        let mut net = Net::usual();
        net.traffic = (50, 50);
        net.run(Duration::from_secs(5));
        dead.iter().for_each(|&n| net.targets[n].1 = None);
        net.run(Duration::from_secs(120));
        assert_eq!(net.turns.last().map(|t| t.1), Some(Standing::Up), "{dead:?}: {:?}", net.turns);
        assert_eq!(net.turns.len(), 2, "{dead:?}: {:?}", net.turns);
    }
}

#[test]
fn answers_on_real_flows_veto_filtered_pings() {
    let mut net = Net::new(&["icmp:192.0.2.1"]);
    net.traffic = (50, 50);
    net.run(Duration::from_secs(5)).answers(None);
    net.run(Duration::from_secs(60));
    assert_eq!(net.standing(), Standing::Up);
    assert!(net.monitor.report(net.now).doubt.is_some());
    net.traffic = (50, 0);
    let took = net.until(Standing::Down, Duration::from_secs(5));
    assert!(took < 2000 * MS, "{took:?}");
}

#[test]
fn strangers_packets_put_a_verdict_off_but_not_for_ever() {
    let mut net = Net::usual();
    net.traffic = (50, 50);
    net.run(Duration::from_secs(5)).cut();
    net.traffic = (50, 30);
    let took = net.until(Standing::Down, Duration::from_secs(20));
    assert!((LONG..2 * LONG).contains(&took), "{took:?}");
    const LONG: Duration = Duration::from_secs(5);
}

#[test]
fn one_way_traffic_is_no_death() {
    let mut net = Net::usual();
    net.traffic = (100, 0);
    net.run(Duration::from_secs(5));
    net.sent.clear();
    net.run(Duration::from_secs(60));
    assert_eq!(net.standing(), Standing::Up, "{:?}", net.turns);
    assert!(net.sent.len() < 250, "{} probes in a minute", net.sent.len());
}

#[test]
fn a_link_that_gets_slow_is_slow_and_not_dead() {
    let mut net = Net::usual();
    net.run(Duration::from_secs(5)).answers(Some(800 * MS));
    net.page = Some(Outcome::Answered(800 * MS));
    net.until(Standing::Degraded, Duration::from_secs(40));
    net.run(Duration::from_secs(120));
    assert_eq!(net.standing(), Standing::Degraded, "{:?}", net.turns);
    assert!(net.turns.iter().all(|(_, s)| *s != Standing::Down), "{:?}", net.turns);
    net.answers(Some(20 * MS));
    net.until(Standing::Up, Duration::from_secs(60));
}

#[test]
fn a_wrong_verdict_is_taken_back_by_the_late_answer() {
    let mut net = Net::usual();
    net.traffic = (50, 50);
    net.run(Duration::from_secs(5)).answers(Some(800 * MS));
    net.traffic = (50, 0);
    net.until(Standing::Down, Duration::from_secs(2));
    let took = net.until(Standing::Up, Duration::from_secs(2));
    assert!(took < 700 * MS, "{took:?}");
}

#[test]
fn flapping_costs_one_turn_and_then_time() {
    let mut net = Net::usual();
    net.run(Duration::from_secs(5));
    let before = net.turns.len();
    for _ in 0..15 {
        net.cut();
        net.run(Duration::from_secs(2)).mend();
        net.run(Duration::from_secs(2));
    }
    let turns = net.turns.len() - before;
    assert!(turns <= 3, "{:?}", net.turns);
    net.until(Standing::Up, Duration::from_secs(60));
    // The second failure in a short time is held against it.
    net.run(Duration::from_secs(1)).cut();
    net.until(Standing::Down, Duration::from_secs(5));
    net.mend();
    net.until(Standing::Held, Duration::from_secs(10));
    let held = net.until(Standing::Up, Duration::from_secs(60));
    assert!(held > Duration::from_secs(9), "{held:?}");
}

#[test]
fn a_portal_is_neither_dead_nor_good() {
    let mut net = Net::usual();
    net.page = Some(Outcome::Portal("redirected to login.example".into()));
    net.run(Duration::from_secs(3));
    assert_eq!(net.standing(), Standing::Portal, "{:?}", net.turns);
    assert!(net.turns.iter().all(|(_, s)| *s != Standing::Up), "it was never used: {:?}", net.turns);
    net.page = Some(Outcome::Answered(30 * MS));
    let took = net.until(Standing::Up, Duration::from_secs(20));
    assert!(took < Duration::from_secs(6), "{took:?}");
}

#[test]
fn a_portal_that_lets_nothing_through_is_seen_as_one() {
    let mut net = Net::usual();
    net.answers(None).page = Some(Outcome::Portal("redirected".into()));
    net.run(Duration::from_secs(10));
    assert_eq!(net.standing(), Standing::Portal, "{:?}", net.turns);
}

#[test]
fn what_the_manager_says_is_looked_into() {
    let mut net = Net::usual();
    net.run(Duration::from_secs(10)).page = None;
    net.monitor.hear(Some(Connectivity::Portal), net.now);
    net.until(Standing::Portal, Duration::from_secs(5));
    // Its word alone, against a website that is right, is nothing.
    let mut net = Net::usual();
    net.run(Duration::from_secs(10));
    net.monitor.hear(Some(Connectivity::Portal), net.now);
    net.run(Duration::from_secs(10));
    assert_eq!(net.standing(), Standing::Up);
}

#[test]
fn sleep_and_stops_condemn_nobody() {
    for phase in (0..3000).step_by(110) {
        let mut net = Net::usual();
        net.traffic = (50, 50);
        net.run(Duration::from_secs(5) + phase * MS / 2).cut();
        net.run(phase * MS / 6);
        let before = net.turns.len();
        // The daemon is stopped for ten seconds: all answers are lost, and the network is there when it goes on.
        net.flying.clear();
        net.now += Duration::from_secs(10);
        net.mend();
        net.traffic = (50, 50);
        net.run(Duration::from_secs(10));
        assert!(net.turns[before..].iter().all(|(_, s)| *s != Standing::Down), "{phase}: {:?}", net.turns);
    }
}

#[test]
fn a_metered_link_is_left_in_peace_until_it_is_needed() {
    let mut net = Net::usual();
    net.configure(|subject| subject.sparse = true);
    net.run(Duration::from_secs(10));
    let (before, bytes) = (net.sent.len(), net.monitor.report(net.now).bytes);
    net.run(Duration::from_secs(3600));
    assert!(net.sent.len() - before < 70, "{} probes in an hour", net.sent.len() - before);
    assert!(net.monitor.report(net.now).bytes - bytes < 20_000);
    net.traffic = (50, 50);
    net.run(Duration::from_secs(5)).cut();
    assert!(net.until(Standing::Down, Duration::from_secs(3)) < 900 * MS);
    // Once back it is left in peace again.
    net.traffic = (0, 0);
    net.mend();
    net.until(Standing::Up, Duration::from_secs(120));
    net.sent.clear();
    net.run(Duration::from_secs(600));
    assert!(net.sent.len() < 20, "{} probes in ten minutes", net.sent.len());
}

#[test]
fn a_carrier_that_goes_is_no_verdict_and_its_return_needs_an_answer() {
    let mut net = Net::usual();
    net.run(Duration::from_secs(5));
    net.monitor.set_open(false, net.now);
    assert_eq!((net.standing(), net.monitor.due(net.now)), (Standing::Unproven, None));
    net.run(Duration::from_secs(1));
    net.monitor.set_open(true, net.now);
    let took = net.until(Standing::Up, Duration::from_secs(2));
    assert!(took < 60 * MS, "{took:?}");
}

#[test]
fn what_is_cut_has_failed_and_what_is_configured_anew_has_not() {
    let failures = |cut: bool| {
        let mut net = Net::usual();
        net.run(Duration::from_secs(5));
        let (monitor, now) = (net.monitor, net.now);
        monitor.leave(cut, now).standing(now)
    };
    assert_eq!((failures(true), failures(false)), (1, 0));
}

#[test]
fn what_is_not_probed_is_trusted() {
    let mut net = Net::usual();
    net.configure(|subject| subject.targets.clear());
    assert_eq!((net.standing(), net.monitor.due(net.now)), (Standing::Up, None));
    net.monitor.set_open(false, net.now);
    net.monitor.set_open(true, net.now);
    assert_eq!(net.standing(), Standing::Up);
}

#[test]
fn a_quorum_has_to_answer() {
    let mut net = Net::usual();
    net.configure(|subject| subject.limits.quorum = 3);
    net.until(Standing::Up, Duration::from_secs(2));
    net.run(Duration::from_secs(5));
    net.targets[0].1 = None;
    net.run(Duration::from_secs(30));
    assert_eq!(net.standing(), Standing::Up, "{:?}", net.turns);
    net.targets[1].1 = None;
    net.until(Standing::Down, Duration::from_secs(10));
}

#[test]
fn a_portal_that_asks_again_is_seen_as_one() {
    let mut net = Net::usual();
    net.run(Duration::from_secs(10));
    assert_eq!(net.standing(), Standing::Up);
    net.answers(None).page = Some(Outcome::Portal("redirected".into()));
    net.until(Standing::Portal, Duration::from_secs(5));
    // A dead link is no portal, and is looked at for one now and then.
    net.page = None;
    net.run(Duration::from_secs(70));
    assert_eq!(net.standing(), Standing::Down, "{:?}", net.turns);
    net.page = Some(Outcome::Portal("redirected".into()));
    net.until(Standing::Portal, Duration::from_secs(61));
}

#[test]
fn without_a_page_to_look_at_a_portal_is_forgotten() {
    let mut net = Net::usual();
    net.page = Some(Outcome::Portal("redirected".into()));
    net.until(Standing::Portal, Duration::from_secs(5));
    net.configure(|subject| subject.checks.clear());
    net.until(Standing::Up, Duration::from_secs(5));
}

#[test]
fn a_metered_link_that_was_bad_is_found_good_again_without_traffic() {
    let mut net = Net::usual();
    net.configure(|subject| subject.sparse = true);
    net.traffic = (50, 50);
    net.run(Duration::from_secs(5)).answers(Some(800 * MS));
    net.until(Standing::Degraded, Duration::from_secs(60));
    net.traffic = (0, 0);
    net.answers(Some(20 * MS));
    net.until(Standing::Up, Duration::from_secs(120));
}
