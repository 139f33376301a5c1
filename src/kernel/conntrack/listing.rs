//! Flows as the kernel lists them, one by one: of a large table no more than one datagram is ever held.
//!
//! What is looked for in a flow, and what is done to it, this refuses to know.

use netlink_packet_core::DefaultNla;
use netlink_packet_netfilter::NetfilterMessage;
use netlink_sys::constants::NETLINK_NETFILTER;
use nix::errno::Errno;

use super::attributes::IPCTNL_MSG_CT_GET;
use super::message;
use crate::core::net::Family;
use crate::kernel::nfnl::Error;
use crate::kernel::request::RequestSocket;

/// What an error of a listing is about.
pub(super) const LISTING: &str = "list the flows of conntrack";

/// What is found in the flows of a family that the kernel chooses by these attributes, at most so many.
pub(super) async fn found<T>(
    family: Family,
    chosen: Vec<DefaultNla>,
    most: usize,
    find: impl Fn(&[u8]) -> Option<T>,
) -> Result<Vec<T>, Error> {
    let mut flows = listed(family, chosen).await?;
    let (mut found, mut more) = (Vec::new(), true);
    while more && found.len() < most {
        let each = |_, body: &[u8]| found.extend(find(body));
        more = flows.next_of_dump(each).await.map_err(Error::of(LISTING))?;
    }
    found.truncate(most);
    Ok(found)
}

/// Makes the change that follows from each of these flows, and returns how many were made. `what` is what an error of a
/// change is about.
///
/// They are made as the flows are listed. The kernel begins a bucket anew when the entry at which it paused has gone
/// (`ctnetlink_dump_table`), so none is skipped.
pub(super) async fn changed(
    family: Family,
    chosen: Vec<DefaultNla>,
    what: &'static str,
    change: impl Fn(&[u8]) -> Option<NetfilterMessage>,
) -> Result<usize, Error> {
    let mut flows = listed(family, chosen).await?;
    let mut orders = RequestSocket::open(NETLINK_NETFILTER).map_err(Error::of(what))?;
    let (mut made, mut more) = (0, true);
    while more {
        let mut changes = Vec::new();
        let each = |_, body: &[u8]| changes.extend(change(body));
        more = flows.next_of_dump(each).await.map_err(Error::of(LISTING))?;
        // A flow may end by itself meanwhile.
        made += orders.change(changes, Errno::ENOENT).await.map_err(Error::of(what))?;
    }
    Ok(made)
}

async fn listed(family: Family, chosen: Vec<DefaultNla>) -> Result<RequestSocket, Error> {
    let mut socket = RequestSocket::open(NETLINK_NETFILTER).map_err(Error::of(LISTING))?;
    socket.start_dump(message(family, IPCTNL_MSG_CT_GET, chosen)).await.map_err(Error::of(LISTING))?;
    Ok(socket)
}
