//! What is said of the machine as a router: `[router]`.
//!
//! Refuses to know which interfaces there are, and whether the machine forwards.

use super::Config;
use super::keys::{Key, Kind, Value};
use super::matcher::Pattern;
use crate::core::net::IfName;

/// What the machine is to do for the hosts behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Router {
    /// Whether it is a router.
    pub enable: Enable,
    /// Whether IPv4 sources that are good for no internet get the uplink's address; where nothing is said, as soon as
    /// anything is done for what is forwarded.
    pub masquerade: Option<bool>,
    lan: Vec<Pattern>,
}

/// Whether the machine is a router.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Enable {
    /// It is when it forwards, whoever had it do so.
    #[default]
    Auto,
    /// It is, and is made to forward.
    On,
    /// It is none: what it forwards all the same is left alone.
    Off,
}

impl Enable {
    /// The word that the configuration has for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Enable::Auto => "auto",
            Enable::On => "true",
            Enable::Off => "false",
        }
    }
}

impl Router {
    /// Whether an interface is named as one of a LAN; none where nothing is said of LANs.
    pub fn names_lan(&self, interface: &IfName) -> Option<bool> {
        (!self.lan.is_empty()).then(|| self.lan.iter().any(|pattern| pattern.matches(interface)))
    }

    /// The names for interfaces of LANs that fit none of these.
    pub fn lans_away<'a>(&'a self, present: &'a [IfName]) -> impl Iterator<Item = &'a str> {
        let is_away = |pattern: &&Pattern| !present.iter().any(|name| pattern.matches(name));
        self.lan.iter().filter(is_away).map(Pattern::as_str)
    }
}

/// The keys of `[router]`.
pub(super) static ROUTER: [Key<Config>; 3] = [
    Key {
        name: "enable",
        allowed: "true, false or \"auto\"",
        help: "whether the machine forwards for others; auto leaves that to whoever set it up",
        kind: Kind::Mixed,
        put: |config, value| {
            config.router.enable = match value {
                Value::Flag(true) => Enable::On,
                Value::Flag(false) => Enable::Off,
                Value::Text(text) if text == "auto" => Enable::Auto,
                _ => return None,
            };
            Some(())
        },
    },
    Key {
        name: "lan",
        allowed: "an interface name, with * and ? for what may vary, or a list of them; or auto",
        help: "the interfaces behind which hosts are; all that have an address and are no uplink unless told otherwise",
        kind: Kind::Texts,
        put: |config, value| {
            let text = value.text()?;
            let patterns = text.split(';').map(|text| Pattern::new(text.trim()));
            let patterns = if text == "auto" { Some(Vec::new()) } else { patterns.collect() };
            patterns.map(|patterns| config.router.lan = patterns)
        },
    },
    Key {
        name: "masquerade",
        allowed: "true or false",
        help: "whether private IPv4 sources get the address of the uplink; with one uplink only where this is said",
        kind: Kind::Flag,
        put: |config, value| value.flag().map(|flag| config.router.masquerade = Some(flag)),
    },
];
