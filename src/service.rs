//! The D-Bus service `org.uplinkd.Uplinkd1`: passes questions and orders to the daemon's loop.
//!
//! Anybody may ask; what changes state is allowed by polkit, or, where there is no polkit, to root alone.

#![expect(missing_docs, reason = "zbus generates a public trait for the signal, without a word")]

use std::collections::HashMap;

use tokio::sync::{mpsc, oneshot};
use zbus::message::Header;
use zbus::object_server::{InterfaceRef, SignalEmitter};
use zbus::zvariant::Value;
use zbus::{Connection, fdo, interface};

use crate::core::health::Manual;
use crate::core::net::UplinkName;
use crate::core::quota::Amount;
use crate::status::Event;

/// The name on the bus.
pub const BUS_NAME: &str = "org.uplinkd.Uplinkd1";
/// The one object.
pub const PATH: &str = "/org/uplinkd/Uplinkd1";

/// The polkit action for what decides over an uplink.
const CONFIGURE: &str = "org.uplinkd.Uplinkd1.configure";

/// What can be asked of the daemon's loop. Each carries the way for its answer; an error is one text for people.
#[derive(Debug)]
pub enum Command {
    /// The status document.
    Status(oneshot::Sender<String>),
    /// What would change now, as a JSON array of commands.
    Plan(oneshot::Sender<Result<String, String>>),
    /// Read the configuration again.
    Reload(oneshot::Sender<Result<(), String>>),
    /// Look again, and answer when the routing stands.
    Nudge(oneshot::Sender<()>),
    /// Take everything of ours out of the kernel, and rest until told otherwise.
    Flush(oneshot::Sender<Result<(), String>>),
    /// Take an uplink out, or put it back.
    Drain(UplinkName, bool, oneshot::Sender<Result<(), String>>),
    /// Hold an uplink up or down by hand; none lets the probes decide again.
    Override(UplinkName, Option<Manual>, oneshot::Sender<Result<(), String>>),
    /// Say how much of an uplink's quota was used.
    QuotaUsed(UplinkName, Amount, oneshot::Sender<Result<(), String>>),
    /// What has happened, as a JSON array, the oldest first.
    Events(oneshot::Sender<String>),
    /// Forget an absent uplink.
    Forget(UplinkName, oneshot::Sender<Result<(), String>>),
}

/// The object on the bus.
struct Service {
    commands: mpsc::Sender<Command>,
}

impl Service {
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> fdo::Result<T> {
        let gone = || fdo::Error::Failed("the daemon is stopping".into());
        let (answer, wait) = oneshot::channel();
        self.commands.send(command(answer)).await.map_err(|_| gone())?;
        wait.await.map_err(|_| gone())
    }

    async fn order<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, String>>) -> Command,
    ) -> fdo::Result<T> {
        self.ask(command).await?.map_err(fdo::Error::Failed)
    }
}

/// `org.uplinkd.Uplinkd1`.
#[interface(name = "org.uplinkd.Uplinkd1")]
impl Service {
    /// The status document, as JSON.
    async fn status(&self) -> fdo::Result<String> {
        self.ask(Command::Status).await
    }

    /// What would change now: a JSON array of commands.
    async fn plan(&self) -> fdo::Result<String> {
        self.order(Command::Plan).await
    }

    /// Reads the configuration again; an error keeps the running one and says why.
    async fn reload(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> fdo::Result<()> {
        authorise(bus, &header, "org.uplinkd.Uplinkd1.reload").await?;
        self.ask(Command::Reload).await?.map_err(fdo::Error::InvalidFileContent)
    }

    /// Looks again and returns when the routing stands, after `seconds` at the latest; 0 does not wait.
    async fn nudge(
        &self,
        seconds: u32,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> fdo::Result<()> {
        authorise(bus, &header, "org.uplinkd.Uplinkd1.nudge").await?;
        let limit = std::time::Duration::from_secs(seconds.into());
        match tokio::time::timeout(limit, self.ask(Command::Nudge)).await {
            Ok(outcome) => outcome,
            Err(_) if seconds == 0 => Ok(()),
            Err(_) => Err(fdo::Error::TimedOut(format!("the routing does not stand after {seconds} s"))),
        }
    }

    /// Takes everything of ours out of the kernel and rests until a reload or a restart.
    async fn flush(
        &self,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> fdo::Result<()> {
        authorise(bus, &header, "org.uplinkd.Uplinkd1.flush").await?;
        self.order(Command::Flush).await
    }

    /// Forgets an absent uplink and its slot.
    async fn forget(
        &self,
        name: &str,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> fdo::Result<()> {
        authorise(bus, &header, CONFIGURE).await?;
        let name = uplink_name(name)?;
        self.order(|answer| Command::Forget(name, answer)).await
    }

    /// Takes an uplink out, so that new flows go elsewhere, or puts it back. Survives a restart.
    async fn drain(
        &self,
        name: &str,
        drained: bool,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> fdo::Result<()> {
        authorise(bus, &header, CONFIGURE).await?;
        let name = uplink_name(name)?;
        self.order(|answer| Command::Drain(name, drained, answer)).await
    }

    /// Holds an uplink `up` or `down` until told otherwise or until the machine is started anew; `auto` lets the
    /// probes decide again.
    async fn r#override(
        &self,
        name: &str,
        state: &str,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> fdo::Result<()> {
        authorise(bus, &header, CONFIGURE).await?;
        let name = uplink_name(name)?;
        let decision = match state {
            "up" => Some(Manual::Up),
            "down" => Some(Manual::Down),
            "auto" => None,
            other => {
                let why = format!("state: {other:?} is not allowed; up, down or auto");
                return Err(fdo::Error::InvalidArgs(why));
            }
        };
        self.order(|answer| Command::Override(name, decision, answer)).await
    }

    /// Says how many bytes of an uplink's quota were used in this billing period.
    async fn set_quota_used(
        &self,
        name: &str,
        bytes: u64,
        #[zbus(header)] header: Header<'_>,
        #[zbus(connection)] bus: &Connection,
    ) -> fdo::Result<()> {
        authorise(bus, &header, CONFIGURE).await?;
        let name = uplink_name(name)?;
        let used = Amount(bytes);
        if used > Amount::MOST {
            return Err(fdo::Error::InvalidArgs(format!(
                "bytes: {bytes} is not allowed; at most {}",
                Amount::MOST
            )));
        }
        self.order(|answer| Command::QuotaUsed(name, used, answer)).await
    }

    /// What has become of whom, as a JSON array, the oldest first.
    async fn events(&self) -> fdo::Result<String> {
        self.ask(Command::Events).await
    }

    /// A family of an uplink has changed its state, or its quota its level.
    #[zbus(signal)]
    async fn transition(
        emitter: &SignalEmitter<'_>,
        time: &str,
        uplink: &str,
        family: &str,
        from: &str,
        to: &str,
        why: &str,
    ) -> zbus::Result<()>;

    /// The status document has changed.
    #[zbus(signal)]
    async fn changed(emitter: &SignalEmitter<'_>) -> zbus::Result<()>;
}

/// Offers the service on a connection, under its name.
pub async fn offer(bus: &Connection, commands: mpsc::Sender<Command>) -> zbus::Result<()> {
    bus.object_server().at(PATH, Service { commands }).await?;
    bus.request_name(BUS_NAME).await
}

/// Tells whoever listens that the status has changed.
pub async fn announce(bus: &Connection) {
    if let Some(object) = object(bus).await {
        // Nobody to hear it is no fault.
        let _ = Service::changed(object.signal_emitter()).await;
    }
}

/// Tells whoever listens what has become of an uplink.
pub async fn tell(bus: &Connection, event: &Event) {
    if let Some(object) = object(bus).await {
        let Event { time, uplink, family, from, to, why } = event;
        let _ = Service::transition(object.signal_emitter(), time, uplink, family, from, to, why).await;
    }
}

async fn object(bus: &Connection) -> Option<InterfaceRef<Service>> {
    bus.object_server().interface(PATH).await.ok()
}

fn uplink_name(name: &str) -> fdo::Result<UplinkName> {
    UplinkName::try_from(name.to_owned()).map_err(fdo::Error::InvalidArgs)
}

/// Asks polkit whether the caller may do this.
///
/// `CheckAuthorization` of another's process is answered to the action's owner only, which the policy file names
/// (polkit(8), `org.freedesktop.policykit.owner`).
async fn authorise(bus: &Connection, header: &Header<'_>, action: &str) -> fdo::Result<()> {
    let caller = header.sender().ok_or_else(|| fdo::Error::AccessDenied("no sender".into()))?;
    let dbus = fdo::DBusProxy::new(bus).await?;
    let uid = dbus.get_connection_unix_user(caller.clone().into()).await?;
    if uid == 0 || uid == nix::unistd::geteuid().as_raw() {
        return Ok(());
    }
    let subject = ("system-bus-name", HashMap::from([("name", Value::from(caller.as_str()))]));
    let details = HashMap::<&str, &str>::new();
    const ALLOW_USER_INTERACTION: u32 = 1;
    let question = (subject, action, details, ALLOW_USER_INTERACTION, "");
    let answer = bus
        .call_method(
            Some("org.freedesktop.PolicyKit1"),
            "/org/freedesktop/PolicyKit1/Authority",
            Some("org.freedesktop.PolicyKit1.Authority"),
            "CheckAuthorization",
            &question,
        )
        .await;
    let denied = |why: String| fdo::Error::AccessDenied(format!("{action}: {why}"));
    let answer =
        answer.map_err(|error| denied(format!("only root may, because polkit does not answer: {error}")))?;
    let (allowed, _, _): (bool, bool, HashMap<String, String>) =
        answer.body().deserialize().map_err(|error| denied(error.to_string()))?;
    if allowed { Ok(()) } else { Err(denied("polkit says no".into())) }
}
