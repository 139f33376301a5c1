//! `uplinkctl check`.

use std::path::Path;

use super::{Failure, print};
use crate::{config, exit};

pub(super) fn run(file: &Path) -> Result<(), Failure> {
    // The daemon does without a main file; somebody who names one means it.
    if file != Path::new(config::MAIN_FILE) && !file.exists() {
        return Err(Failure::with(exit::CONFIG, format!("{}: there is no such file", file.display())));
    }
    let config = config::load(file).map_err(|problems| Failure::with(exit::CONFIG, problems))?;
    print(&format!("{}: good; {} [[uplink]] sections\n", file.display(), config.uplinks.len()))
}
