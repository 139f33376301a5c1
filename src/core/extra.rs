//! A route of the administrator's to what lies behind one uplink, such as the networks of its provider alone.

use std::net::IpAddr;

use ipnet::IpNet;

/// More routes than this an uplink is not given: a list that long is a routing table, and each round reads it.
pub const MOST_ROUTES: usize = 4096;

/// Where to, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ExtraRoute {
    /// The destination; no default.
    pub dest: IpNet,
    /// The next hop on the uplink's link; the uplink's gateway where there is none.
    pub via: Option<IpAddr>,
}
