//! The administrator's own nftables tables: which should be loaded, and what people should know of those that are not.

use super::Observed;
use crate::config::Config;
use crate::core::diff::Desired;
use crate::core::nft::{Defines, FragmentName};
use crate::core::slots::Slots;
use crate::core::uplink::Uplink;

/// Plans them all. A file that cannot be used changes nothing: what was loaded of it stays.
pub(super) fn fragments(
    config: &Config,
    observed: &Observed,
    slots: &Slots,
    uplinks: &[Uplink],
    desired: &mut Desired,
    notes: &mut Vec<String>,
) {
    let kernel = &observed.kernel;
    let fate = |name: &FragmentName| match kernel.fragments.contains_key(name) {
        true => "what was loaded of it before stays in force",
        false => "nothing of it is in force",
    };
    let defines = defines(slots, uplinks);
    for (name, file) in &config.fragments.files {
        let table = file.as_ref().map(|fragment| fragment.table(&defines));
        let refused = kernel.refused.get(name);
        let why = match &table {
            Ok(table) => {
                refused.filter(|(tried, _)| *tried == table.generation()).map(|(_, said)| said.as_str())
            }
            Err(flaw) => Some(flaw.as_str()),
        };
        notes.extend(why.map(|why| format!("{why}; {}", fate(name))));
        desired.fragments.insert(name.clone(), table.ok());
    }
    notes.extend(config.fragments.strays.iter().cloned());
    if let Some(why) = &config.fragments.unread {
        notes.push(format!("{why}; what was loaded from there before stays in force"));
        let kept = kernel.fragments.keys().map(|name| (name.clone(), None));
        desired.fragments.extend(kept);
    }
}

/// What fragments can use: also of uplinks that are away, so that they can be loaded as the machine starts.
fn defines(slots: &Slots, uplinks: &[Uplink]) -> Defines {
    let known = slots.entries().iter();
    let present = uplinks.iter().filter(|uplink| !uplink.leads_nowhere());
    Defines::new(
        known.map(|entry| (entry.name.as_str(), entry.slot, entry.interface.as_str())),
        present.map(|uplink| uplink.dev.name.as_str()),
    )
}
