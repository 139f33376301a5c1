//! The way to the daemon.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use zbus::fdo::DBusProxy;
use zbus::zvariant::{DynamicType, Type};
use zbus::{Connection, Message};

use super::Failure;
use crate::exit;
use crate::service::{BUS_NAME, PATH};
use crate::status::{Status, UplinkStatus};

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
pub(super) fn meant(uplinks: Vec<UplinkStatus>, name: &str) -> Result<UplinkStatus, Failure> {
    let names: Vec<_> = uplinks.iter().map(|uplink| uplink.name.clone()).collect();
    let found = uplinks.into_iter().find(|uplink| uplink.name == name || uplink.interface == name);
    found
        .ok_or_else(|| Failure::new(format!("no uplink is called {name:?}; there are: {}", names.join(", "))))
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
