//! Who gives flows to uplinks: the default route, and each policy.

use crate::core::balance::Pick;
use crate::core::net::PerFamily;
use crate::core::uplink::Failback;

/// Whose flows are meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Customer {
    /// Everybody's.
    All,
    /// Those of the default route, which no policy is for.
    Usual,
    /// Those of the policy of this name.
    Policy(String),
}

/// Who is given what, at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// Who.
    pub customer: Customer,
    /// Which uplinks carry what is new of it; none where nothing is carried.
    pub picks: PerFamily<Pick>,
    /// What becomes of its running flows on an uplink that lives on while a better one is there; none said: what that
    /// uplink says.
    pub failback: Option<Failback>,
}
