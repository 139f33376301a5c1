//! What is done once, where no daemon runs: for hooks, for the removal of the package, and as a dry run.

use std::time::Instant;

use tokio::sync::mpsc;

use super::metering::Metering;
use super::pace::Pace;
use super::quotas::Quotas;
use super::round::Rounds;
use super::{Error, Options, may_administer};
use crate::config::{self, Config};
use crate::core::health::Health;
use crate::sources::bus::Bus;
use crate::state::{self, Directories, Lock};

/// Brings the kernel to what it should be, once: for hooks where no daemon runs.
pub async fn once(options: Options) -> Result<(), Error> {
    may_administer()?;
    options.dirs.create()?;
    let _lock = Lock::take(&options.dirs).await?;
    let config = config::load(&options.config)?;
    let (nudger, _nudges) = mpsc::channel(16);
    let bus = Bus::start(nudger);
    let mut rounds = Rounds::new(&options.dirs, config, Default::default())?;
    // Nobody asks or counts, but what is used up stays so, and who was chosen is.
    let usages = Quotas::new(&options.dirs).usages();
    let choices = Metering::new(Default::default(), state::load_choices(&options.dirs)).choices();
    let mut pace = Pace::default();
    let mut last = Vec::new();
    // The kernel can be busy changing under us; a few rounds settle it.
    for _ in 0..10 {
        bus.settled().await;
        let outcome = rounds.round(&bus.state(), &Health::default(), &choices, &usages).await?;
        if outcome.settled() {
            return Ok(());
        }
        last = outcome.failed.iter().map(ToString::to_string).collect();
        tokio::time::sleep(pace.after(&outcome, Instant::now()).unwrap_or_default()).await;
    }
    Err(Error::Unfinished(last))
}

/// Takes everything of ours out of the kernel, for when no daemon runs.
pub async fn flush(dirs: &Directories) -> Result<(), Error> {
    may_administer()?;
    dirs.create()?;
    let _lock = Lock::take(dirs).await?;
    let (nudger, _nudges) = mpsc::channel(16);
    let bus = Bus::start(nudger);
    bus.settled().await;
    let mut rounds = Rounds::new(dirs, Config::default(), Default::default())?;
    rounds.flush(&bus.state()).await?.map_err(Error::Unfinished)
}

/// Everything that should be in the kernel, as commands, with the notes of the plan: a dry run that needs neither
/// privilege nor daemon.
pub async fn full_plan(config: Config, dirs: &Directories) -> Result<(Vec<String>, Vec<String>), Error> {
    let (nudger, _nudges) = mpsc::channel(16);
    let bus = Bus::start(nudger);
    bus.settled().await;
    let mut rounds = Rounds::new(dirs, config, Default::default())?;
    Ok(rounds.full(&bus.state()).await?)
}
