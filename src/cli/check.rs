//! `uplinkctl check`.

use std::path::Path;

use super::{Failure, configuration, print};
use crate::config::Config;
use crate::core::nft::Defines;
use crate::core::text::counted;
use crate::exit;
use crate::kernel::nfnl::Loaded;
use crate::kernel::{nfnl, nft};
use crate::state::{self, Directories};
use crate::world;

pub(super) async fn run(file: &Path) -> Result<(), Failure> {
    let config = configuration(file)?;
    let mut problems: Vec<String> = config.notes.iter().chain(config.fragments.problems()).cloned().collect();
    // Who may not ask what is loaded may not ask nft either.
    let shown = match nfnl::loaded().await {
        Ok(loaded) => {
            problems.extend(refusals(&config, &loaded).await);
            ""
        }
        Err(_) => ", not shown to nft, for which root is needed",
    };
    if !problems.is_empty() {
        return Err(Failure::with(exit::CONFIG, problems.join("\n")));
    }
    let mut found = counted(config.uplinks.len(), "[[uplink]] section");
    if !config.fragments.files.is_empty() {
        found += &format!("; {}{shown}", counted(config.fragments.files.len(), "nft fragment"));
    }
    print(&format!("{}: good; {found}\n", file.display()))
}

/// What nft says of fragments, with the uplinks that the daemon remembers.
async fn refusals(config: &Config, loaded: &Loaded) -> Vec<String> {
    let slots = state::peek_slots(&Directories::from_environment());
    let known = || slots.entries().iter();
    let defines = Defines::new(
        known().map(|entry| (entry.name.as_str(), entry.slot, entry.interface.as_str())),
        known().map(|entry| entry.interface.as_str()),
    );
    let mut refusals = Vec::new();
    for fragment in config.fragments.good() {
        let table = fragment.table(&defines);
        let checked = nft::check(&table.text(loaded.fragments.contains_key(fragment.name()))).await;
        refusals.extend(checked.err().map(|error| world::said(&table, &error)));
    }
    refusals
}
