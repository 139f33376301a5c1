//! The kernel's routing, over rtnetlink: one socket for requests, another for events.
//!
//! Decides nothing. The two sockets are apart because under a flood of events the kernel drops the answers that
//! share their buffer, and a request would never end; for the same reason every request has a time limit, and a
//! dump that was interrupted is taken again.

mod events;
mod message;
pub mod neighbour;
mod view;

use std::io;
use std::time::Duration;

use futures_util::StreamExt;
use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REPLACE,
    NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol};
use nix::libc::{EEXIST, ENOENT, ESRCH};
use rtnetlink::Handle;

pub use events::Events;
pub use view::View;

use message::RouteFields;

use crate::core::net::OWNER;
use crate::core::route::Route;
use crate::core::rule::Rule;

const TIME_LIMIT: Duration = Duration::from_secs(2);
/// How often an interrupted dump is taken again before the round is given up.
const DUMP_TRIES: usize = 8;

/// What can go wrong in a request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket could not be opened.
    #[error("open an rtnetlink socket")]
    Open(#[source] io::Error),
    /// The kernel said no.
    #[error("{0}")]
    Refused(String, #[source] io::Error),
    /// No answer in time.
    #[error("{0}: the kernel did not answer within {TIME_LIMIT:?}")]
    Silent(&'static str),
    /// The connection task has ended.
    #[error("the rtnetlink connection is closed")]
    Closed,
    /// The tables kept changing under the dump.
    #[error("{0}: interrupted {DUMP_TRIES} times in a row")]
    Interrupted(&'static str),
}

/// The socket for requests.
#[derive(Debug, Clone)]
pub struct Rtnl {
    handle: Handle,
}

impl Rtnl {
    /// Opens the socket; its task runs on the current tokio runtime until the last clone is dropped.
    pub fn open() -> Result<Self, Error> {
        let (connection, handle, _) = rtnetlink::new_connection_with_strict_check().map_err(Error::Open)?;
        tokio::spawn(connection);
        Ok(Rtnl { handle })
    }

    /// Adds a route, or replaces the one with its key in one step, where that is ours.
    ///
    /// Not with `NLM_F_REPLACE` from the first: a manager that sets a link up again while we decide may have put a
    /// route with that key since we looked, and would never put the one that we took away back.
    pub async fn put_route(&self, route: &Route) -> Result<(), Error> {
        let message = RouteNetlinkMessage::NewRoute(message::route(route));
        let added = self.change("put route", message.clone(), NLM_F_CREATE | NLM_F_EXCL).await;
        let is_taken = matches!(&added, Err(Error::Refused(_, why)) if why.raw_os_error() == Some(EEXIST));
        if !is_taken || !self.has_ours(route).await? {
            return added;
        }
        self.change("put route", message, NLM_F_CREATE | NLM_F_REPLACE).await
    }

    /// Whether a route of ours has the key of this one.
    async fn has_ours(&self, route: &Route) -> Result<bool, Error> {
        let mut request = RouteMessage::default();
        request.header.address_family = message::address_family(route.family());
        request.header.protocol = RouteProtocol::from(OWNER);
        request.attributes.push(RouteAttribute::Table(route.key.table.0));
        let found = self.dump("dump our routes", RouteNetlinkMessage::GetRoute(request)).await?;
        Ok(found.iter().any(|message| match message {
            RouteNetlinkMessage::NewRoute(found) => RouteFields::of(route.family(), found)
                .is_some_and(|fields| fields.protocol == OWNER && fields.key == route.key),
            _ => false,
        }))
    }

    /// Deletes a route; one that has gone already is as good.
    pub async fn del_route(&self, route: &Route) -> Result<(), Error> {
        let message = RouteNetlinkMessage::DelRoute(message::route_key(route));
        unless(&[ESRCH, ENOENT], self.change("delete route", message, 0).await)
    }

    /// Adds a rule; one that is there already is as good.
    ///
    /// Always exclusive: with `NLM_F_REPLACE` the kernel adds a second copy.
    pub async fn add_rule(&self, rule: &Rule) -> Result<(), Error> {
        let message = RouteNetlinkMessage::NewRule(message::rule(rule));
        unless(&[EEXIST], self.change("add rule", message, NLM_F_CREATE | NLM_F_EXCL).await)
    }

    /// Deletes one copy of a rule; one that has gone already is as good.
    pub async fn del_rule(&self, rule: &Rule) -> Result<(), Error> {
        let message = RouteNetlinkMessage::DelRule(message::rule(rule));
        unless(&[ENOENT, ESRCH], self.change("delete rule", message, 0).await)
    }

    async fn change(
        &self,
        what: &'static str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), Error> {
        self.ask(what, message, NLM_F_ACK | flags).await.map(drop)
    }

    /// Takes a whole dump.
    async fn dump(
        &self,
        what: &'static str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        for _ in 0..DUMP_TRIES {
            let answers = self.ask(what, message.clone(), NLM_F_DUMP).await?;
            if answers.iter().all(|a| a.header.flags & NLM_F_DUMP_INTR == 0) {
                let inner = |answer: NetlinkMessage<_>| match answer.payload {
                    NetlinkPayload::InnerMessage(message) => Some(message),
                    _ => None,
                };
                return Ok(answers.into_iter().filter_map(inner).collect());
            }
        }
        Err(Error::Interrupted(what))
    }

    async fn ask(
        &self,
        what: &'static str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<NetlinkMessage<RouteNetlinkMessage>>, Error> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        let mut stream = self.handle.clone().request(request).map_err(|_| Error::Closed)?;
        let answers = async {
            let mut answers = Vec::new();
            while let Some(answer) = stream.next().await {
                match answer.payload {
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(refusal(what, &error));
                    }
                    _ => answers.push(answer),
                }
            }
            Ok(answers)
        };
        tokio::time::timeout(TIME_LIMIT, answers).await.map_err(|_| Error::Silent(what))?
    }
}

fn refusal(what: &str, error: &ErrorMessage) -> Error {
    Error::Refused(what.to_owned(), error.to_io())
}

/// Takes these errors of the kernel for success.
fn unless(fine: &[i32], outcome: Result<(), Error>) -> Result<(), Error> {
    match outcome {
        Err(Error::Refused(_, error)) if error.raw_os_error().is_some_and(|code| fine.contains(&code)) => {
            Ok(())
        }
        other => other,
    }
}
