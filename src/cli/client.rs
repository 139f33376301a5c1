//! The way to the daemon.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use zbus::fdo::DBusProxy;
use zbus::zvariant::{DynamicType, Type};
use zbus::{Connection, Message};

use super::Failure;
use crate::service::{BUS_NAME, PATH};
use crate::status::{Status, UplinkStatus};
use crate::{config, exit};

/// How long the daemon may take to answer a question.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// How long the routing may take to stand after a change.
pub(super) const WAIT_SECONDS: u32 = 5;

/// A connection to the daemon.
pub(super) struct Client {
    bus: Connection,
    limit: Duration,
}

impl Client {
    /// Finds the daemon; where it does not run, says so.
    pub(super) async fn connect() -> Result<Self, Failure> {
        let gone = |why: &str| {
            let mend = "start it with: systemctl start uplinkd";
            Failure::with(exit::UNAVAILABLE, format!("uplinkd is not running ({why}); {mend}"))
        };
        // It may well run, but can be asked by the bus only.
        let busless = |error| {
            let (why, mend) = (crate::world::chain(&error), "start it with: systemctl start dbus");
            Failure::with(exit::UNAVAILABLE, format!("uplinkd cannot be asked without D-Bus ({why}); {mend}"))
        };
        let bus = crate::sources::bus::connect().await.map_err(busless)?;
        let dbus = DBusProxy::new(&bus).await.map_err(|error| gone(&error.to_string()))?;
        let name = BUS_NAME.try_into().map_err(Failure::new)?;
        match dbus.name_has_owner(name).await {
            Ok(true) => Ok(Client { bus, limit: ANSWER_LIMIT }),
            Ok(false) => Err(gone("nobody owns its name on the system bus")),
            Err(error) => Err(gone(&error.to_string())),
        }
    }

    /// The same with another limit for answers.
    pub(super) fn within(self, limit: Duration) -> Self {
        Client { limit, ..self }
    }

    /// The connection itself.
    pub(super) fn bus(&self) -> &Connection {
        &self.bus
    }

    /// Calls a method that returns nothing.
    pub(super) async fn call<B: Serialize + DynamicType>(
        &self,
        method: &str,
        body: &B,
    ) -> Result<(), Failure> {
        self.send(method, body).await.map(drop)
    }

    /// Calls a method that returns something.
    pub(super) async fn ask<R: DeserializeOwned + Type>(&self, method: &str) -> Result<R, Failure> {
        self.send(method, &()).await?.body().deserialize().map_err(Failure::new)
    }

    /// The status.
    pub(super) async fn status(&self) -> Result<Status, Failure> {
        let answer: String = self.ask("Status").await?;
        serde_json::from_str(&answer).map_err(Failure::new)
    }

    /// The uplink of a name, or of an interface.
    pub(super) async fn uplink(&self, name: &str) -> Result<UplinkStatus, Failure> {
        meant(self.status().await?.uplinks, name)
    }

    async fn send<B: Serialize + DynamicType>(&self, method: &str, body: &B) -> Result<Message, Failure> {
        let call = self.bus.call_method(Some(BUS_NAME), PATH, Some(BUS_NAME), method, body);
        match tokio::time::timeout(self.limit, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(failure(error)),
            Err(_) => Err(Failure::new(format!("uplinkd did not answer {method} within {:?}", self.limit))),
        }
    }
}

/// The uplink of a name, or of an interface, among these.
///
/// What is the name of one and the interface of another is refused: to drain the wrong one may cut a machine off.
pub(super) fn meant(mut uplinks: Vec<UplinkStatus>, name: &str) -> Result<UplinkStatus, Failure> {
    let named = uplinks.iter().position(|uplink| uplink.name == name);
    let on = uplinks.iter().position(|uplink| uplink.interface == name && uplink.name != name);
    let (index, other) = match (named, on) {
        (Some(named), Some(on)) if uplinks[named].interface != name => (named, Some(on)),
        (Some(index), _) | (None, Some(index)) => (index, None),
        (None, None) => {
            let names: Vec<_> = uplinks.iter().map(|uplink| uplink.name.as_str()).collect();
            let why = format!("no uplink is called {name:?}; there are: {}", names.join(", "));
            return Err(Failure::new(why));
        }
    };
    match other {
        None => Ok(uplinks.swap_remove(index)),
        Some(other) => Err(ambiguous(&uplinks[index], &uplinks[other])),
    }
}

fn ambiguous(named: &UplinkStatus, on: &UplinkStatus) -> Failure {
    let (name, interface, other) = (&named.name, &named.interface, &on.name);
    Failure::new(format!(
        "{name:?} is ambiguous: it is the name of the uplink on {interface} and the interface of {other}; say \
         {interface} or {other}, or give one of them another name in {}",
        config::MAIN_FILE
    ))
}

/// What the daemon said, without the name of the D-Bus error in front.
fn failure(error: zbus::Error) -> Failure {
    let zbus::Error::MethodError(name, text, _) = &error else { return Failure::new(error) };
    let code = match name.as_str() {
        "org.freedesktop.DBus.Error.AccessDenied" => exit::PERMISSION,
        "org.freedesktop.DBus.Error.ServiceUnknown" => exit::UNAVAILABLE,
        "org.freedesktop.DBus.Error.InvalidFileContent" => exit::CONFIG,
        _ => exit::FAILURE,
    };
    Failure::with(code, text.as_deref().unwrap_or(name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::status::tests::uplink;

    #[test]
    fn an_uplink_is_found_by_its_name_and_by_its_interface() {
        let found = |name: &str| meant(vec![uplink("dsl", 1, 1), uplink("eth2", 2, 1)], name).map(|u| u.slot);
        for (name, slot) in [("dsl", 1), ("eth1", 1), ("eth2", 2)] {
            assert_eq!(found(name).ok(), Some(slot), "{name}");
        }
        assert_eq!(found("lte").unwrap_err().text, "no uplink is called \"lte\"; there are: dsl, eth2");
    }

    #[test]
    fn a_name_that_is_the_interface_of_another_is_refused_in_either_order() {
        let (named, on) = (uplink("eth2", 1, 1), uplink("cable", 2, 1));
        for uplinks in [vec![named.clone(), on.clone()], vec![on, named]] {
            assert_eq!(
                meant(uplinks.clone(), "eth2").unwrap_err().text,
                "\"eth2\" is ambiguous: it is the name of the uplink on eth1 and the interface of cable; say eth1 or \
                 cable, or give one of them another name in /etc/uplinkd/uplinkd.toml"
            );
            for (name, slot) in [("eth1", 1), ("cable", 2)] {
                assert_eq!(meant(uplinks.clone(), name).map(|u| u.slot).ok(), Some(slot), "{name}");
            }
        }
    }
}
