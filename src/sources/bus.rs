//! The connection to the system bus: kept, found again when lost, and listened to.
//!
//! Decides when to try again and which signals are worth a nudge. Knows nothing of what the managers mean, and takes
//! nothing but the occasion from a signal. A bus that is missing (early boot, a small container) holds nobody up.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use zbus::message::Type;
use zbus::{Connection, Message, MessageStream};

use super::Nudge;
use super::call::{Error, LIMIT, ask_bus, within};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What we ask the bus to pass on.
///
/// Named one by one, so that the bus drops the rest and a Wi-Fi scan (access points that come and go, signal
/// strengths, bit rates) or a statistics tick does not even wake us. An activation still sends dozens: settle first.
/// networkd tells only of states, so that all it tells is wanted (org.freedesktop.network1(5)).
/// D-Bus Specification, "Match Rules"; NetworkManager D-Bus API reference, the interfaces named.
const RULES: [&str; 14] = [
    "type='signal',sender='org.freedesktop.NetworkManager',interface='org.freedesktop.DBus.Properties',\
     member='PropertiesChanged',arg0='org.freedesktop.NetworkManager.Device'",
    "type='signal',sender='org.freedesktop.NetworkManager',interface='org.freedesktop.DBus.Properties',\
     member='PropertiesChanged',arg0='org.freedesktop.NetworkManager.Connection.Active'",
    "type='signal',sender='org.freedesktop.NetworkManager',interface='org.freedesktop.DBus.Properties',\
     member='PropertiesChanged',arg0='org.freedesktop.NetworkManager.IP4Config'",
    "type='signal',sender='org.freedesktop.NetworkManager',interface='org.freedesktop.DBus.Properties',\
     member='PropertiesChanged',arg0='org.freedesktop.NetworkManager.IP6Config'",
    "type='signal',sender='org.freedesktop.NetworkManager',interface='org.freedesktop.DBus.Properties',\
     member='PropertiesChanged',arg0='org.freedesktop.NetworkManager.DHCP4Config'",
    "type='signal',sender='org.freedesktop.NetworkManager',interface='org.freedesktop.DBus.Properties',\
     member='PropertiesChanged',arg0='org.freedesktop.NetworkManager.DHCP6Config'",
    "type='signal',sender='org.freedesktop.NetworkManager',interface='org.freedesktop.NetworkManager.Device',\
     member='StateChanged'",
    "type='signal',sender='org.freedesktop.NetworkManager',\
     interface='org.freedesktop.NetworkManager.Settings.Connection'",
    "type='signal',sender='org.freedesktop.NetworkManager',interface='org.freedesktop.DBus.ObjectManager',\
     arg0path='/org/freedesktop/NetworkManager/Devices/'",
    "type='signal',sender='org.freedesktop.network1',interface='org.freedesktop.DBus.Properties',\
     member='PropertiesChanged',arg0namespace='org.freedesktop.network1'",
    "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',member='NameOwnerChanged',\
     arg0='org.freedesktop.NetworkManager'",
    "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',member='NameOwnerChanged',\
     arg0='org.freedesktop.network1'",
    // Who resolves names: NetworkManager tells resolved what to ask, and resolved announces nothing but itself.
    "type='signal',sender='org.freedesktop.NetworkManager',interface='org.freedesktop.DBus.Properties',\
     member='PropertiesChanged',arg0='org.freedesktop.NetworkManager.DnsManager'",
    "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',member='NameOwnerChanged',\
     arg0='org.freedesktop.resolve1'",
];

/// How the system bus stands.
#[derive(Debug, Clone)]
pub enum BusState {
    /// The first attempt is not over yet: nothing can be said of any manager.
    Connecting,
    /// Reached, and listened to.
    Connected(Connection),
    /// Out of reach; tried again by and by.
    Unreachable(Arc<Error>),
}

/// The system bus, kept by a task of its own for as long as this value lives.
#[derive(Debug)]
pub struct Bus {
    state: watch::Receiver<BusState>,
    keeper: JoinHandle<()>,
}

impl Bus {
    /// Starts to reach for the bus, and from then on says through `nudges` when it is worth to look again.
    ///
    /// A full channel loses nothing: a nudge is waiting in it already. Must be called within a tokio runtime.
    pub fn start(nudges: mpsc::Sender<Nudge>) -> Self {
        let (publish, state) = watch::channel(BusState::Connecting);
        Bus { state, keeper: tokio::spawn(keep(publish, nudges)) }
    }

    /// How it stands now.
    pub fn state(&self) -> BusState {
        self.state.borrow().clone()
    }

    /// Waits until the first attempt to reach it is over.
    pub async fn settled(&self) {
        let mut state = self.state.clone();
        // The keeper lives as long as we do.
        let _ = state.wait_for(|state| !matches!(state, BusState::Connecting)).await;
    }

    /// For those who must act when it changes, as a service that has to take its name again.
    pub fn watch(&self) -> watch::Receiver<BusState> {
        self.state.clone()
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// Connects to the system bus once: at `DBUS_SYSTEM_BUS_ADDRESS`, else at the well-known place.
///
/// # Errors
///
/// When nothing answers there. At early boot the socket can be open with nobody behind it, hence a time limit.
pub async fn connect() -> Result<Connection, Error> {
    within(LIMIT, "connect", "system bus", async { Connection::system().await.map_err(failed("connect")) })
        .await
}

async fn keep(state: watch::Sender<BusState>, nudges: mpsc::Sender<Nudge>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match connect().await {
            Ok(connection) => {
                pause = FIRST_PAUSE;
                listen(connection, &state, &nudges).await
            }
            Err(error) => error,
        };
        // Who hears every further failure of a bus that never was would hear it for ever.
        let news = !matches!(*state.borrow(), BusState::Unreachable(_));
        state.send_replace(BusState::Unreachable(Arc::new(error)));
        if news {
            nudge(&nudges, Nudge::Bus);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Passes nudges on until the connection ends; returns why it did.
async fn listen(
    connection: Connection,
    state: &watch::Sender<BusState>,
    nudges: &mpsc::Sender<Nudge>,
) -> Error {
    let mut messages = MessageStream::from(&connection);
    let subscribed = async {
        if let Err(error) = subscribe(&connection).await {
            return error;
        }
        state.send_replace(BusState::Connected(connection.clone()));
        nudge(nudges, Nudge::Bus);
        std::future::pending().await
    };
    // Drained while the rules are still being set: a full queue would keep the bus's answers from us.
    let drained = async {
        loop {
            match messages.next().await {
                Some(Ok(message)) => reason(&message).into_iter().for_each(|reason| nudge(nudges, reason)),
                Some(Err(source)) => return failed("listen")(source),
                None => {
                    return failed("listen")(zbus::Error::InputOutput(Arc::new(
                        std::io::ErrorKind::BrokenPipe.into(),
                    )));
                }
            }
        }
    };
    tokio::select! {
        error = subscribed => error,
        error = drained => error,
    }
}

/// The rules go to the bus as they stand: zbus's own type for them refuses a prefix in `arg0path`.
async fn subscribe(connection: &Connection) -> Result<(), Error> {
    within(LIMIT, "AddMatch", "system bus", async {
        for rule in RULES {
            ask_bus(connection, "AddMatch", rule).await?;
        }
        Ok(())
    })
    .await
}

/// What a message is worth. Others may use the connection too, so not all that arrives was asked for here.
fn reason(message: &Message) -> Option<Nudge> {
    let header = message.header();
    if header.message_type() != Type::Signal {
        return None;
    }
    let interface = header.interface()?.as_str();
    if interface == "org.freedesktop.DBus" && header.member()?.as_str() == "NameOwnerChanged" {
        let body = message.body();
        let (name, _, _): (&str, &str, &str) = body.deserialize().ok()?;
        return match name {
            "org.freedesktop.NetworkManager" => Some(Nudge::NetworkManager),
            "org.freedesktop.network1" => Some(Nudge::Networkd),
            "org.freedesktop.resolve1" => Some(Nudge::Resolved),
            _ => None,
        };
    }
    let path = header.path()?.as_str();
    let objects_of_nm = path == "/org/freedesktop" && interface == "org.freedesktop.DBus.ObjectManager";
    if path.starts_with("/org/freedesktop/NetworkManager/") || objects_of_nm {
        Some(Nudge::NetworkManager)
    } else {
        path.starts_with("/org/freedesktop/network1").then_some(Nudge::Networkd)
    }
}

fn nudge(nudges: &mpsc::Sender<Nudge>, reason: Nudge) {
    // Full: whoever reads it will look anyway. Closed: nobody wants to know any more.
    let _ = nudges.try_send(reason);
}

fn failed(operation: &'static str) -> impl FnOnce(zbus::Error) -> Error {
    move |source| Error::Failed { operation, object: "system bus".to_owned(), source }
}

#[cfg(test)]
mod tests;
