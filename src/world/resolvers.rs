//! What systemd-resolved asks, and the memory of what we changed there.
//!
//! Decides how long it is waited for, and when what we changed is forgotten. What should be asked is decided elsewhere, as
//! everything is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use tracing::warn;
use zbus::names::OwnedUniqueName;

use super::chain;
use crate::core::net::{Device, Family, IfIndex};
use crate::core::observed::{LinkFacts, Observed};
use crate::sources::bus::BusState;
use crate::sources::{Presence, resolved};
use crate::state::{self, Directories};

/// How long a round waits for it: names are resolved without us.
const BRIEFLY: Duration = Duration::from_millis(200);
/// How long one that did not answer is left in peace, so that it does not hold up every round.
const PAUSE: Duration = Duration::from_secs(10);

/// systemd-resolved, and the links that we had it not ask.
pub(super) struct Resolvers {
    dirs: Directories,
    /// In a file as well, so that they are found after a restart.
    unasked: BTreeSet<IfIndex>,
    /// What the file holds.
    written: BTreeSet<IfIndex>,
    /// As of the last look.
    bus: Option<zbus::Connection>,
    /// The links that mattered at the last look.
    links: Vec<Device>,
    /// Who was asked last without an answer so far, and until when it is left in peace.
    silent: Option<(OwnedUniqueName, Instant)>,
}

/// Whether each link is asked, or why nobody can tell.
pub(super) type Said = Result<BTreeMap<Device, bool>, String>;

impl Resolvers {
    /// Reads what was changed before.
    pub(super) fn open(dirs: &Directories) -> Self {
        let unasked = state::load_unasked(dirs);
        let written = unasked.clone();
        Resolvers { dirs: dirs.clone(), unasked, written, bus: None, links: Vec::new(), silent: None }
    }

    /// Asks about the links of the last look, as the managers are still being asked which those of this one are.
    pub(super) async fn look(&mut self, bus: &BusState) -> Said {
        self.bus = match bus {
            BusState::Connected(connection) => Some(connection.clone()),
            _ => None,
        };
        let links = self.links.clone();
        self.hear(&links).await
    }

    /// Adds to a look which links are asked; those that are new are asked about now.
    pub(super) async fn take_in(&mut self, mut said: Said, observed: &mut Observed) {
        if self.bus.is_none() {
            return;
        }
        let links = concerned(observed, &self.unasked);
        let fresh: Vec<Device> = links.iter().filter(|dev| !self.links.contains(dev)).cloned().collect();
        if let Ok(known) = &mut said {
            known.retain(|dev, _| links.contains(dev));
            match self.hear(&fresh).await {
                Ok(more) => known.extend(more),
                Err(why) => said = Err(why),
            }
        }
        match said {
            Ok(asked) => observed.kernel.asked = asked,
            Err(why) => observed.unheard.push(why),
        }
        self.links = links;
        self.forget(&observed.kernel.asked);
        observed.kernel.unasked.clone_from(&self.unasked);
    }

    /// Nobody is troubled while no link has a resolver.
    async fn hear(&mut self, links: &[Device]) -> Said {
        let Some(bus) = self.bus.clone().filter(|_| !links.is_empty()) else { return Ok(BTreeMap::new()) };
        let heard = tokio::time::timeout(BRIEFLY, self.hear_out(&bus, links)).await;
        heard.unwrap_or_else(|_| Err(silence()))
    }

    async fn hear_out(&mut self, bus: &zbus::Connection, links: &[Device]) -> Said {
        let instance = resolved::instance(bus).await.map_err(|error| chain(&error))?;
        let Presence::Present(instance) = instance else { return Ok(BTreeMap::new()) };
        let now = Instant::now();
        if self.silent.as_ref().is_some_and(|(who, until)| *who == instance && now < *until) {
            return Err(silence());
        }
        // This stands if nobody waits for the end.
        self.silent = Some((instance.clone(), now + PAUSE));
        let asked = resolved::asked(bus, &instance, links).await;
        self.silent = None;
        asked.map_err(|error| chain(&error))
    }

    /// Has a link's resolvers asked, or not, which is remembered first.
    pub(super) async fn ask(&mut self, dev: &Device, asked: bool) -> Result<(), String> {
        let bus = self.bus.clone().ok_or("no D-Bus")?;
        if !asked {
            self.unasked.insert(dev.index);
            self.write()?;
        }
        resolved::ask(&bus, dev.index, asked).await.map_err(|error| chain(&error))?;
        if asked {
            self.unasked.remove(&dev.index);
            self.write()?;
        }
        Ok(())
    }

    /// What somebody else has switched on since, as NetworkManager does with each change of its own, is not ours any
    /// more; nor is what has gone. While resolved is away nothing is forgotten: it finds again what it was told.
    fn forget(&mut self, asked: &BTreeMap<Device, bool>) {
        let still =
            |index: &IfIndex| self.links.iter().any(|d| d.index == *index && asked.get(d) != Some(&true));
        self.unasked = self.unasked.iter().copied().filter(still).collect();
    }

    /// Writes down what a look has found to be over.
    pub(super) fn remember(&mut self) {
        if let Err(why) = self.write() {
            warn!("{why}");
        }
    }

    fn write(&mut self) -> Result<(), String> {
        if self.written != self.unasked {
            state::save_unasked(&self.dirs, &self.unasked).map_err(|error| chain(&error))?;
            self.written.clone_from(&self.unasked);
        }
        Ok(())
    }
}

fn silence() -> String {
    "systemd-resolved does not answer; it is left as it is".to_owned()
}

/// The links with resolvers, and those that were taken out before.
fn concerned(observed: &Observed, unasked: &BTreeSet<IfIndex>) -> Vec<Device> {
    let announces =
        |facts: &&LinkFacts| Family::BOTH.iter().any(|&family| !facts.ip[family].resolvers.is_empty());
    let names: BTreeSet<_> = observed.managed.iter().filter(announces).map(|f| &f.interface).collect();
    let links = observed.links.iter();
    let links = links.filter(|l| names.contains(&l.name) || unasked.contains(&l.index));
    links.map(|l| Device { index: l.index, name: l.name.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::folder::Folder;
    use crate::core::net::IfName;

    #[test]
    fn a_look_forgets_in_memory_and_only_an_order_writes_it_down() {
        let folder = Folder::new("unasked");
        let dirs = Directories { state: folder.path(""), runtime: folder.path("") };
        let device = |index, name| Device { index: IfIndex(index), name: IfName::new(name).unwrap() };
        let indices = |all: &[u32]| all.iter().copied().map(IfIndex).collect::<BTreeSet<_>>();
        state::save_unasked(&dirs, &indices(&[2, 3, 4])).unwrap();
        let mut resolvers = Resolvers::open(&dirs);
        // The third was switched on by somebody else, and the fourth has gone.
        resolvers.links = vec![device(2, "eth2"), device(3, "eth3")];
        resolvers.forget(&BTreeMap::from([(device(2, "eth2"), false), (device(3, "eth3"), true)]));
        assert_eq!(resolvers.unasked, indices(&[2]));
        assert_eq!(state::load_unasked(&dirs), indices(&[2, 3, 4]));
        resolvers.remember();
        assert_eq!(state::load_unasked(&dirs), indices(&[2]));
        resolvers.forget(&BTreeMap::new());
        assert_eq!(resolvers.unasked, indices(&[2]), "nobody tells, so it still holds");
    }
}
