//! The tasks beside the loop: they listen, and say nothing but "look again".

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::round::{Gateways, Heard};
use crate::kernel::cgroup::Cgroups;
use crate::kernel::nfnl;
use crate::kernel::rtnl::{self, Events};
use crate::service::{self, BUS_NAME, Command};
use crate::sources::Nudge;
use crate::sources::bus::BusState;
use crate::world::chain;

/// Starts to listen to the kernel. The task ends when the kernel can be heard no longer, and tells why.
pub(super) fn kernel(nudges: mpsc::Sender<Nudge>) -> Result<(Heard, JoinHandle<rtnl::Error>), rtnl::Error> {
    let gateways = Gateways::default();
    let cgroups = units(nudges.clone());
    let mut events = Events::open()?;
    let (routing, watched) = (nudges.clone(), gateways.clone());
    let listener = tokio::spawn(async move {
        loop {
            match events.next(&watched).await {
                // A full channel holds a nudge already.
                Ok(reason) => drop(routing.try_send(Nudge::Kernel(reason))),
                Err(error) => return error,
            }
        }
    });
    match nfnl::Watch::open() {
        Ok(watch) => drop(tokio::spawn(nftables(watch, nudges))),
        Err(error) => warn!("nftables: {}; its changes are noticed by the slow resync only", chain(&error)),
    }
    Ok((Heard { gateways, cgroups }, listener))
}

async fn nftables(mut watch: nfnl::Watch, nudges: mpsc::Sender<Nudge>) {
    loop {
        match watch.next().await {
            Ok(()) => drop(nudges.try_send(Nudge::Nftables)),
            Err(error) => return warn!("nftables: {error}; its changes are noticed by the slow resync only"),
        }
    }
}

/// Starts to listen for units that come and go.
fn units(nudges: mpsc::Sender<Nudge>) -> Cgroups {
    let heard = move || {
        let _full = nudges.try_send(Nudge::Units);
    };
    let deaf = |error| warn!("units: {error}; those that come and go are noticed by the slow resync only");
    Cgroups::watched(heard, deaf).unwrap_or_else(|error| {
        deaf(error);
        Cgroups::default()
    })
}

/// Offers the D-Bus service on every connection to the bus that comes about; tells when the first attempt is over.
pub(super) async fn serve(
    mut bus: watch::Receiver<BusState>,
    commands: mpsc::Sender<Command>,
    offered: oneshot::Sender<()>,
) {
    let mut offered = Some(offered);
    loop {
        let state = bus.borrow_and_update().clone();
        let over = !matches!(state, BusState::Connecting);
        if let BusState::Connected(connection) = state {
            match service::offer(&connection, commands.clone()).await {
                Ok(()) => info!("on D-Bus as {BUS_NAME}"),
                Err(error) => warn!("cannot offer {BUS_NAME} on D-Bus: {}", chain(&error)),
            }
        }
        if let Some(offered) = offered.take_if(|_| over) {
            // The daemon is stopping if it does not listen.
            let _ = offered.send(());
        }
        if bus.changed().await.is_err() {
            return;
        }
    }
}
