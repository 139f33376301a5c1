use super::*;
use crate::core::net::Family;
use crate::core::sysctl::Sysctl;

fn change(value: &str) -> Change {
    Change::SetSysctl(Sysctl::HashPolicy(Family::V4), value.to_owned())
}

/// Somebody takes one object away each time that it has stood for `stands`, for `time` in all, while something else
/// nudges each 10 ms. Returns when it was put back.
fn fight(
    contest: &mut Contest,
    start: Instant,
    object: &Change,
    stands: Duration,
    time: Duration,
) -> Vec<Duration> {
    let (mut now, mut put, mut repairs) = (start, start, Vec::new());
    while now < start + time {
        let missing = now >= put + stands;
        let sifted = contest.sift(missing.then(|| object.clone()).into_iter().collect(), true, now);
        if !sifted.now.is_empty() {
            put = now;
            repairs.push(now - start);
        }
        contest.made(&sifted.now, true, now);
        now += Duration::from_millis(10);
    }
    repairs
}

#[test]
fn a_loop_that_deletes_is_answered_at_once_then_ever_more_slowly() {
    let mut contest = Contest::default();
    let repairs = fight(
        &mut contest,
        Instant::now(),
        &change("1"),
        Duration::from_millis(50),
        Duration::from_secs(400),
    );
    let gaps: Vec<_> = repairs.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect();
    assert!(gaps[..9].iter().all(|gap| *gap == 50), "{gaps:?}");
    assert_eq!(gaps[9..13], [150, 250, 450, 850], "50 ms of standing and a doubled wait");
    assert!(gaps.iter().all(|gap| *gap <= 60_050), "{gaps:?}");
    assert_eq!(gaps.last(), Some(&60_050));
}

#[test]
fn it_is_told_once_while_it_lasts_and_forgotten_in_peace() {
    let mut contest = Contest::default();
    let start = Instant::now();
    let ms = Duration::from_millis;
    assert!(fight(&mut contest, start, &change("1"), ms(50), ms(400)).len() < FREE as usize);
    assert_eq!(contest.contested(start + ms(400)), (&[][..], false));
    fight(&mut contest, start + ms(400), &change("1"), ms(50), ms(5000));
    let now = start + ms(5400);
    let name = [change("1").to_string()];
    assert_eq!(contest.contested(now), (&name[..], true));
    assert_eq!(contest.contested(now), (&name[..], false), "no second time");
    let later = now + Duration::from_secs(30);
    let sifted = contest.sift(vec![change("1")], true, later);
    assert_eq!(sifted.now.len(), 1, "it has been due for long");
    contest.made(&sifted.now, true, later);
    assert_eq!(contest.contested(later + Duration::from_secs(5)), (&name[..], false), "it may begin again");
    let peace = later + Duration::from_secs(u64::from(MOST) + 1);
    assert_eq!(contest.contested(peace), (&[][..], false));
    assert_eq!(fight(&mut contest, peace, &change("1"), ms(50), ms(300)).len(), 5, "at full speed again");
}

#[test]
fn nobody_else_waits_for_the_contested() {
    let mut contest = Contest::default();
    let start = Instant::now();
    fight(&mut contest, start, &change("1"), Duration::from_millis(50), Duration::from_secs(20));
    let now = start + Duration::from_secs(20);
    let both = vec![change("1"), change("2")];
    let sifted = contest.sift(both.clone(), true, now);
    assert_eq!(sifted.now, [change("2")]);
    assert!(sifted.due.is_some_and(|due| due > now));
    let all = contest.sift(both.clone(), false, now);
    assert_eq!(all, Sifted { now: both, due: None }, "something has changed, so all of it is put");
}

#[test]
fn what_changes_by_itself_is_no_fight() {
    let mut contest = Contest::default();
    let mut now = Instant::now();
    for _ in 0..1000 {
        let sifted = contest.sift(vec![change("1")], false, now);
        assert_eq!(sifted.now.len(), 1);
        contest.made(&sifted.now, false, now);
        now += Duration::from_millis(20);
    }
    assert_eq!(contest.contested(now), (&[][..], false));
}

#[test]
fn one_deletion_every_few_seconds_is_mended_at_once_for_ever() {
    let mut contest = Contest::default();
    let start = Instant::now();
    let repairs = fight(&mut contest, start, &change("1"), Duration::from_secs(2), Duration::from_secs(600));
    assert_eq!(repairs.len(), 299);
    assert_eq!(contest.contested(start + Duration::from_secs(600)), (&[][..], false));
}

#[test]
fn what_is_not_wanted_any_more_is_forgiven_and_begins_anew_when_it_is_wanted_again() {
    let mut contest = Contest::default();
    let start = Instant::now();
    let ms = Duration::from_millis;
    fight(&mut contest, start, &change("1"), ms(50), ms(5000));
    let away = start + ms(5000);
    assert!(contest.sift(vec![change("1")], true, away).due.is_some(), "it is away, and waits");
    assert!(contest.contested(away).1);
    // Its uplink goes, so that nobody asks for it, and other rounds go on.
    let gone = away + ms(10);
    contest.sift(vec![change("2")], false, gone);
    contest.made(&[change("2")], false, gone);
    assert!(!contest.contested(gone + Duration::from_secs(1)).0.is_empty(), "not at once");
    let later = gone + Duration::from_secs(u64::from(MOST) + 1);
    contest.sift(Vec::new(), true, later);
    contest.made(&[], true, later);
    assert_eq!(contest.contested(later), (&[][..], false));
    assert!(contest.objects.is_empty(), "{:?}", contest.objects);
    assert_eq!(fight(&mut contest, later, &change("1"), ms(50), ms(300)).len(), 5, "at full speed again");
}
