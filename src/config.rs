//! What the administrator says of which links.
//!
//! Decides how settings are written, which link a section speaks of, and what counts where several speak of one.
//! Refuses to know which links exist and what becomes of the settings. Only [`load`], [`fragments`] and [`edit`] touch files.

mod balance;
mod edit;
mod firewall;
#[cfg(test)]
pub(crate) mod folder;
mod forward;
mod fragments;
mod group;
mod keys;
mod load;
mod matcher;
mod parse;
mod policy;
mod problem;
mod router;
mod routes;
mod settings;
mod table;

use std::fmt;
use std::path::PathBuf;

pub use balance::Balance;
pub use edit::{Error, edit};
pub use firewall::Firewall;
pub use forward::Forward;
pub use fragments::fragments;
pub use group::{Group, Party};
pub use keys::{Key, Refusal, Value};
pub use load::load;
pub use matcher::{LinkType, Matcher, Pattern, Subject, UnknownLinkType};
pub use parse::parse;
pub use policy::{Outside, POLICY, TRAFFIC};
pub use problem::{Problem, Problems};
pub use router::{Enable, Router};
pub use routes::{Lead, NO_FILES};
pub use settings::{Assignment, FailbackMode, NO_DAY, NO_PROGRAMS, Settings};
pub use table::{CRITERIA, GLOBALS, SECTIONS, SETTINGS};

use crate::core::nft::Fragments;
use crate::core::policy::{Policy, Prefixes};

/// The main file; `conf.d` lies beside it.
pub const MAIN_FILE: &str = "/etc/uplinkd/uplinkd.toml";

/// The whole configuration; the empty one is complete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// The sections in the order in which they are read: the main file, then `conf.d` by name.
    pub uplinks: Vec<Section>,
    /// What holds where no uplink of a family leads out.
    pub all_down: AllDown,
    /// How new flows are shared out that no policy is for.
    pub balance: Balance,
    /// What the machine does for the hosts behind it.
    pub router: Router,
    /// Its port forwards, in the order in which they are read.
    pub forwards: Vec<Forward>,
    /// What is let in by uplinks.
    pub firewall: Firewall,
    /// Who may talk to whom through it; all of them where there is none.
    pub groups: Vec<Group>,
    /// Which traffic does not go as all else does: in order, the first that matches wins.
    pub policies: Vec<Policy>,
    /// All prefixes of these.
    pub prefixes: Prefixes,
    /// nftables tables of the administrator's own.
    pub fragments: Fragments,
    /// What is wrong and keeps nothing else from counting, in words for the status.
    pub notes: Vec<String>,
}

/// What becomes of traffic while no uplink of its family leads out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AllDown {
    /// The managers' own default routes stand: the verdicts may be wrong.
    #[default]
    Keep,
    /// Nothing leaves by a default route.
    Block,
}

impl Config {
    /// Everything that is said of a link: of the sections that match it, the later wins, key by key.
    pub fn settings(&self, link: &Subject) -> Settings {
        let sections = self.uplinks.iter().filter(|section| section.matcher.matches(link));
        sections.fold(Settings::default(), |earlier, section| earlier.overlaid(section.settings.clone()))
    }
}

/// One `[[uplink]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// The links that it speaks of.
    pub matcher: Matcher,
    /// What it says of them.
    pub settings: Settings,
    /// Where it stands.
    pub origin: Origin,
}

/// Where a section begins, for notes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}
