//! The daemon's command line.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tracing::error;

use super::{Options, once, run};
use crate::state::Directories;
use crate::world::chain;
use crate::{config, exit, log};

/// Keeps several internet uplinks balanced and failed over.
#[derive(Debug, Parser)]
#[command(name = "uplinkd", version)]
struct Arguments {
    /// Bring the kernel to what it should be once, and end; for hooks where no daemon runs.
    #[arg(long)]
    once: bool,
    /// The main configuration file; conf.d and nft.d beside it are read too.
    #[arg(long, value_name = "FILE", default_value = config::MAIN_FILE)]
    config: PathBuf,
}

/// Runs `uplinkd`.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let seen = log::start();
    let options = Options { config: arguments.config, dirs: Directories::from_environment() };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("uplinkd: {error}");
            return ExitCode::from(exit::FAILURE);
        }
    };
    let outcome =
        runtime.block_on(async { if arguments.once { once(options).await } else { run(options).await } });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{}", chain(&error));
            if !seen {
                // Who started it in a script sees it too; nobody to read it is no failure.
                let _ = writeln!(std::io::stderr(), "uplinkd: {}", chain(&error));
            }
            ExitCode::from(error.exit_code())
        }
    }
}
