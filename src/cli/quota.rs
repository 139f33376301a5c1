//! `uplinkctl quota`: says how much of a quota was used, where the provider counts otherwise.

use super::client::{Client, WAIT_SECONDS, meant};
use super::{Failure, print};
use crate::core::quota::Amount;
use crate::exit;

pub(super) async fn run(name: &str, used: &str) -> Result<(), Failure> {
    let used: Amount = used
        .parse()
        .map_err(|()| Failure::with(exit::USAGE, format!("{used:?} is not allowed; {}", Amount::WRITTEN)))?;
    let client = Client::connect().await?;
    let present = client.status().await?.uplinks;
    // One that is away has its quota, too, and so have all while nothing is managed.
    let is_here = present.iter().any(|uplink| uplink.name == name || uplink.interface == name);
    let name = if is_here { meant(present, name)?.name } else { name.to_owned() };
    client.call("SetQuotaUsed", &(&name, used.0)).await?;
    client.call("Nudge", &WAIT_SECONDS).await?;
    let now = client.status().await?.uplinks.into_iter().find(|uplink| uplink.name == name);
    print(&match now.and_then(|uplink| uplink.quota) {
        Some(quota) => format!("{name}: {quota}\n"),
        None => format!("{name}: {used} used; it is not there now\n"),
    })
}
