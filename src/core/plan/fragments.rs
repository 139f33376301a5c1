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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::change::Change;
    use crate::core::diff::diff;
    use crate::core::nft::{Fragment, Fragments, Generation};

    fn name(text: &str) -> FragmentName {
        FragmentName::new(text).expect("a name")
    }

    fn config(files: &[(&str, &str)]) -> Config {
        let read = |&(n, text): &(&str, &str)| (name(n), Fragment::read(name(n), n, text));
        let fragments = Fragments { files: files.iter().map(read).collect(), ..Fragments::default() };
        Config { fragments, ..Config::default() }
    }

    /// The changes in words, and the notes.
    fn planned(config: &Config, observed: &Observed) -> (Vec<String>, Vec<String>) {
        let (mut desired, mut notes) = (Desired::default(), Vec::new());
        fragments(config, observed, &Slots::default(), &[], &mut desired, &mut notes);
        let word = |change: &Change| match change {
            Change::LoadFragment(table, over) => format!("{} over {over}", table.name().table()),
            other => other.to_string(),
        };
        (diff(&desired, &observed.kernel).iter().map(word).collect(), notes)
    }

    fn generation(config: &Config, of: &str) -> Generation {
        let fragment = config.fragments.good().find(|f| *f.name() == name(of)).expect("a good one");
        fragment.table(&Defines::new([], [])).generation()
    }

    #[test]
    fn what_is_missing_is_loaded_and_what_has_no_file_goes() {
        let config = config(&[("a", "chain x { accept; }"), ("b", "chain x { accept; }")]);
        let mut observed = Observed::default();
        observed.kernel.fragments.insert(name("b"), Generation::UNKNOWN);
        observed.kernel.fragments.insert(name("c"), Generation::UNKNOWN);
        let changes = ["uplinkd_a over false", "uplinkd_b over true", "nft delete table inet uplinkd_c"];
        assert_eq!(planned(&config, &observed), (changes.map(str::to_owned).to_vec(), Vec::new()));
        observed.kernel.fragments.remove(&name("c"));
        for of in ["a", "b"] {
            observed.kernel.fragments.insert(name(of), generation(&config, of));
        }
        assert_eq!(planned(&config, &observed), (Vec::new(), Vec::new()));
    }

    #[test]
    fn what_was_refused_is_told_and_not_tried_again_before_it_is_another() {
        let config = config(&[("a", "chain x { rubbish; }"), ("b", "}")]);
        let mut observed = Observed::default();
        observed.kernel.fragments.insert(name("b"), Generation::UNKNOWN);
        let refused = (generation(&config, "a"), "a:1:11-17: Error: what".to_owned());
        observed.kernel.refused.insert(name("a"), refused);
        let (changes, notes) = planned(&config, &observed);
        assert!(changes.is_empty(), "{changes:?}");
        assert_eq!(notes[0], "a:1:11-17: Error: what; nothing of it is in force");
        assert!(
            notes[1].starts_with("b:1: this } has no {") && notes[1].ends_with("stays in force"),
            "{notes:?}"
        );
        observed.kernel.refused.insert(name("a"), (Generation::UNKNOWN, "of another text".to_owned()));
        let (changes, notes) = planned(&config, &observed);
        assert_eq!((changes, notes.len()), (vec!["uplinkd_a over false".to_owned()], 1));
    }

    #[test]
    fn a_folder_that_cannot_be_read_takes_nothing_away() {
        let mut config = Config::default();
        config.fragments.unread = Some("nft.d: cannot be read".to_owned());
        let mut observed = Observed::default();
        observed.kernel.fragments.insert(name("a"), Generation::UNKNOWN);
        let (changes, notes) = planned(&config, &observed);
        let note = "nft.d: cannot be read; what was loaded from there before stays in force";
        assert_eq!((changes.len(), notes), (0, vec![note.to_owned()]));
    }
}
