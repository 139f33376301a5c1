//! NetworkManager: what it says of each interface, as one snapshot; and the one thing that is ever changed there, a
//! profile's own `uplinkd.*` settings.
//!
//! Asks, and hands what it was told to `decode`. Keeps nothing between two snapshots: the whole answer costs less
//! than the care that a cache would need (a profile's version counts from the start of NetworkManager, and 1.42 has none).

mod decode;
mod profile;
mod secrets;
mod settings;

use std::collections::HashMap;

use futures_util::future::try_join_all;
use zbus::Message;
use zbus::names::{BusName, UniqueName};
use zbus::zvariant::ObjectPath;

use super::Presence;
use super::call::{Call, Error, LIMIT, owner, within};
use crate::core::observed::LinkFacts;

pub use settings::{Storage, set_user_data};

/// NetworkManager's well-known name on the system bus.
pub const NAME: &str = "org.freedesktop.NetworkManager";

const PROFILE_INTERFACE: &str = "org.freedesktop.NetworkManager.Settings.Connection";

/// Asks NetworkManager for everything that it knows of every interface that it manages.
///
/// Never starts NetworkManager. `org.freedesktop.DBus.ObjectManager.GetManagedObjects` at `/org/freedesktop`
/// (D-Bus Specification, "Standard Interfaces"), then `org.freedesktop.NetworkManager.Settings.Connection.GetSettings`
/// for each profile in use (NetworkManager D-Bus API reference).
///
/// # Errors
///
/// NetworkManager runs but did not answer within two seconds, or answered in a way that cannot be read; or the
/// connection broke. What it would have said is then unknown, which is not the same as nothing.
pub async fn snapshot(bus: &zbus::Connection) -> Result<Presence<Vec<LinkFacts>>, Error> {
    within(LIMIT, "GetManagedObjects", NAME, async {
        match owner(bus, NAME).await? {
            Presence::Absent => Ok(Presence::Absent),
            Presence::Present(owner) => ask(bus, &owner).await.map(Presence::Present),
        }
    })
    .await
}

async fn ask(bus: &zbus::Connection, owner: &UniqueName<'_>) -> Result<Vec<LinkFacts>, Error> {
    let everything = Call {
        destination: BusName::from(owner.as_ref()),
        path: ObjectPath::from_static_str_unchecked("/org/freedesktop"),
        interface: "org.freedesktop.DBus.ObjectManager",
        method: "GetManagedObjects",
    };
    let reply = everything.send(bus, &()).await?;
    let body = reply.body();
    let objects: decode::Objects<'_> = body.deserialize().map_err(|e| everything.malformed(e))?;
    let profiles = decode::profiles_in_use(&objects);
    let details = try_join_all(profiles.into_iter().map(|path| async move {
        let details = details(bus, owner, &path).await?;
        Ok::<_, Error>((path, details))
    }));
    let details: HashMap<_, _> = details.await?.into_iter().collect();
    Ok(decode::link_facts(&objects, &details))
}

/// What a profile says for us; nothing where it is private to somebody else (`connection.permissions`), or went
/// away since it was listed: neither may keep the other interfaces from being known.
async fn details(
    bus: &zbus::Connection,
    owner: &UniqueName<'_>,
    path: &ObjectPath<'_>,
) -> Result<profile::Details, Error> {
    let call = Call {
        destination: BusName::from(owner.as_ref()),
        path: path.as_ref(),
        interface: PROFILE_INTERFACE,
        method: "GetSettings",
    };
    match call.send(bus, &()).await {
        Ok(reply) => decoded_details(&call, &reply),
        Err(error) if hidden(&error) => Ok(profile::Details::default()),
        Err(error) => Err(error),
    }
}

fn decoded_details(call: &Call<'_>, reply: &Message) -> Result<profile::Details, Error> {
    let body = reply.body();
    let settings: profile::Settings<'_> = body.deserialize().map_err(|error| call.malformed(error))?;
    Ok(profile::details(&settings))
}

fn hidden(error: &Error) -> bool {
    error.dbus_name().is_some_and(|name| {
        name.starts_with("org.freedesktop.NetworkManager.")
            || name == "org.freedesktop.DBus.Error.UnknownMethod"
            || name == "org.freedesktop.DBus.Error.UnknownObject"
    })
}
