//! What nft said of fragments: one that it refused is not shown to it with every round, and is shown to it again, as an
//! interface or a user that it names may have come meanwhile.
//!
//! Refuses to know what becomes of a fragment; that is planned.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::core::diff::Desired;
use crate::core::nft::{FragmentName, FragmentTable};
use crate::core::observed::Kernel;
use crate::kernel::nft;
use crate::world::chain;

/// How long a refused one waits at least.
const WAIT: Duration = Duration::from_secs(60);

/// It waits so many times longer than the refusal took: a host's name that nobody resolves takes seconds.
const SPARING: u32 = 100;

/// Those that nft has refused.
#[derive(Default)]
pub(super) struct Fragments {
    refused: BTreeMap<FragmentName, Refusal>,
}

struct Refusal {
    table: FragmentTable,
    said: String,
    again: Instant,
}

impl Fragments {
    /// Tells of those that nft refuses; asks it anew about those that have waited.
    pub(super) async fn look(&mut self, kernel: &mut Kernel) {
        for name in self.refused.keys().cloned().collect::<Vec<_>>() {
            let Some(refusal) = self.refused.get(&name).filter(|refusal| refusal.again <= Instant::now())
            else {
                continue;
            };
            let table = refusal.table.clone();
            // What is not refused any more is missing again, and loaded.
            self.refused.remove(&name);
            let _ = self.check(&table, kernel.fragments.contains_key(&name)).await;
        }
        let told =
            |(name, r): (&FragmentName, &Refusal)| (name.clone(), (r.table.generation(), r.said.clone()));
        kernel.refused = self.refused.iter().map(told).collect();
    }

    /// Loads one in place of ours that is loaded, or where there is none. What is loaded stays if nft refuses it.
    pub(super) async fn load(&mut self, table: &FragmentTable, over: bool) -> Result<(), String> {
        self.check(table, over).await?;
        let start = Instant::now();
        let loaded = nft::load(&table.text(over)).await;
        loaded.map_err(|error| self.refuse(table, &error, start))
    }

    async fn check(&mut self, table: &FragmentTable, over: bool) -> Result<(), String> {
        let start = Instant::now();
        let checked = nft::check(&table.text(over)).await;
        checked.map_err(|error| self.refuse(table, &error, start))
    }

    fn refuse(&mut self, table: &FragmentTable, error: &nft::Error, start: Instant) -> String {
        let said = said(table, error);
        let again = Instant::now() + WAIT.max(start.elapsed() * SPARING);
        let refusal = Refusal { table: table.clone(), said: said.clone(), again };
        self.refused.insert(table.name().clone(), refusal);
        said
    }

    /// Forgets those that are not wanted any more.
    pub(super) fn settle(&mut self, desired: &Desired) {
        let wanted =
            |table: &FragmentTable| desired.fragments.get(table.name()) == Some(&Some(table.clone()));
        self.refused.retain(|_, refusal| wanted(&refusal.table));
    }
}

/// Why a fragment was not taken, with the lines of its file.
pub fn said(table: &FragmentTable, error: &nft::Error) -> String {
    match error {
        nft::Error::Refused { complaint, .. } => table.complaint(complaint),
        other => format!("{}: {}", table.file(), chain(other)),
    }
}
