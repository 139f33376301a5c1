//! `[balance]`: how new flows are shared out that no policy is for.
//!
//! Refuses to know who can carry what.

use std::fmt;

use super::keys::{Key, Kind};
use super::policy::{IDLE, SAME, idle, same};
use super::{Config, Origin};
use crate::core::balance::Method;
use crate::core::net::UplinkName;
use crate::core::policy::{OnFailure, Policy, Stick, Traffic, Way};

/// What is said of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Balance {
    /// How an uplink is chosen.
    pub way: Way,
    /// With [`Way::Enforced`]: which.
    pub uplink: Option<UplinkName>,
    /// With [`Way::Persistence`]: what stays together.
    pub stick: Stick,
}

/// The keys of `[balance]`.
pub(super) static BALANCE: [Key<Config>; 4] = [
    Key {
        name: "method",
        allowed: Way::ALLOWED,
        help: "how new flows are shared out among the usable uplinks",
        kind: Kind::Text,
        put: |config, value| value.text().and_then(Way::named).map(|way| config.balance.way = way),
    },
    Key {
        name: "uplink",
        allowed: UplinkName::ALLOWED,
        help: "with method = \"enforced\": the uplink that carries all",
        kind: Kind::Text,
        put: |config, value| {
            value.text().and_then(UplinkName::new).map(|name| config.balance.uplink = Some(name))
        },
    },
    Key {
        name: "same",
        allowed: SAME,
        help: "with method = \"persistence\": what stays on one uplink",
        kind: Kind::Text,
        put: |config, value| same(value).map(|same| config.balance.stick.to = same),
    },
    Key {
        name: "idle",
        allowed: IDLE,
        help: "with method = \"persistence\": so long after its last new connection a client is forgotten",
        kind: Kind::Text,
        put: |config, value| idle(value).map(|time| config.balance.stick.idle = time),
    },
];

impl Balance {
    /// What the policy for all is called: no policy of the administrator's can be.
    pub const NAME: &str = "[balance]";

    /// How the default route is balanced. Where that cannot do what is asked, a [policy](Self::policy) does it, and what that
    /// leaves alone goes by weight.
    pub fn method(&self) -> Method {
        self.way.method()
    }

    /// The policy that stands behind all others and is for all, where a route alone cannot do what is asked; an error where
    /// it lacks something.
    pub(super) fn policy(&self, origin: &Origin) -> Result<Option<Policy>, &'static str> {
        let way = match self.way {
            Way::By(_) => return Ok(None),
            Way::Enforced if self.uplink.is_none() => {
                return Err("method: enforced needs the key uplink beside it");
            }
            Way::Persistence(_) => Way::Persistence(self.stick),
            Way::Enforced | Way::Fastest => self.way,
        };
        let only = self.uplink.clone().filter(|_| way == Way::Enforced);
        Ok(Some(Policy {
            name: Balance::NAME.to_owned(),
            origin: origin.to_string(),
            traffic: Traffic::default(),
            way,
            on_failure: if only.is_some() { OnFailure::Block } else { OnFailure::Default },
            uplinks: only.into_iter().collect(),
            failback: None,
            notes: Vec::new(),
        }))
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.way.fmt(f)
    }
}
