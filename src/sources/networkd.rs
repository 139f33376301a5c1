//! systemd-networkd: what it says of each interface, as one snapshot, and what the files say that it has for it.
//!
//! Asks, and hands what it was told to `decode`. Two things networkd does not tell are read from files, by `files`: the
//! settings for us beside the link's own, and the router of a lease that it was told not to use. Nothing is ever changed
//! there, and nothing is kept between two snapshots.

mod decode;
mod files;
mod network;

use serde_json::Value as Json;
use zbus::names::{BusName, UniqueName};
use zbus::zvariant::ObjectPath;

use super::Presence;
use super::call::{Call, Error, LIMIT, owner, within};
use crate::core::observed::LinkFacts;

/// systemd-networkd's well-known name on the system bus.
pub const NAME: &str = "org.freedesktop.network1";

/// Asks systemd-networkd for everything that it knows of every interface that it manages.
///
/// Never starts networkd. `org.freedesktop.network1.Manager.Describe` (org.freedesktop.network1(5)), whose JSON is
/// described nowhere; it was read from systemd 252 and 257.
///
/// # Errors
///
/// networkd runs but did not answer within two seconds, or answered in a way that cannot be read; or the connection
/// broke. What it would have said is then unknown, which is not the same as nothing.
pub async fn snapshot(bus: &zbus::Connection) -> Result<Presence<Vec<LinkFacts>>, Error> {
    within(LIMIT, "Describe", NAME, async {
        match owner(bus, NAME).await? {
            Presence::Absent => Ok(Presence::Absent),
            Presence::Present(owner) => ask(bus, &owner).await.map(Presence::Present),
        }
    })
    .await
}

async fn ask(bus: &zbus::Connection, owner: &UniqueName<'_>) -> Result<Vec<LinkFacts>, Error> {
    let call = Call {
        destination: BusName::from(owner.as_ref()),
        path: ObjectPath::from_static_str_unchecked("/org/freedesktop/network1"),
        interface: "org.freedesktop.network1.Manager",
        method: "Describe",
    };
    let reply = call.send(bus, &()).await?;
    let body = reply.body();
    let text: &str = body.deserialize().map_err(|error| call.malformed(error))?;
    let unexpected = |why: String| call.malformed(zbus::zvariant::Error::Message(why).into());
    let document: Json = serde_json::from_str(text).map_err(|error| unexpected(error.to_string()))?;
    let links = decode::links(&document).ok_or_else(|| unexpected("no list of interfaces".to_owned()))?;
    Ok(links.into_iter().map(completed).collect())
}

/// Adds what only files tell.
fn completed(link: decode::Described) -> LinkFacts {
    let found = link.file.as_deref().map(files::configuration).unwrap_or_default();
    let lease = files::lease(link.index);
    link.with(&network::Network::of(&found.texts), found.problems, lease.as_deref())
}
