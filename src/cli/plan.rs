//! `uplinkctl plan`.

use std::path::Path;

use super::client::Client;
use super::{Failure, configuration, print};
use crate::daemon::full_plan;
use crate::state::Directories;
use crate::world;

pub(super) async fn run(full: bool, json: bool, file: &Path) -> Result<(), Failure> {
    let (commands, notes): (Vec<String>, Vec<String>) = if full {
        let plan = full_plan(configuration(file)?, &Directories::from_environment()).await;
        plan.map_err(|error| Failure::new(world::chain(&error)))?
    } else {
        let answer: String = Client::connect().await?.ask("Plan").await?;
        (serde_json::from_str(&answer).map_err(Failure::new)?, Vec::new())
    };
    if json {
        return print(&format!("{}\n", serde_json::Value::from(commands)));
    }
    let mut text: String = notes.iter().map(|note| format!("# {note}\n")).collect();
    if commands.is_empty() {
        text += if full { "# no uplink was found\n" } else { "# nothing would change\n" };
    }
    for command in commands {
        text += &format!("{command}\n");
    }
    print(&text)
}
