//! What systemd-resolved asks, and the memory of what we changed there.
//!
//! Decides when that is forgotten. What should be asked is decided elsewhere, as everything is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tracing::warn;

use super::chain;
use crate::core::net::{Device, Family, IfIndex};
use crate::core::observed::{LinkFacts, Observed};
use crate::sources::bus::BusState;
use crate::sources::resolved;
use crate::state::{self, Directories};

/// How long a round waits for it: names are resolved without us.
const BRIEFLY: Duration = Duration::from_millis(200);

/// systemd-resolved, and the links that we had it not ask.
pub(super) struct Resolvers {
    dirs: Directories,
    /// In a file as well, so that they are found after a restart.
    unasked: BTreeSet<IfIndex>,
    /// As of the last look.
    bus: Option<zbus::Connection>,
}

impl Resolvers {
    /// Reads what was changed before.
    pub(super) fn open(dirs: &Directories) -> Self {
        Resolvers { dirs: dirs.clone(), unasked: state::load_unasked(dirs), bus: None }
    }

    /// Adds to a look which links are asked. Nobody is troubled while no link has a resolver.
    pub(super) async fn look(&mut self, bus: &BusState, observed: &mut Observed) {
        self.bus = match bus {
            BusState::Connected(connection) => Some(connection.clone()),
            _ => None,
        };
        let Some(bus) = &self.bus else { return };
        let announces =
            |facts: &&LinkFacts| Family::BOTH.iter().any(|&family| !facts.ip[family].resolvers.is_empty());
        let names: BTreeSet<_> = observed.managed.iter().filter(announces).map(|f| &f.interface).collect();
        let links = observed.links.iter();
        let links = links.filter(|l| names.contains(&l.name) || self.unasked.contains(&l.index));
        let links: Vec<Device> = links.map(|l| Device { index: l.index, name: l.name.clone() }).collect();
        if links.is_empty() {
            return;
        }
        match tokio::time::timeout(BRIEFLY, resolved::asked(bus, &links)).await {
            Ok(Ok(asked)) => observed.kernel.asked = asked,
            Ok(Err(error)) => observed.unheard.push(chain(&error)),
            Err(_) => observed.unheard.push("systemd-resolved does not answer; it is left as it is".into()),
        }
        self.forget(&links, &observed.kernel.asked);
        observed.kernel.unasked.clone_from(&self.unasked);
    }

    /// Has a link's resolvers asked, or not, which is remembered first.
    pub(super) async fn ask(&mut self, dev: &Device, asked: bool) -> Result<(), String> {
        let bus = self.bus.clone().ok_or("no D-Bus")?;
        if !asked {
            self.remember(self.unasked.iter().copied().chain([dev.index]).collect())?;
        }
        resolved::ask(&bus, dev.index, asked).await.map_err(|error| chain(&error))?;
        if asked {
            self.remember(self.unasked.iter().copied().filter(|index| *index != dev.index).collect())?;
        }
        Ok(())
    }

    /// What somebody else has switched on since, as NetworkManager does with each change of its own, is not ours any
    /// more; nor is what has gone. While resolved is away nothing is forgotten: it finds again what it was told.
    fn forget(&mut self, links: &[Device], asked: &BTreeMap<Device, bool>) {
        let still = |index: &IfIndex| links.iter().any(|d| d.index == *index && asked.get(d) != Some(&true));
        let ours = self.unasked.iter().copied().filter(still).collect();
        if let Err(why) = self.remember(ours) {
            warn!("{why}");
        }
    }

    fn remember(&mut self, links: BTreeSet<IfIndex>) -> Result<(), String> {
        if links != self.unasked {
            state::save_unasked(&self.dirs, &links).map_err(|error| chain(&error))?;
            self.unasked = links;
        }
        Ok(())
    }
}
