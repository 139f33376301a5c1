//! The loop: whatever happens is only an occasion to look again.
//!
//! A round observes, plans, diffs and applies. The first nudge starts one at once; what follows within the settle
//! time is gathered into the next. Rounds that fail are spaced out; so is, alone, what somebody keeps taking away.
//! Stopping is not teardown: everything stays in the kernel for the next start to find.

mod alone;
mod contest;
mod events;
mod main;
mod metering;
mod naming;
mod pace;
mod probing;
mod quotas;
mod racing;
mod round;
mod sampler;
mod watch;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::{debug, error, info, warn};

use crate::config::{self, Config};
use crate::core::health::{Health, Manual};
use crate::core::layout::Slot;
use crate::exit;
use crate::kernel::rtnl;
use crate::notify;
use crate::service::{self, Command};
use crate::sources::bus::{Bus, BusState};
use crate::state::{self, Directories, Lock};
use crate::status::Status;
use crate::world::Hearing;
pub use alone::{flush, full_plan, once};
use events::Events;
pub use main::main;
use metering::{Latencies, Metering};
use naming::Naming;
use pace::Pace;
use probing::Probing;
use quotas::Quotas;
use racing::Racing;
use round::Rounds;
use sampler::Sampler;

/// How often everything is looked at without an occasion.
const RESYNC: Duration = Duration::from_secs(60);

/// What is said after a start with broken files.
const NONE_IN_USE: &str = "NO CONFIGURATION IS IN USE, because the files have errors";
/// What is said after a reload of broken files.
const FORMER_IN_USE: &str = "the former configuration stays in use, because the files have errors";

/// What a start needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// The main configuration file.
    pub config: PathBuf,
    /// Where the daemon's own files are.
    pub dirs: Directories,
}

/// Why the daemon could not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its files.
    #[error(transparent)]
    State(#[from] state::Error),
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] rtnl::Error),
    /// The configuration, at start.
    #[error("{0}")]
    Config(#[from] config::Problems),
    /// The system's signals.
    #[error("listen for signals")]
    Signals(#[source] std::io::Error),
    /// `--once` could not bring the kernel to what it should be.
    #[error("{}", .0.join("\n"))]
    Unfinished(Vec<String>),
    /// The task that listens to the kernel has failed.
    #[error("the kernel can be heard no longer")]
    Deaf,
    /// Lacking CAP_NET_ADMIN.
    #[error("not permitted: uplinkd needs the capability CAP_NET_ADMIN (run it as a service, or as root)")]
    NotPermitted,
}

/// Runs until told to stop.
pub async fn run(options: Options) -> Result<(), Error> {
    may_administer()?;
    options.dirs.create()?;
    let _lock = Lock::take(&options.dirs).await?;
    // A router that reboots with a broken file must still come up.
    let (config, distrust) = match config::load(&options.config) {
        Ok(config) => (config, None),
        Err(problems) => (bare(&options.config), Some(format!("{NONE_IN_USE}: {problems}"))),
    };
    if let Some(why) = &distrust {
        error!("{why}");
    }
    let (nudger, nudges) = mpsc::channel(16);
    let (orders, commands) = mpsc::channel(16);
    let bus = Bus::start(nudger.clone());
    let (tell_offered, offered) = oneshot::channel();
    tokio::spawn(watch::serve(bus.watch(), orders, tell_offered));
    let (heard, listener) = watch::kernel(nudger)?;
    let mut daemon = Daemon {
        rounds: Rounds::new(&options.dirs, config, heard)?,
        probing: Probing::new(state::load_manual(&options.dirs)),
        metering: Metering::new(state::load_learned(&options.dirs), state::load_choices(&options.dirs)),
        quotas: Quotas::new(&options.dirs),
        sampler: Sampler::default(),
        racing: Racing::default(),
        naming: Naming::default(),
        events: Events::default(),
        options,
        bus,
        nudges,
        listener,
        commands,
        pace: Pace::default(),
        resting: false,
        waiting: Vec::new(),
        told: None,
        offered,
        heard: false,
        distrust,
    };
    daemon.run().await
}

/// What counts while the files have errors: fragments, which are none of the configuration's sections, may be a firewall.
fn bare(main: &std::path::Path) -> Config {
    Config { fragments: config::fragments(main), ..Config::default() }
}

/// CAP_NET_ADMIN is bit 12 of the effective set (capabilities(7)).
fn may_administer() -> Result<(), Error> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = set.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    // Where it cannot be read the kernel will say no in its own words.
    if set.is_none_or(|set| set & (1 << 12) != 0) { Ok(()) } else { Err(Error::NotPermitted) }
}

impl Error {
    /// The exit code that says it best.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::NotPermitted => exit::PERMISSION,
            Error::Config(_) => exit::CONFIG,
            _ => exit::FAILURE,
        }
    }
}

struct Daemon {
    options: Options,
    rounds: Rounds,
    probing: Probing,
    metering: Metering,
    quotas: Quotas,
    sampler: Sampler,
    racing: Racing,
    naming: Naming,
    events: Events,
    bus: Bus,
    nudges: mpsc::Receiver<crate::sources::Nudge>,
    /// Ends when the kernel can be heard no longer.
    listener: JoinHandle<rtnl::Error>,
    commands: mpsc::Receiver<Command>,
    pace: Pace,
    /// Flushed: nothing is managed until a reload.
    resting: bool,
    /// Those who wait for the next round's end.
    waiting: Vec<oneshot::Sender<()>>,
    /// The status that was last announced.
    told: Option<Status>,
    /// Says when the service is on the bus, or that there is no bus for it.
    offered: oneshot::Receiver<()>,
    /// Every source has been heard once.
    heard: bool,
    /// What is wrong with the configuration's files, while they are not what is in use.
    distrust: Option<String>,
}

impl Daemon {
    async fn run(&mut self) -> Result<(), Error> {
        let mut hangup = listen(SignalKind::hangup())?;
        let mut terminate = listen(SignalKind::terminate())?;
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut alive = notify::watchdog();
        let mut due = Instant::now();
        // A verdict has changed, and the round that acts on it is due.
        let mut judged = false;
        // Ready is who can be asked and has heard everybody: what is started after us finds the routing in place.
        let (mut offered, mut ready) = (false, false);
        info!("uplinkd {} starts", env!("CARGO_PKG_VERSION"));
        loop {
            tokio::select! {
                biased;
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => {
                    notify::reloading();
                    // Why it failed was logged.
                    let _ = self.reload();
                    notify::ready();
                    due = Instant::now();
                }
                () = tokio::time::sleep_until(due.into()) => {
                    due = self.round().await;
                    judged = false;
                }
                _ = alive.tick() => notify::alive(),
                // systemd starts us anew, with sockets that work.
                lost = &mut self.listener => return Err(lost.map_or(Error::Deaf, Error::Kernel)),
                Some(nudge) = self.nudges.recv() => {
                    debug!("nudge: {nudge:?}");
                    while self.nudges.try_recv().is_ok() {}
                    due = due.min(self.pace.soonest(Instant::now()));
                }
                () = self.probing.changed(), if !judged => {
                    judged = true;
                    due = due.min(self.pace.soonest(Instant::now()));
                }
                () = self.sampler.due() => {
                    if self.measure() {
                        due = due.min(self.pace.soonest(Instant::now()));
                    }
                }
                () = self.racing.run() => {}
                // Ends with an error when the task has, and then nothing more is to be waited for.
                _ = &mut self.offered, if !offered => offered = true,
                // Last, so that nobody who asks without end keeps us from what matters.
                Some(command) = self.commands.recv() => {
                    if self.obey(command).await {
                        due = due.min(self.pace.soonest(Instant::now()));
                    }
                }
            }
            if offered && self.heard && !ready {
                ready = true;
                notify::ready();
            }
        }
        self.remember(true);
        self.quotas.save(true);
        info!("uplinkd stops; routes, rules and marks stay in force");
        Ok(())
    }

    /// One round; returns when the next is due.
    async fn round(&mut self) -> Instant {
        if self.resting {
            self.release();
            return Instant::now() + RESYNC;
        }
        let (bus, health) = (self.bus.state(), self.probing.health());
        let (choices, usages) = (self.metering.choices(), self.quotas.usages());
        let outcome = match self.rounds.round(&bus, &health, &choices, &usages).await {
            Ok(outcome) => outcome,
            Err(error) => {
                warn!("{}", crate::world::chain(&error));
                return self.pace.failed(Instant::now());
            }
        };
        if outcome.hearing != Hearing::Wait {
            self.heard = true;
            self.probing.follow(self.rounds.last(), &outcome.failed, health);
            self.count_on();
            self.racing.follow(self.rounds.last()).await;
            self.naming.follow(self.rounds.last());
            // What failed does not get better by their waiting; what is new takes its share with its first answer.
            if !self.probing.is_proving() {
                self.release();
            }
            self.tell_transitions().await;
        }
        self.announce().await;
        let now = Instant::now();
        now + self.pace.after(&outcome, now).unwrap_or(RESYNC)
    }

    /// Has what a round found measured and counted from here on.
    fn count_on(&mut self) {
        let (plan, method) = (self.rounds.last(), self.rounds.method());
        self.quotas.follow(plan);
        self.metering.follow(plan, Instant::now());
        let needed = Metering::is_needed(plan, method) || Quotas::is_needed(plan);
        self.sampler.follow(plan.uplinks.len(), needed);
    }

    /// Looks at the counters; true when a round should follow: a method has chosen otherwise, or a limit is reached.
    fn measure(&mut self) -> bool {
        let (plan, method, now) = (self.rounds.last(), self.rounds.method(), Instant::now());
        let latencies = match Metering::asks_for_latencies(plan, method) {
            true => self.probing.latencies(),
            false => Latencies::new(),
        };
        let links = self.sampler.look(now);
        let chosen = self.metering.sample(&links, plan, method, &latencies, now);
        let limited = self.quotas.sample(&links, plan);
        self.remember(false);
        chosen || limited
    }

    /// Writes down what uplinks were seen to carry, and who is chosen. What cannot be written is found out again.
    fn remember(&mut self, stopping: bool) {
        let (dirs, now) = (&self.options.dirs, Instant::now());
        let learned = self.metering.unsaved(stopping, now).map(|learned| state::save_learned(dirs, &learned));
        let chosen = self.metering.unsaved_choices().map(|chosen| state::save_choices(dirs, &chosen));
        for error in [learned, chosen].into_iter().flatten().filter_map(Result::err) {
            warn!("what was measured is not kept: {}", crate::world::chain(&error));
        }
    }

    /// Answers those who wait for a round. One who has gone needs none.
    fn release(&mut self) {
        for answer in self.waiting.drain(..) {
            let _ = answer.send(());
        }
    }

    /// Tells the world what has become of whom.
    async fn tell_transitions(&mut self) {
        for event in self.events.follow(self.rounds.last()) {
            event.log();
            if let BusState::Connected(bus) = self.bus.state() {
                service::tell(&bus, &event).await;
            }
        }
    }

    /// Tells the world when the status is not what it was, but for figures that change with every probe.
    async fn announce(&mut self) {
        let status = self.status().without_figures();
        if self.told.as_ref() != Some(&status) {
            notify::status(&status.summary());
            if let BusState::Connected(bus) = self.bus.state() {
                service::announce(&bus).await;
            }
            self.told = Some(status);
        }
    }

    fn status(&self) -> Status {
        let mut status = self.rounds.status();
        self.events.date(&mut status);
        self.probing.describe(&mut status);
        self.metering.describe(self.rounds.last(), &mut status);
        self.quotas.describe(self.rounds.last(), &mut status);
        self.racing.describe(self.rounds.last(), &mut status);
        self.naming.describe(self.rounds.last(), &mut status);
        let resting = self.resting.then(|| "flushed: nothing is managed until `uplinkctl reload`".to_owned());
        status.alerts.extend(resting.into_iter().chain(self.distrust.clone()));
        status
    }

    /// Does what was asked; true when a round should follow.
    async fn obey(&mut self, command: Command) -> bool {
        match command {
            Command::Status(answer) => {
                self.racing.look().await;
                self.naming.look(self.rounds.last()).await;
                let news = self.sampler.ask(Instant::now()) && self.measure();
                drop(answer.send(self.status().to_json()));
                return news;
            }
            Command::Plan(answer) => {
                // While nobody is asked, links are taken for good: the whole of what a reload leads to is told.
                let health = if self.resting { Health::default() } else { self.probing.health() };
                let (choices, usages) = (self.metering.choices(), self.quotas.usages());
                let planned = self.rounds.planned(&self.bus.state(), &health, &choices, &usages).await;
                let planned = planned.map_err(|error| crate::world::chain(&error));
                drop(answer.send(planned.map(|lines| serde_json::Value::from(lines).to_string())));
            }
            Command::Reload(answer) => {
                let outcome = self.reload();
                let done = told(answer, outcome);
                if !done {
                    self.announce().await;
                }
                return done;
            }
            Command::Nudge(answer) => {
                self.waiting.push(answer);
                return true;
            }
            Command::Flush(answer) => {
                self.resting = true;
                self.probing.rest();
                self.metering.rest(Instant::now());
                self.sampler.rest();
                self.racing.rest();
                self.naming.rest();
                let outcome = match self.rounds.flush(&self.bus.state()).await {
                    Ok(outcome) => outcome.map_err(|failed| failed.join("\n")),
                    Err(error) => Err(crate::world::chain(&error)),
                };
                drop(answer.send(outcome));
                self.announce().await;
            }
            Command::Drain(name, drained, answer) => {
                return told(answer, self.rounds.drain(&name, drained));
            }
            Command::Override(name, decision, answer) => {
                let outcome = self.rounds.slot_of(&name).and_then(|slot| self.decide(slot, decision));
                return told(answer, outcome);
            }
            Command::QuotaUsed(name, used, answer) => {
                let slot = self.rounds.slot_of(&name);
                let outcome = slot.and_then(|slot| self.quotas.correct(slot, used, self.rounds.last()));
                return told(answer, outcome);
            }
            Command::Events(answer) => drop(answer.send(self.events.to_json())),
            Command::Forget(name, answer) => {
                // Whoever gets its slot begins without what was decided over it.
                let outcome = self.rounds.forget(&name).and_then(|slot| self.decide(slot, None));
                return told(answer, outcome);
            }
        }
        false
    }

    /// Holds an uplink up or down by hand, or lets the probes decide again.
    fn decide(&mut self, slot: Slot, decision: Option<Manual>) -> Result<(), String> {
        let manual = self.probing.decide(slot, decision);
        state::save_manual(&self.options.dirs, manual).map_err(|error| crate::world::chain(&error))
    }

    /// Reads the configuration again. A wrong one leaves everything as it is and says why.
    fn reload(&mut self) -> Result<(), String> {
        match config::load(&self.options.config) {
            Ok(config) => {
                info!("configuration read");
                self.rounds.configure(config);
                (self.resting, self.distrust) = (false, None);
                Ok(())
            }
            Err(problems) => {
                let bare = self.distrust.as_ref().is_some_and(|why| why.starts_with(NONE_IN_USE));
                let why = format!("{}: {problems}", if bare { NONE_IN_USE } else { FORMER_IN_USE });
                warn!("{why}");
                self.distrust = Some(why);
                Err(problems.to_string())
            }
        }
    }
}

/// Answers who gave an order, who may have gone; returns whether it was carried out.
fn told(answer: oneshot::Sender<Result<(), String>>, outcome: Result<(), String>) -> bool {
    let done = outcome.is_ok();
    let _ = answer.send(outcome);
    done
}

fn listen(kind: SignalKind) -> Result<Signal, Error> {
    signal(kind).map_err(Error::Signals)
}
