//! The network managers, all asked at once.
//!
//! Decides how long one that is silent is waited for, and that its last word counts until it is heard again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Hearing, chain};
use crate::core::observed::{LinkFacts, Manager, Observed, Stage};
use crate::sources::bus::BusState;
use crate::sources::{Presence, networkd, nm};

/// How long a round waits for a manager that it can do without: what it last said will do, or there was time enough to
/// be heard.
const BRIEFLY: Duration = Duration::from_millis(200);
/// For how long after the start a source that is there but was never heard is waited for; then the rest counts without.
const PATIENCE: Duration = Duration::from_secs(5);

/// What each of them last said: it still counts while a manager restarts.
pub(super) struct Managers {
    started: Instant,
    last: BTreeMap<Manager, Vec<LinkFacts>>,
}

/// What there was to hear.
pub(super) enum Told {
    /// This, from each of them.
    Answers([(Manager, Answer); Manager::ALL.len()]),
    /// Nobody can be asked yet; with a word for the status.
    NotYet(&'static str),
    /// Nobody can be asked; with a word for the status.
    NoBus(String),
}

/// What one of them had to say.
pub(super) enum Answer {
    /// This.
    Facts(Vec<LinkFacts>),
    /// It is not there.
    Nobody,
    /// It is there and does not answer.
    Silence(String),
}

impl Managers {
    /// None was heard yet.
    pub(super) fn new() -> Self {
        Managers { started: Instant::now(), last: BTreeMap::new() }
    }

    /// Asks them all.
    pub(super) async fn ask(&self, bus: &BusState) -> Told {
        match bus {
            BusState::Connecting => Told::NotYet("the D-Bus system bus is being reached for"),
            BusState::Unreachable(error) => {
                let why = chain(error.as_ref());
                Told::NoBus(format!("no D-Bus, so uplinks are found from the kernel alone ({why})"))
            }
            BusState::Connected(connection) => {
                let [nm, networkd] = Manager::ALL;
                let (said_nm, said_networkd) =
                    tokio::join!(self.hear(connection, nm), self.hear(connection, networkd));
                Told::Answers([(nm, said_nm), (networkd, said_networkd)])
            }
        }
    }

    /// A manager that hangs must not hold up what the kernel alone can tell, such as a lost carrier.
    async fn hear(&self, bus: &zbus::Connection, manager: Manager) -> Answer {
        let asked = async {
            match manager {
                Manager::NetworkManager => nm::snapshot(bus).await,
                Manager::Networkd => networkd::snapshot(bus).await,
            }
        };
        let said = match self.waits_for(manager) {
            // For as long as the source itself does.
            true => Ok(asked.await),
            false => tokio::time::timeout(BRIEFLY, asked).await,
        };
        match said {
            Ok(Ok(Presence::Present(facts))) => Answer::Facts(facts),
            Ok(Ok(Presence::Absent)) => Answer::Nobody,
            Ok(Err(error)) => Answer::Silence(format!("{manager}: {}", chain(&error))),
            Err(_) => Answer::Silence(format!("{manager} does not answer within {BRIEFLY:?}")),
        }
    }

    /// Whether nothing may be done without it: it was never heard, and there was little time for that.
    fn waits_for(&self, manager: Manager) -> bool {
        !self.last.contains_key(&manager) && self.is_early()
    }

    fn is_early(&self) -> bool {
        self.started.elapsed() < PATIENCE
    }

    /// Adds what was heard, now or before, to what was observed.
    pub(super) fn take_in(&mut self, told: Told, observed: &mut Observed) -> Hearing {
        let hearing = match told {
            Told::Answers(answers) => {
                let heard = answers.map(|(manager, answer)| self.hearing(manager, answer, observed));
                heard.into_iter().max().unwrap_or(Hearing::Full)
            }
            Told::NotYet(why) => {
                observed.unheard.push(why.to_owned());
                match self.last.is_empty() && self.is_early() {
                    true => Hearing::Wait,
                    false => Hearing::Stale,
                }
            }
            Told::NoBus(why) => {
                observed.unheard.push(why);
                Hearing::Full
            }
        };
        observed.managed = self.last.values().flatten().cloned().collect();
        hearing
    }

    fn hearing(&mut self, manager: Manager, answer: Answer, observed: &mut Observed) -> Hearing {
        match answer {
            Answer::Facts(facts) => {
                self.last.insert(manager, facts);
                Hearing::Full
            }
            Answer::Nobody => {
                // Who is not there is at work on nothing; another manager may have taken its links meanwhile.
                let facts = self.last.get_mut(&manager).into_iter().flatten();
                facts.for_each(|facts| facts.stage = Stage::Inactive);
                Hearing::Full
            }
            Answer::Silence(why) => {
                let then = match self.last.contains_key(&manager) {
                    true => "what it last said counts",
                    false => "it has said nothing so far",
                };
                observed.unheard.push(format!("{why}; {then}"));
                if self.waits_for(manager) { Hearing::Wait } else { Hearing::Stale }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::net::IfName;

    fn facts(manager: Manager) -> Vec<LinkFacts> {
        vec![LinkFacts {
            interface: IfName::new("eth1").unwrap(),
            manager,
            profile: None,
            stage: Stage::Active,
            metered: None,
            vpn: false,
            shared: false,
            ip: Default::default(),
            settings: Vec::new(),
            notes: Vec::new(),
        }]
    }

    fn round(managers: &mut Managers, nm: Answer, networkd: Answer) -> (Hearing, Observed) {
        let mut observed = Observed::default();
        let [first, second] = Manager::ALL;
        let hearing = managers.take_in(Told::Answers([(first, nm), (second, networkd)]), &mut observed);
        (hearing, observed)
    }

    #[test]
    fn one_that_was_never_heard_is_waited_for_and_a_known_one_is_not() {
        let mut managers = Managers::new();
        let silence = || Answer::Silence("no answer".to_owned());
        let (hearing, observed) =
            round(&mut managers, Answer::Facts(facts(Manager::NetworkManager)), silence());
        assert_eq!((hearing, observed.managed.len(), observed.unheard.len()), (Hearing::Wait, 1, 1));
        let (hearing, _) = round(&mut managers, silence(), Answer::Facts(facts(Manager::Networkd)));
        assert_eq!(hearing, Hearing::Stale);
        let (hearing, observed) = round(&mut managers, silence(), silence());
        assert_eq!((hearing, observed.managed.len(), observed.unheard.len()), (Hearing::Stale, 2, 2));
    }

    #[test]
    fn what_one_that_went_has_said_counts_and_it_is_at_work_on_nothing() {
        let mut managers = Managers::new();
        let of = |manager| Answer::Facts(facts(manager));
        round(&mut managers, of(Manager::NetworkManager), of(Manager::Networkd));
        let (hearing, observed) = round(&mut managers, Answer::Nobody, of(Manager::Networkd));
        assert_eq!(hearing, Hearing::Full);
        assert_eq!(
            observed.managed.iter().map(|f| f.stage).collect::<Vec<_>>(),
            [Stage::Inactive, Stage::Active]
        );
        let mut observed = Observed::default();
        let told = Told::NoBus("no D-Bus".to_owned());
        assert_eq!(managers.take_in(told, &mut observed), Hearing::Full);
        assert_eq!((observed.managed.len(), observed.unheard.len()), (2, 1));
    }
    #[test]
    fn one_that_never_answers_holds_up_only_the_first_rounds() {
        let mut managers = Managers::new();
        let silence = || Answer::Silence("no answer".to_owned());
        let waited_for = |managers: &Managers| Manager::ALL.map(|manager| managers.waits_for(manager));
        assert_eq!(waited_for(&managers), [true, true]);
        let (_, observed) = round(&mut managers, Answer::Facts(facts(Manager::NetworkManager)), silence());
        assert_eq!(observed.unheard, ["no answer; it has said nothing so far"]);
        assert_eq!(waited_for(&managers), [false, true]);
        managers.started = Instant::now().checked_sub(PATIENCE).unwrap();
        assert_eq!(waited_for(&managers), [false, false]);
        let (hearing, observed) = round(&mut managers, silence(), silence());
        assert_eq!(hearing, Hearing::Stale);
        assert_eq!(
            observed.unheard,
            ["no answer; what it last said counts", "no answer; it has said nothing so far"]
        );
    }
}
