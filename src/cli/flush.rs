//! `uplinkctl flush`: by the daemon where it runs, else with our own hands.

use super::{Failure, client::Client};
use crate::daemon;
use crate::exit;
use crate::state::Directories;

pub(super) async fn run() -> Result<(), Failure> {
    match Client::connect().await {
        Ok(client) => client.call("Flush", &()).await,
        Err(Failure { code: exit::UNAVAILABLE, .. }) => {
            daemon::flush(&Directories::from_environment()).await.map_err(failure)
        }
        Err(other) => Err(other),
    }
}

fn failure(error: daemon::Error) -> Failure {
    Failure::with(error.exit_code(), crate::world::chain(&error))
}
