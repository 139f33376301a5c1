//! The kernel's events, boiled down to "look again".

use std::net::IpAddr;
use std::sync::Mutex;

use futures_util::{Stream, StreamExt};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use netlink_proto::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use rtnetlink::MulticastGroup;

use super::Error;
use crate::core::layout::{BALANCED_TABLE, Slot};
use crate::core::net::{OWNER, TableId};

/// Bytes of buffer for events; the kernel caps it at net.core.rmem_max.
const BUFFER: usize = 1 << 20;

/// `RTNLGRP_IPV4_NETCONF` and `RTNLGRP_IPV6_NETCONF` (linux/rtnetlink.h): forwarding switched on or off.
const NETCONF: [u32; 2] = [24, 25];

/// The sockets for events.
pub struct Events {
    /// A socket of its own, because netlink-packet-route drops the messages of these groups.
    netconf: TokioSocket,
    messages: Box<dyn Stream<Item = (NetlinkMessage<RouteNetlinkMessage>, SocketAddr)> + Send + Unpin>,
}

impl Events {
    /// Subscribes to links, addresses, routes, rules and neighbours of both families, and to the forwarding switch.
    pub fn open() -> Result<Self, Error> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv4Rule,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Ipv6Rule,
        ];
        let (mut connection, _, messages) =
            rtnetlink::new_multicast_connection(&groups).map_err(Error::Open)?;
        let socket = connection.socket_mut().socket_mut();
        socket.set_rx_buf_sz(BUFFER).map_err(Error::Open)?;
        tokio::spawn(connection);
        let mut netconf = TokioSocket::new(NETLINK_ROUTE).map_err(Error::Open)?;
        netconf.socket_mut().bind_auto().map_err(Error::Open)?;
        for group in NETCONF {
            netconf.socket_mut().add_membership(group).map_err(Error::Open)?;
        }
        Ok(Events { netconf, messages: Box::new(messages) })
    }

    /// Waits until something happened that can matter. `gateways` are those whose neighbours matter just
    /// then: the list may change meanwhile.
    pub async fn next(&mut self, gateways: &Mutex<Vec<IpAddr>>) -> Result<&'static str, Error> {
        loop {
            let (message, _) = tokio::select! {
                message = self.messages.next() => message.ok_or(Error::Closed)?,
                // What it says, or that some was lost, does not matter: the next look tells.
                _ = self.netconf.recv_from_full() => return Ok("forwarding"),
            };
            let reason = match gateways.lock() {
                Ok(gateways) => reason(&message.payload, &gateways),
                Err(_) => reason(&message.payload, &[]),
            };
            if let Some(reason) = reason {
                return Ok(reason);
            }
        }
    }
}

/// Why an event matters; none when it cannot.
fn reason(payload: &NetlinkPayload<RouteNetlinkMessage>, gateways: &[IpAddr]) -> Option<&'static str> {
    use RouteNetlinkMessage as Message;
    match payload {
        NetlinkPayload::Overrun(_) => Some("events were lost"),
        NetlinkPayload::InnerMessage(message) => match message {
            Message::NewLink(_) | Message::DelLink(_) => Some("link"),
            Message::NewAddress(_) | Message::DelAddress(_) => Some("address"),
            Message::NewRule(_) | Message::DelRule(_) => Some("rule"),
            Message::NewRoute(route) | Message::DelRoute(route) => matters(route).then_some("route"),
            Message::NewNeighbour(neighbour) => met_gateway(neighbour, gateways).then_some("gateway met"),
            _ => None,
        },
        _ => None,
    }
}

/// A router with a full BGP table changes routes all day; only defaults and what is ours matter.
fn matters(route: &RouteMessage) -> bool {
    let table = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(TableId(*table)),
        _ => None,
    });
    let ours = table.is_some_and(|table| table == BALANCED_TABLE || Slot::of_table(table).is_some());
    ours || u8::from(route.header.protocol) == OWNER || route.header.destination_prefix_length <= 1
}

fn met_gateway(neighbour: &NeighbourMessage, gateways: &[IpAddr]) -> bool {
    let known = matches!(neighbour.header.state, NeighbourState::Reachable | NeighbourState::Permanent);
    known
        && neighbour.attributes.iter().any(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
                gateways.contains(&IpAddr::V4(*ip))
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => {
                gateways.contains(&IpAddr::V6(*ip))
            }
            _ => false,
        })
}
