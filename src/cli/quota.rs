//! `uplinkctl quota`: says how much of a quota was used, where the provider counts otherwise.

use super::client::{Client, WAIT_SECONDS};
use super::{Failure, print};
use crate::core::quota::Amount;
use crate::exit;

pub(super) async fn run(name: &str, used: &str) -> Result<(), Failure> {
    let used: Amount = used
        .parse()
        .map_err(|()| Failure::with(exit::USAGE, format!("{used:?} is not allowed; {}", Amount::WRITTEN)))?;
    let client = Client::connect().await?;
    let name = client.uplink(name).await?.name;
    client.call("SetQuotaUsed", &(&name, used.0)).await?;
    client.call("Nudge", &WAIT_SECONDS).await?;
    let now = client.uplink(&name).await?.quota;
    now.map_or(Ok(()), |quota| print(&format!("{name}: {quota}\n")))
}
