//! Takes what runs over an uplink off it, in the one order in which nothing slips through.
//!
//! Decides that order and nothing else. That the uplink is down and another is alive, and that the routes lead out
//! by that one already, is for the caller to know: what is let go here is routed anew at once.

use std::fmt::Display;
use std::net::IpAddr;

use ipnet::IpNet;

use super::conntrack::{self, Labels, Whose};
use super::sockets::Doomed;
use super::{nft, rouse, sockets};
use crate::core::net::Family;
use crate::core::policy::running::Claims;
use crate::core::stream::Stream;

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
    let doomed = doomed(family, &whose, &addresses, spare, problems).await;
    released.ended = noted(problems, sockets::destroy(&doomed).await);
    let streams = noted(problems, conntrack::streams(family, whose.clone()).await);
    released.let_go(streams, conntrack::evict(family, whose)).await;
    released
}

/// Takes what runs where a policy enforces that it does not away from there.
pub async fn claim(family: Family, claims: &Claims) -> Released {
    let mut released = Released::default();
    let streams = noted(&mut released.problems, conntrack::claimed_streams(family, claims).await);
    released.let_go(streams, conntrack::claim(family, claims)).await;
    released
}

impl Released {
    /// Has flows taken out of conntrack, and these connections among them reset.
    async fn let_go<E: Display>(
        &mut self,
        streams: Vec<Stream>,
        evicting: impl Future<Output = Result<usize, E>>,
    ) {
        let problems = &mut self.problems;
        // While they have entries nothing of them is taken for new, so none is missed.
        noted(problems, nft::condemn(&streams).await);
        self.evicted = noted(problems, evicting.await);
        // Last, as the answers must find no entry.
        self.roused = noted(problems, rouse::rouse(&streams).await);
    }
}

/// Which sockets of this machine go with the flows: those with an address of the uplink; but where only some of the flows
/// on it are meant, an address does not tell, as what a policy moves has another uplink's.
async fn doomed(
    family: Family,
    whose: &Whose,
    addresses: &[IpAddr],
    spare: &[IpNet],
    problems: &mut Vec<String>,
) -> Doomed {
    let usual = Doomed::at(addresses, spare);
    match whose {
        Whose::Mark(_, Labels::NoneOf(labels)) => {
            let others = conntrack::ends(family, Whose::Labelled(labels.clone())).await;
            Doomed { but: noted(problems, others), ..usual }
        }
        Whose::Mark(_, Labels::Is(_)) | Whose::Labelled(_) => Doomed {
            these: noted(problems, conntrack::ends(family, whose.clone()).await),
            ..Doomed::default()
        },
        Whose::Mark(_, Labels::Any) | Whose::Address(_) => usual,
    }
}

fn noted<T: Default>(problems: &mut Vec<String>, outcome: Result<T, impl Display>) -> T {
    outcome.unwrap_or_else(|error| {
        problems.push(error.to_string());
        T::default()
    })
}
