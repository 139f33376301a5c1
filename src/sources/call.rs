//! One method call on the bus: a time limit for all, and errors that name the operation and the object.
//!
//! Knows nothing of any service.

use std::time::Duration;

use serde::Serialize;
use zbus::Message;
use zbus::names::{BusName, OwnedUniqueName};
use zbus::zvariant::{DynamicType, ObjectPath};

use super::Presence;

/// How long a manager may take for a whole snapshot.
pub(super) const LIMIT: Duration = Duration::from_secs(2);

/// Why something on the bus could not be learnt or done.
///
/// The cause stands in `source()`; print the chain.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There was no answer in time.
    #[error("{operation} on {object}: no answer within {} s", limit.as_secs())]
    NoAnswer {
        /// The method.
        operation: &'static str,
        /// The object or name that it was called on.
        object: String,
        /// How long it was waited.
        limit: Duration,
    },
    /// The bus or the other side answered with an error, or the connection broke.
    #[error("{operation} on {object}")]
    Failed {
        /// The method.
        operation: &'static str,
        /// The object or name that it was called on.
        object: String,
        /// What was answered.
        source: zbus::Error,
    },
    /// The answer is not of the type that the interface documents.
    #[error("{operation} on {object}: unexpected answer")]
    Malformed {
        /// The method.
        operation: &'static str,
        /// The object or name that it was called on.
        object: String,
        /// Where it differs.
        source: zbus::zvariant::Error,
    },
    /// The change was written by somebody else each time that we tried.
    #[error("{operation} on {object}: changed by others {attempts} times meanwhile")]
    Contended {
        /// The method.
        operation: &'static str,
        /// The object that it was called on.
        object: String,
        /// How often it was tried.
        attempts: usize,
    },
    /// A service that was to be changed does not run.
    #[error("{0} does not run")]
    NotRunning(&'static str),
}

impl Error {
    /// The name of the D-Bus error that was answered, where one was.
    pub fn dbus_name(&self) -> Option<&str> {
        match self {
            Error::Failed { source: zbus::Error::MethodError(name, ..), .. } => Some(name.as_str()),
            _ => None,
        }
    }
}

/// A method of an object, without its arguments.
pub(super) struct Call<'a> {
    /// Whom to ask. A unique name is never activated by the bus, and never answers for a successor.
    pub(super) destination: BusName<'a>,
    pub(super) path: ObjectPath<'a>,
    pub(super) interface: &'static str,
    pub(super) method: &'static str,
}

impl Call<'_> {
    /// Calls it and returns the reply.
    pub(super) async fn send<B>(&self, bus: &zbus::Connection, arguments: &B) -> Result<Message, Error>
    where
        B: Serialize + DynamicType,
    {
        bus.call_method(Some(&self.destination), &self.path, Some(self.interface), self.method, arguments)
            .await
            .map_err(|source| self.failed(source))
    }

    /// The error of this call for an answer that is one.
    pub(super) fn failed(&self, source: zbus::Error) -> Error {
        Error::Failed { operation: self.method, object: self.path.to_string(), source }
    }

    /// The error of this call for an answer that cannot be decoded.
    pub(super) fn malformed(&self, source: zbus::Error) -> Error {
        match source {
            zbus::Error::Variant(source) => {
                Error::Malformed { operation: self.method, object: self.path.to_string(), source }
            }
            other => self.failed(other),
        }
    }
}

/// Asks the bus itself; every method that we use takes one text.
///
/// D-Bus Specification, "Message Bus Messages".
pub(super) async fn ask_bus(
    bus: &zbus::Connection,
    method: &'static str,
    about: &str,
) -> Result<Message, Error> {
    let (name, path) = ("org.freedesktop.DBus", "/org/freedesktop/DBus");
    let reply = bus.call_method(Some(name), path, Some(name), method, &about).await;
    reply.map_err(|source| Error::Failed { operation: method, object: about.to_owned(), source })
}

/// Who owns a well-known name, without starting anybody.
///
/// A call to the name itself would make the bus activate an absent service; a call to the owner's unique name cannot.
pub(super) async fn owner(
    bus: &zbus::Connection,
    name: &'static str,
) -> Result<Presence<OwnedUniqueName>, Error> {
    match ask_bus(bus, "GetNameOwner", name).await {
        Ok(reply) => reply.body().deserialize().map(Presence::Present).map_err(|source| Error::Failed {
            operation: "GetNameOwner",
            object: name.to_owned(),
            source,
        }),
        Err(error) if error.dbus_name() == Some("org.freedesktop.DBus.Error.NameHasNoOwner") => {
            Ok(Presence::Absent)
        }
        Err(error) => Err(error),
    }
}

/// Gives `work` until the limit.
pub(super) async fn within<T>(
    limit: Duration,
    operation: &'static str,
    object: &str,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(Error::NoAnswer { operation, object: object.to_owned(), limit }),
    }
}
