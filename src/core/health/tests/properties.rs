//! What holds of the monitor whatever happens: proptest draws a network's bad days.

use proptest::prelude::*;
use proptest::sample::select;

use super::net::{Happening, Net};
use super::witness::Witness;
use super::{MS, probe};
use crate::core::health::*;

const SECOND: Duration = Duration::from_secs(1);
const TARGETS: [&str; 5] = [
    "icmp:1.1.1.1",
    "icmp:8.8.8.8",
    "dns:9.9.9.9",
    "tcp:208.67.222.222:443",
    "http://page.example/ status=200",
];

/// What can happen to an uplink.
#[derive(Debug, Clone)]
enum Fault {
    /// One target answers after so long, or not at all.
    One(usize, Option<u32>),
    All(Option<u32>),
    Cut,
    Mend,
    Loss(u64),
    Refusing(bool),
    /// Packets a second, sent and received.
    Traffic(u64, u64),
    Open(bool),
    /// For so many seconds; and whether somebody tells of it.
    Sleep(u64, bool),
    Page(Option<Outcome>),
    /// The page that is a target is not what it was.
    Impostor(bool),
    Hint(Option<Connectivity>),
    Configure(Settings),
}

/// What an administrator may have written.
#[derive(Debug, Clone)]
struct Settings {
    targets: usize,
    checks: bool,
    limits: Vec<Limit>,
    metered: bool,
}

impl Settings {
    fn limits(&self) -> Thresholds {
        Thresholds::DEFAULT.with(&self.limits)
    }

    fn put(&self, net: &mut Net) {
        let Settings { targets, checks, metered, .. } = *self;
        let limits = self.limits();
        net.configure(|subject| {
            subject.targets.truncate(targets);
            if !checks {
                subject.checks.clear();
            }
            (subject.limits, subject.sparse) = (limits, metered);
        });
    }
}

/// Everything that src/config/table.rs allows, its ends above all.
fn settings(targets: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Settings> {
    let times = |all: &[u32]| select(all.iter().map(|ms| *ms * MS).collect::<Vec<_>>());
    let limits = (
        times(&[200, 1000, 1000, 5000, 120_000]).prop_map(Limit::Interval),
        times(&[100, 1000, 1000, 3000, 10_000]).prop_map(Limit::Timeout),
        select(vec![1, 1, 2, 3, 16]).prop_map(Limit::Quorum),
        select(vec![1, 3, 3, 20]).prop_map(Limit::DownAfter),
        select(vec![1, 5, 5, 100]).prop_map(Limit::UpAfter),
        select(vec![1, 20, 100]).prop_map(Limit::MaxLoss),
        times(&[1, 600, 10_000]).prop_map(Limit::MaxLatency),
        times(&[1, 300, 10_000]).prop_map(Limit::MaxJitter),
        times(&[5000, 30_000, 600_000]).prop_map(Limit::Window),
        times(&[0, 10_000, 600_000]).prop_map(Limit::Hold),
    );
    let limits = limits.prop_map(|(a, b, c, d, e, f, g, h, i, j)| vec![a, b, c, d, e, f, g, h, i, j]);
    let limits = prop_oneof![1 => Just(Vec::new()), 2 => limits];
    (targets, prop::bool::weighted(0.8), limits, prop::bool::weighted(0.3))
        .prop_map(|(targets, checks, limits, metered)| Settings { targets, checks, limits, metered })
}

fn fault() -> impl Strategy<Value = Fault> {
    let rtt = || prop::option::weighted(0.6, select(vec![1, 20, 100, 300, 800, 1500, 3000]));
    let rate = || select(vec![0, 0, 2, 50, 500]);
    let page = select(vec![
        Some(Outcome::Answered(30 * MS)),
        Some(Outcome::Portal("redirected to login.example".into())),
        None,
    ]);
    let hint = select(vec![
        None,
        Some(Connectivity::None),
        Some(Connectivity::Portal),
        Some(Connectivity::Limited),
        Some(Connectivity::Full),
    ]);
    prop_oneof![
        3 => (0..TARGETS.len(), rtt()).prop_map(|(n, rtt)| Fault::One(n, rtt)),
        2 => rtt().prop_map(Fault::All),
        2 => Just(Fault::Cut),
        2 => Just(Fault::Mend),
        1 => select(vec![0, 10, 40, 90]).prop_map(Fault::Loss),
        1 => any::<bool>().prop_map(Fault::Refusing),
        2 => (rate(), rate()).prop_map(|(sent, received)| Fault::Traffic(sent, received)),
        2 => any::<bool>().prop_map(Fault::Open),
        1 => (select(vec![1, 5, 100, 7200]), any::<bool>()).prop_map(|(time, told)| Fault::Sleep(time, told)),
        2 => page.prop_map(Fault::Page),
        1 => any::<bool>().prop_map(Fault::Impostor),
        1 => hint.prop_map(Fault::Hint),
        1 => settings(0..=TARGETS.len()).prop_map(Fault::Configure),
    ]
}

/// What happens, each time with the milliseconds until the next.
fn days() -> impl Strategy<Value = Vec<(Fault, u32)>> {
    let pause = prop_oneof![2 => 0..300u32, 4 => 300..5000u32, 2 => 5000..60_000u32];
    prop::collection::vec((fault(), pause), 0..25)
}

/// A network, and a witness of it.
struct Trial {
    net: Net,
    witness: Witness,
    settings: Settings,
    open: bool,
    heard: usize,
}

impl Trial {
    fn new(settings: Settings) -> Self {
        let mut net = Net::new(&TARGETS);
        settings.put(&mut net);
        let witness = Witness::new(settings.limits(), settings.targets);
        let mut trial = Trial { net, witness, settings, open: true, heard: 0 };
        trial.net.note(Happening::Retargeted);
        trial
    }

    /// Lives through bad days.
    fn suffer(&mut self, days: &[(Fault, u32)]) -> Result<(), TestCaseError> {
        for (fault, pause) in days {
            self.strike(fault);
            self.pass(*pause * MS)?;
        }
        Ok(())
    }

    fn strike(&mut self, fault: &Fault) {
        let net = &mut self.net;
        match fault {
            Fault::One(target, rtt) => net.targets[*target].1 = rtt.map(|ms| ms * MS),
            Fault::All(rtt) => drop(net.answers(rtt.map(|ms| ms * MS))),
            Fault::Cut => net.cut(),
            Fault::Mend => net.mend(),
            Fault::Loss(percent) => net.loss = *percent,
            Fault::Refusing(refusing) => net.refusing = *refusing,
            Fault::Traffic(sent, received) => net.traffic = (*sent, *received),
            Fault::Page(page) => net.page = page.clone(),
            Fault::Impostor(there) => net.impostor = there.then_some(TARGETS.len() - 1),
            Fault::Open(open) => {
                net.monitor.set_open(*open, net.now);
                net.note(if *open != self.open { Happening::Anew } else { Happening::Touched });
                self.open = *open;
            }
            Fault::Sleep(seconds, told) => {
                net.flying.clear();
                net.now += Duration::from_secs(*seconds);
                if *told {
                    net.monitor.begin_anew(net.now);
                }
                // A short one that nobody tells of is not noticed.
                net.note(if *told || *seconds > 1 { Happening::Anew } else { Happening::Touched });
            }
            Fault::Hint(hint) => {
                net.monitor.hear(*hint, net.now);
                self.witness.hint = *hint;
                net.note(Happening::Touched);
            }
            Fault::Configure(settings) => self.configure(settings.clone()),
        }
    }

    fn configure(&mut self, settings: Settings) {
        settings.put(&mut self.net);
        let same = settings.targets == self.settings.targets;
        self.settings = settings;
        self.net.note(if same { Happening::Touched } else { Happening::Retargeted });
        self.witness.reconfigured(self.settings.limits(), self.settings.targets);
    }

    /// Lets time pass, and looks at all that happened meanwhile.
    fn pass(&mut self, time: Duration) -> Result<(), TestCaseError> {
        self.net.run(time);
        for entry in &self.net.log[self.heard..] {
            let seen = self.witness.follow(entry);
            prop_assert!(seen.is_ok(), "{} at {:?}", seen.unwrap_err(), entry.at - self.net.start);
        }
        self.heard = self.net.log.len();
        let due = self.net.monitor.due(self.net.now);
        prop_assert_eq!(due.is_some(), self.open && self.settings.targets > 0);
        Ok(())
    }

    /// The longest time between two rounds, with the time that a round takes.
    fn round(&self) -> Duration {
        let limits = self.settings.limits();
        let rest = if self.settings.metered { limits.idle_interval } else { limits.interval };
        rest + limits.timeout * (3 + u32::from(limits.down_after) / 4) + SECOND
    }

    /// How often something happened in any second at most.
    fn densest(&self, counts: impl Fn(&Happening) -> bool) -> usize {
        let times: Vec<Instant> = self.net.log.iter().filter(|e| counts(&e.what)).map(|e| e.at).collect();
        let mut first = 0;
        let mut most = 0;
        for (at, time) in times.iter().enumerate() {
            while *time - times[first] >= SECOND {
                first += 1;
            }
            most = most.max(at + 1 - first);
        }
        most
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    /// (a) No verdict without its evidence, and nobody is kept busy by a look that comes too early.
    #[test]
    fn every_verdict_has_its_evidence(settings in settings(1..=5), days in days()) {
        let mut trial = Trial::new(settings);
        trial.suffer(&days)?;
    }

    /// (b) When all is well again, whatever happened before, it is used again.
    #[test]
    fn what_works_is_used_again(settings in settings(1..=5), days in days(), busy in any::<bool>()) {
        let mut trial = Trial::new(settings);
        trial.suffer(&days)?;
        trial.strike(&Fault::Loss(0));
        trial.strike(&Fault::Impostor(false));
        trial.strike(&Fault::Hint(Some(Connectivity::Full)));
        trial.net.targets.iter_mut().for_each(|(_, rtt)| *rtt = Some(Duration::from_micros(400)));
        trial.net.page = Some(Outcome::Answered(30 * MS));
        let rate = if busy { 50 } else { 0 };
        trial.net.traffic = (rate, rate);
        trial.strike(&Fault::Open(true));
        let limits = trial.settings.limits();
        let hold = if limits.hold.is_zero() { Duration::ZERO } else { 600 * SECOND };
        let bound = trial.round() * (u32::from(limits.up_after) + 12) + limits.measured_over() + hold + 65 * SECOND;
        trial.pass(bound)?;
        prop_assert_eq!(trial.net.standing(), Standing::Up, "after {:?}: {:?}", bound, trial.net.turns);
    }

    /// (b) When nothing answers any more and nothing comes back, it is given up.
    #[test]
    fn what_is_dead_is_given_up(settings in settings(1..=5), days in days(), rate in select(vec![0, 50])) {
        let mut trial = Trial::new(settings);
        trial.suffer(&days)?;
        trial.strike(&Fault::Hint(Some(Connectivity::Full)));
        trial.strike(&Fault::Open(true));
        trial.net.traffic = (rate, 0);
        trial.strike(&Fault::Cut);
        let bound = trial.round() * 4 + 65 * SECOND;
        trial.pass(bound)?;
        let wanted = if trial.settings.targets > 0 { Standing::Down } else { Standing::Up };
        prop_assert_eq!(trial.net.standing(), wanted, "after {:?}: {:?}", bound, trial.net.turns);
    }

    /// (d) Nobody is flooded: at most the volleys of a burst without a pause.
    #[test]
    fn nobody_is_flooded(settings in settings(1..=5), days in days()) {
        let first = settings.limits().timeout;
        let mut trial = Trial::new(settings);
        trial.suffer(&days)?;
        let fastest = days.iter().filter_map(|(fault, _)| match fault {
            Fault::Configure(settings) => Some(settings.limits().timeout),
            _ => None,
        });
        let fastest = fastest.chain([first, SECOND]).min().unwrap();
        let spacing = (fastest / 4).min(120 * MS).as_millis() as usize;
        let volleys = 1000 / spacing + 3;
        let asked = trial.densest(|what| matches!(what, Happening::Asked(..)));
        prop_assert!(asked <= volleys * TARGETS.len() + 5, "{} probes in a second", asked);
        let polled = trial.densest(|what| matches!(what, Happening::Polled));
        prop_assert!(polled <= 2 * volleys + 12, "{} polls in a second", polled);
    }

    /// (d) A metered link that carries nothing is asked a few times a minute, whatever happened before.
    #[test]
    fn idle_and_metered_costs_little(settings in settings(1..=5), days in days()) {
        let mut trial = Trial::new(settings);
        trial.suffer(&days)?;
        trial.strike(&Fault::Open(true));
        let settings = Settings { targets: 4, checks: true, limits: Vec::new(), metered: true };
        trial.strike(&Fault::Configure(settings));
        trial.strike(&Fault::Mend);
        trial.strike(&Fault::Loss(0));
        trial.strike(&Fault::Impostor(false));
        trial.net.traffic = (0, 0);
        trial.strike(&Fault::Hint(Some(Connectivity::Full)));
        trial.pass(1500 * SECOND)?;
        let before = trial.net.sent.len();
        trial.pass(3600 * SECOND)?;
        let sent = trial.net.sent.len() - before;
        prop_assert!(sent < 80, "{} probes in an hour: {:?}", sent, trial.net.turns);
    }
}

#[test]
fn the_network_of_the_trials_has_all_its_targets() {
    assert!(TARGETS.iter().all(|text| probe(text).to_string() == *text));
}
