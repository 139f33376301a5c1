//! `uplinkctl check`.

use std::path::Path;

use super::{Failure, configuration, print};
use crate::core::text::counted;

pub(super) fn run(file: &Path) -> Result<(), Failure> {
    let config = configuration(file)?;
    let sections = counted(config.uplinks.len(), "[[uplink]] section");
    print(&format!("{}: good; {sections}\n", file.display()))
}
