//! systemd-resolved: whether it asks the resolvers of a link for whatever no other link claims, and the switch for that.
//!
//! systemd calls it a link's `DefaultRoute` (org.freedesktop.resolve1(5), resolvectl(1)). Nothing announces that it has
//! changed. Knows nothing of uplinks, and starts nobody.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;
use zbus::names::{BusName, OwnedUniqueName, UniqueName};
use zbus::zvariant::{ObjectPath, OwnedObjectPath, Value};

use super::Presence;
use super::call::{Call, Error, LIMIT, owner, within};
use crate::core::net::{Device, IfIndex};

/// systemd-resolved's well-known name on the system bus.
pub const NAME: &str = "org.freedesktop.resolve1";

/// The manager of a link that resolved leaves to it (`LinkBusy`): systemd-networkd.
const NETWORKD: &str = "org.freedesktop.network1";

/// Who resolved is now; another after a restart.
///
/// # Errors
///
/// The connection to the bus broke.
pub async fn instance(bus: &zbus::Connection) -> Result<Presence<OwnedUniqueName>, Error> {
    owner(bus, NAME).await
}

/// Asks it about these links. One that it does not know is left out.
///
/// # Errors
///
/// It did not answer within two seconds, or not as documented.
pub async fn asked(
    bus: &zbus::Connection,
    instance: &UniqueName<'_>,
    links: &[Device],
) -> Result<BTreeMap<Device, bool>, Error> {
    within(LIMIT, "DefaultRoute", NAME, async {
        let each = links.iter().map(|dev| async move {
            let asked = asked_of(bus, instance, dev.index).await?;
            Ok::<_, Error>(asked.map(|asked| (dev.clone(), asked)))
        });
        Ok(try_join_all(each).await?.into_iter().flatten().collect())
    })
    .await
}

async fn asked_of(
    bus: &zbus::Connection,
    owner: &UniqueName<'_>,
    link: IfIndex,
) -> Result<Option<bool>, Error> {
    let Ok(index) = i32::try_from(link.0) else { return Ok(None) };
    let find = manager(
        owner.as_ref().into(),
        "/org/freedesktop/resolve1",
        "org.freedesktop.resolve1.Manager",
        "GetLink",
    );
    let reply = match find.send(bus, &(index,)).await {
        Ok(reply) => reply,
        Err(error) if error.dbus_name() == Some("org.freedesktop.resolve1.NoSuchLink") => return Ok(None),
        Err(error) => return Err(error),
    };
    let path: OwnedObjectPath = reply.body().deserialize().map_err(|error| find.malformed(error))?;
    let get = Call {
        destination: BusName::from(owner.as_ref()),
        path: path.as_ref(),
        interface: "org.freedesktop.DBus.Properties",
        method: "Get",
    };
    let reply = match get.send(bus, &("org.freedesktop.resolve1.Link", "DefaultRoute")).await {
        Ok(reply) => reply,
        // It went away between the two questions.
        Err(error) if error.dbus_name() == Some("org.freedesktop.DBus.Error.UnknownObject") => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let body = reply.body();
    let value: Value<'_> = body.deserialize().map_err(|error| get.malformed(error))?;
    bool::try_from(value).map(Some).map_err(|error| get.malformed(error.into()))
}

/// Has resolved ask a link's resolvers for whatever no other link claims, or not.
///
/// A link that networkd manages is networkd's to tell resolved of; it has a method of the same name
/// (org.freedesktop.network1(5)).
///
/// # Errors
///
/// It does not run, does not answer within two seconds, or refuses; as polkit has it do where the rule that comes with
/// uplinkd is missing.
pub async fn ask(bus: &zbus::Connection, link: IfIndex, asked: bool) -> Result<(), Error> {
    match set(bus, NAME, "/org/freedesktop/resolve1", "org.freedesktop.resolve1.Manager", link, asked).await {
        Err(error) if error.dbus_name() == Some("org.freedesktop.resolve1.LinkBusy") => {
            set(bus, NETWORKD, "/org/freedesktop/network1", "org.freedesktop.network1.Manager", link, asked)
                .await
        }
        outcome => outcome,
    }
}

async fn set(
    bus: &zbus::Connection,
    name: &'static str,
    path: &'static str,
    interface: &'static str,
    link: IfIndex,
    asked: bool,
) -> Result<(), Error> {
    // The kernel's own are of this type (`ifi_index`, linux/rtnetlink.h), so that none is lost.
    let index = i32::try_from(link.0).unwrap_or_default();
    within(LIMIT, "SetLinkDefaultRoute", name, async {
        let Presence::Present(owner) = owner(bus, name).await? else { return Err(Error::NotRunning(name)) };
        let call = manager(owner.into(), path, interface, "SetLinkDefaultRoute");
        call.send(bus, &(index, asked)).await.map(drop)
    })
    .await
}

fn manager<'a>(
    destination: BusName<'a>,
    path: &'static str,
    interface: &'static str,
    method: &'static str,
) -> Call<'a> {
    Call { destination, path: ObjectPath::from_static_str_unchecked(path), interface, method }
}
