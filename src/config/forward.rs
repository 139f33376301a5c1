//! Port forwards as they are written: `[[forward]]`.
//!
//! Decides what one has to say, and that no two are in each other's way. Refuses to know which uplinks there are.

use super::Origin;
use super::keys::{Key, Kind, Value};
use crate::core::forward::{PortForward, Ports, Protocol, Target};
use crate::core::net::UplinkName;

/// One `[[forward]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// What goes on to whom.
    pub what: PortForward,
    /// On which uplinks; empty for all.
    pub uplinks: Vec<UplinkName>,
    /// Where it stands.
    pub origin: Origin,
}

impl Forward {
    /// Whether some packet would be for both.
    pub(super) fn overlaps(&self, other: &Forward) -> bool {
        let everywhere = self.uplinks.is_empty() || other.uplinks.is_empty();
        let shared = everywhere || self.uplinks.iter().any(|name| other.uplinks.contains(name));
        shared && self.what.overlaps(&other.what)
    }
}

/// What was read of one.
#[derive(Debug, Default)]
pub(super) struct Draft {
    protocol: Protocol,
    ports: Option<Ports>,
    to: Option<Target>,
    uplinks: Vec<UplinkName>,
}

impl Draft {
    /// The keys that are missing, each with what it allows.
    pub(super) fn missing(&self) -> impl Iterator<Item = &'static Key<Draft>> {
        let lacks = [("port", self.ports.is_none()), ("to", self.to.is_none())];
        FORWARD.iter().filter(move |key| lacks.contains(&(key.name, true)))
    }

    /// What it says, when nothing is missing.
    pub(super) fn what(&self) -> Option<PortForward> {
        Some(PortForward { protocol: self.protocol, ports: self.ports?, to: self.to? })
    }

    /// The forward that stands here.
    pub(super) fn at(self, origin: Origin) -> Option<Forward> {
        Some(Forward { what: self.what()?, uplinks: self.uplinks, origin })
    }
}

/// The keys of `[[forward]]`.
pub(super) static FORWARD: [Key<Draft>; 4] = [
    Key {
        name: "protocol",
        allowed: Protocol::ALLOWED,
        help: "what is sent on; tcp unless told otherwise",
        kind: Kind::Text,
        put: |draft, value| value.text().and_then(Protocol::named).map(|protocol| draft.protocol = protocol),
    },
    Key {
        name: "port",
        allowed: Ports::ALLOWED,
        help: "the ports of this machine",
        kind: Kind::Mixed,
        put: |draft, value| {
            let ports = match value {
                Value::Text(text) => text.parse().ok(),
                value => value.number().and_then(|port| Ports::new(port, port)),
            };
            ports.map(|ports| draft.ports = Some(ports))
        },
    },
    Key {
        name: "to",
        allowed: Target::ALLOWED,
        help: "the host behind this machine, with its ports where they are others",
        kind: Kind::Text,
        put: |draft, value| value.text()?.parse().ok().map(|to| draft.to = Some(to)),
    },
    Key {
        name: "uplinks",
        allowed: "the name of an uplink, or a list of them",
        help: "on which uplinks; on all unless told otherwise",
        kind: Kind::Texts,
        put: |draft, value| value.text().and_then(UplinkName::new).map(|name| draft.uplinks.push(name)),
    },
];
