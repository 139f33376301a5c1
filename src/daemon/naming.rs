//! Follows names: hears which addresses are the answers to the questions of this machine, and notes those for which there is
//! a policy.
//!
//! What an answer is worth is decided in [`crate::core::policy::domain`]. On a router dnsmasq notes what it answers to others;
//! this has no part in that.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::core::net::Family;
use crate::core::plan::Plan;
use crate::core::policy::domain::{ROOM, lasts};
use crate::core::policy::{Domain, Names};
use crate::core::scope::leaves_the_link;
use crate::kernel::element;
use crate::sources::answers::{Answer, Answers, Error};
use crate::status::Status;
use crate::world::chain;

/// So long after the end of a connection the next is tried.
const AGAIN: Duration = Duration::from_secs(10);

/// So many addresses of an answer are noted, of each family: nobody needs more, and who gives more wants to fill the sets.
const MOST: usize = 64;

/// So long the addresses are not counted again: there may be many, and anybody may ask.
const COUNTED: Duration = Duration::from_secs(1);

/// What each policy is for.
type Wanted = Vec<(Names, Vec<Domain>)>;

/// Who listens, and for what.
#[derive(Default)]
pub(super) struct Naming {
    listener: Option<Listener>,
    /// How many addresses were known when the kernel was last asked.
    known: BTreeMap<String, usize>,
    /// When that was.
    counted: Option<Instant>,
}

struct Listener {
    wanted: watch::Sender<Wanted>,
    deaf: watch::Receiver<Option<String>>,
    task: AbortHandle,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Naming {
    /// Takes in what a round found.
    pub(super) fn follow(&mut self, plan: &Plan) {
        let wanted = wanted(plan);
        if wanted.is_empty() {
            *self = Naming::default();
            return;
        }
        let listener = self.listener.get_or_insert_with(Listener::start);
        listener.wanted.send_replace(wanted);
    }

    /// Listens to nobody any more, until the next round.
    pub(super) fn rest(&mut self) {
        *self = Naming::default();
    }

    /// Asks the kernel how many addresses are known.
    pub(super) async fn look(&mut self, plan: &Plan) {
        if self.counted.is_some_and(|counted| counted.elapsed() < COUNTED) {
            return;
        }
        let sets =
            wanted(plan).into_iter().flat_map(|(names, _)| Family::BOTH.map(|family| names.set(family)));
        for set in sets {
            // Somebody else's change in the midst of it ends a list: what was known last is closer than nothing.
            if let Ok(count) = element::count(&set).await {
                self.known.insert(set, count);
            }
        }
        self.counted = Some(Instant::now());
    }

    /// Adds to a status what is known.
    pub(super) fn describe(&self, plan: &Plan, status: &mut Status) {
        let named =
            plan.policies.iter().zip(&mut status.policies).filter(|(policy, _)| !policy.domains.is_empty());
        for (policy, told) in named {
            let names = Names::of(&policy.name);
            for (family, leg) in told.legs_mut() {
                let known = self.known.get(&names.set(family)).copied().unwrap_or_default();
                leg.addresses = Some(known);
                if known >= ROOM as usize {
                    status.notes.push(format!(
                        "policy {}: its names have more {family} addresses than the {ROOM} that can be known",
                        policy.name
                    ));
                }
            }
        }
        status.notes.extend(self.listener.iter().filter_map(|listener| listener.deaf.borrow().clone()));
    }
}

fn wanted(plan: &Plan) -> Wanted {
    let named = plan.policies.iter().filter(|policy| !policy.domains.is_empty());
    named.map(|policy| (Names::of(&policy.name), policy.domains.clone())).collect()
}

impl Listener {
    fn start() -> Self {
        let (wanted, listened) = watch::channel(Wanted::default());
        let (told, deaf) = watch::channel(None);
        let task = tokio::spawn(listen(listened, told)).abort_handle();
        Listener { wanted, deaf, task }
    }
}

/// Listens for as long as it is let.
async fn listen(wanted: watch::Receiver<Wanted>, deaf: watch::Sender<Option<String>>) {
    loop {
        let error = match Answers::open().await {
            Ok(answers) => {
                info!("names: systemd-resolved tells its answers");
                deaf.send_replace(None);
                heard(answers, &wanted).await
            }
            Err(error) => error,
        };
        match &error {
            // On a machine without it dnsmasq notes addresses, or nobody asks.
            Error::Absent(_) => debug!("names: {}", chain(&error)),
            Error::Refused(_) | Error::Malformed(_) => {
                let why = format!("names are known only from dnsmasq: {}", chain(&error));
                if deaf.borrow().as_ref() != Some(&why) {
                    warn!("{why}");
                }
                deaf.send_replace(Some(why));
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn heard(mut answers: Answers, wanted: &watch::Receiver<Wanted>) -> Error {
    loop {
        match answers.next().await {
            Ok(answer) => {
                let meant = meant(&answer, &wanted.borrow());
                for names in meant {
                    note(&names, &answer).await;
                }
            }
            Err(error) => return error,
        }
    }
}

/// Who is for one of the names that were asked for.
fn meant(answer: &Answer, wanted: &Wanted) -> Vec<Names> {
    let has =
        |domains: &[Domain]| answer.names.iter().any(|name| domains.iter().any(|domain| domain.has(name)));
    wanted.iter().filter(|(_, domains)| has(domains)).map(|(names, _)| names.clone()).collect()
}

async fn note(names: &Names, answer: &Answer) {
    for family in Family::BOTH {
        let of_family =
            answer.addresses.iter().filter(|(ip, _)| Family::of(*ip) == family && leaves_the_link(*ip));
        let all: Vec<_> = of_family.map(|(ip, ttl)| (*ip, lasts(*ttl))).take(MOST).collect();
        if all.is_empty() {
            continue;
        }
        // There may be no table yet, or no room.
        if let Err(error) = element::note(&names.set(family), &all).await {
            debug!("{:?}: {}", answer.names, chain(&error));
        }
    }
}
