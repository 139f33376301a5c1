//! Takes what runs over an uplink off it, in the one order in which nothing slips through.
//!
//! Decides that order and nothing else. That the uplink is down and another is alive, and that the routes lead out
//! by that one already, is for the caller to know: what is let go here is routed anew at once.

use std::fmt::Display;
use std::net::IpAddr;

use ipnet::IpNet;

use super::conntrack::{self, Whose};
use super::{nft, rouse, sockets};
use crate::core::net::Family;
use crate::core::policy::running::Claims;

/// What was taken off an uplink.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Released {
    /// Connections of this machine that were ended.
    pub ended: usize,
    /// Entries that were deleted from conntrack.
    pub evicted: usize,
    /// Connections of machines behind this one that were roused, to be reset.
    pub roused: usize,
    /// What could not be done; the rest was.
    pub problems: Vec<String>,
}

/// Ends or moves all flows of one family that are `whose`, and the connections of this machine from `addresses`.
///
/// Addresses of the other family are left out; `spare` are the networks on the machine's links, which may live on
/// (the page of a modem). A step that fails does not stop the rest. Needs CAP_NET_ADMIN and CAP_NET_RAW.
pub async fn release(
    family: Family,
    whose: impl Into<Whose>,
    addresses: &[IpAddr],
    spare: &[IpNet],
) -> Released {
    let whose = whose.into();
    let mut released = Released::default();
    let addresses: Vec<_> = addresses.iter().copied().filter(|a| Family::of(*a) == family).collect();
    let problems = &mut released.problems;
    // First those that could send of themselves, and so make entries anew.
    released.ended = noted(problems, sockets::destroy(&addresses, spare).await);
    let streams = noted(problems, conntrack::streams(family, whose).await);
    // While they have entries nothing of them is taken for new, so none is missed.
    noted(problems, nft::condemn(&streams).await);
    released.evicted = noted(problems, conntrack::evict(family, whose).await);
    // Last, as the answers must find no entry.
    released.roused = noted(problems, rouse::rouse(&streams).await);
    released
}

/// Takes what runs where a policy enforces that it does not away from there.
pub async fn claim(family: Family, claims: &Claims) -> Released {
    let mut released = Released::default();
    let problems = &mut released.problems;
    let streams = noted(problems, conntrack::claimed_streams(family, claims).await);
    noted(problems, nft::condemn(&streams).await);
    released.evicted = noted(problems, conntrack::claim(family, claims).await);
    released.roused = noted(problems, rouse::rouse(&streams).await);
    released
}

fn noted<T: Default>(problems: &mut Vec<String>, outcome: Result<T, impl Display>) -> T {
    outcome.unwrap_or_else(|error| {
        problems.push(error.to_string());
        T::default()
    })
}
