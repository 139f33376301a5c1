//! What is said of the firewall: `[firewall]`.

use super::Config;
use super::keys::{Key, Kind};
use crate::core::opening::Opening;

/// The firewall towards the uplinks; by default there is none, as most hosts have one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Firewall {
    /// Whether there is one.
    pub enable: bool,
    /// What visitors reach of the machine itself.
    pub allow: Vec<Opening>,
    /// Whether the log stays silent about what is dropped.
    pub quiet: bool,
}

/// The keys of `[firewall]`.
pub(super) static FIREWALL: [Key<Config>; 3] = [
    Key {
        name: "enable",
        allowed: "true or false",
        help: "whether uplinks are closed but for what is allowed; false unless told otherwise",
        kind: Kind::Flag,
        put: |config, value| value.flag().map(|flag| config.firewall.enable = flag),
    },
    Key {
        name: "allow",
        allowed: Opening::ALLOWED,
        help: "what visitors reach of this machine; nothing unless told otherwise",
        kind: Kind::Texts,
        put: |config, value| {
            let openings = value.text()?.split(';').map(|text| text.trim().parse().ok());
            openings.collect::<Option<_>>().map(|openings| config.firewall.allow = openings)
        },
    },
    Key {
        name: "log",
        allowed: "true or false",
        help: "whether the kernel's log tells of what is dropped; true unless told otherwise",
        kind: Kind::Flag,
        put: |config, value| value.flag().map(|flag| config.firewall.quiet = !flag),
    },
];
