//! Asks a neighbour whether it is there, by the kernel's own ARP or neighbour discovery.
//!
//! An entry with a hardware address is put into the state `PROBE`, from which only an answer leads to `REACHABLE` and
//! only silence to `FAILED` (`neigh_timer_handler`, net/core/neighbour.c); traffic goes on meanwhile. Any other is
//! asked for as if there were a packet for it. What an administrator fixed is left alone.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_proto::sys::{AsyncSocket, AsyncSocketExt, TokioSocket, protocols::NETLINK_ROUTE};
use nix::errno::Errno;

use super::message::address_family;
use super::{Error, Rtnl};
use crate::core::net::{Family, IfIndex};

/// `RTNLGRP_NEIGH` (linux/rtnetlink.h).
const NEIGH: u32 = 3;

/// How a neighbour reacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// It answered just now.
    Confirmed,
    /// It did not answer three requests, a second apart.
    Silence,
    /// Nobody was asked: its hardware address is fixed, or the device has none.
    NotAsked,
}

/// Asks a neighbour and waits for what the kernel finds. Dropping the future closes its sockets. Needs CAP_NET_ADMIN.
pub async fn confirm(index: IfIndex, ip: IpAddr) -> Result<Reply, Error> {
    let neighbour = Neighbour { index, ip };
    // Before anything is asked, so that no answer is missed.
    let news = News::open(neighbour).map_err(Error::Open)?;
    let (connection, handle, _) = rtnetlink::new_connection_with_strict_check().map_err(Error::Open)?;
    let rtnl = Rtnl { handle };
    tokio::select! {
        // Driven here and not by a task of its own, so that it ends with us.
        () = connection => Err(Error::Closed),
        reply = neighbour.confirm(&rtnl, news) => reply,
    }
}

#[derive(Debug, Clone, Copy)]
struct Neighbour {
    index: IfIndex,
    ip: IpAddr,
}

impl Neighbour {
    async fn confirm(self, rtnl: &Rtnl, mut news: News) -> Result<Reply, Error> {
        use NeighbourState::{Failed, Noarp, Permanent, Reachable, Stale};
        if matches!(self.state(rtnl).await?, Some(Permanent | Noarp)) {
            return Ok(Reply::NotAsked);
        }
        let mut everybody = !self.probe(rtnl).await?;
        if everybody {
            self.solicit(rtnl).await?;
        }
        // The answer may be here already; and of a device without hardware addresses no news ever comes.
        let mut state = self.state(rtnl).await?;
        loop {
            match state {
                Some(Reachable) => return Ok(Reply::Confirmed),
                Some(Permanent | Noarp) => return Ok(Reply::NotAsked),
                Some(Failed) if everybody => return Ok(Reply::Silence),
                // The one that had this address does not have it any more; another may.
                Some(Failed) | None => {
                    everybody = true;
                    self.solicit(rtnl).await?;
                }
                // It changed its hardware address, and the kernel put off asking.
                Some(Stale) => {
                    self.probe(rtnl).await?;
                }
                Some(_) => {}
            }
            state = match news.next().await.map_err(Error::Open)? {
                Some(state) => Some(state),
                None => self.state(rtnl).await?,
            };
        }
    }

    /// Has the kernel ask the known hardware address; false where there is none.
    ///
    /// Neither creates nor replaces: with `NLM_F_REPLACE` the kernel would forget that the neighbour is a router.
    async fn probe(self, rtnl: &Rtnl) -> Result<bool, Error> {
        let mut message = self.message();
        message.header.state = NeighbourState::Probe;
        match rtnl.change("probe neighbour", RouteNetlinkMessage::NewNeighbour(message), 0).await {
            Err(error) if refused_with(&error, &[Errno::ENOENT, Errno::EINVAL]) => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Has the kernel ask everybody on the link, as for a packet that waits (`NTF_USE`).
    async fn solicit(self, rtnl: &Rtnl) -> Result<(), Error> {
        let mut message = self.message();
        message.header.flags = NeighbourFlags::Use;
        rtnl.change("solicit neighbour", RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE).await
    }

    /// The state of its entry; none without one.
    async fn state(self, rtnl: &Rtnl) -> Result<Option<NeighbourState>, Error> {
        let request = RouteNetlinkMessage::GetNeighbour(self.message());
        match rtnl.ask("get neighbour", request, 0).await {
            Err(error) if refused_with(&error, &[Errno::ENOENT]) => Ok(None),
            Err(error) => Err(error),
            Ok(answers) => Ok(answers.into_iter().find_map(|answer| self.state_in(answer.payload))),
        }
    }

    fn message(self) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.family = address_family(Family::of(self.ip));
        message.header.ifindex = self.index.0;
        message.attributes.push(NeighbourAttribute::Destination(match self.ip {
            IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
            IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
        }));
        message
    }

    /// The state that a message tells, where it is about this neighbour.
    fn state_in(self, payload: NetlinkPayload<RouteNetlinkMessage>) -> Option<NeighbourState> {
        let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(message)) = payload else {
            return None;
        };
        let ours = message.header.ifindex == self.index.0
            && self.message().attributes.iter().all(|address| message.attributes.contains(address));
        ours.then_some(message.header.state)
    }
}

fn refused_with(error: &Error, codes: &[Errno]) -> bool {
    let Error::Refused(_, error) = error else { return false };
    error.raw_os_error().is_some_and(|code| codes.contains(&Errno::from_raw(code)))
}

/// What the kernel tells of a neighbour by itself.
struct News {
    socket: TokioSocket,
    neighbour: Neighbour,
}

impl News {
    fn open(neighbour: Neighbour) -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind_auto()?;
        socket.socket_mut().add_membership(NEIGH)?;
        Ok(News { socket, neighbour })
    }

    /// The neighbour's next state; none where news was lost.
    async fn next(&mut self) -> io::Result<Option<NeighbourState>> {
        loop {
            // The kernel sends one message a datagram to this group.
            match self.socket.recv_from_full().await {
                Ok((datagram, _)) => {
                    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&datagram).ok();
                    let state = message.and_then(|message| self.neighbour.state_in(message.payload));
                    if state.is_some() {
                        return Ok(state);
                    }
                }
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}
