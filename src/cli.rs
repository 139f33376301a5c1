//! The command line `uplinkctl`: one file a subcommand. Everything that the daemon knows is asked of the daemon.

mod check;
mod client;
mod dnsmasq;
mod events;
mod flush;
mod plan;
mod quota;
mod set;
mod status;

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use serde::Serialize;
use zbus::zvariant::Type;

use crate::config::{self, Config};
use crate::exit;

/// Shows and steers uplinkd, which keeps several internet uplinks balanced and failed over.
#[derive(Debug, Parser)]
#[command(name = "uplinkctl", version)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the uplinks (the default).
    Status {
        /// All that is known of this one: its probes, and each figure beside its limit.
        name: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show what would change in the kernel now, as commands.
    Plan {
        /// Show everything that should be there, as a dry run that needs neither daemon nor privilege.
        #[arg(long)]
        full: bool,
        /// As a JSON array.
        #[arg(long)]
        json: bool,
        /// The main configuration file, for --full.
        #[arg(long, requires = "full", default_value = config::MAIN_FILE)]
        config: PathBuf,
    },
    /// Check the configuration with the daemon's own loader.
    Check {
        /// The main file; conf.d and nft.d beside it are checked too.
        #[arg(default_value = config::MAIN_FILE)]
        file: PathBuf,
    },
    /// Print what has dnsmasq note the addresses of names, for policies by domain.
    Dnsmasq {
        /// The main file; conf.d beside it is read too.
        #[arg(default_value = config::MAIN_FILE)]
        file: PathBuf,
    },
    /// Read the configuration again.
    Reload,
    /// Change settings of an uplink where its link is configured.
    Set {
        /// The uplink's name.
        name: String,
        /// Settings as KEY=VALUE; an empty value takes a setting back.
        #[arg(required = true, value_name = "KEY=VALUE")]
        assignments: Vec<String>,
    },
    /// Make the daemon look again.
    Nudge {
        /// Return when the routing stands, after so many seconds at the latest.
        #[arg(long, default_value_t = 0, value_name = "SECONDS")]
        wait: u32,
    },
    /// Take everything of uplinkd's out of the kernel and put its settings back.
    Flush,
    /// Take an uplink out: new flows go elsewhere, running ones stay unless its failback says otherwise.
    ///
    /// Holds until `undrain`, also over a restart.
    Drain {
        /// The uplink's name.
        name: String,
    },
    /// Put a drained uplink back.
    Undrain {
        /// The uplink's name.
        name: String,
    },
    /// Use an uplink whatever its probes say, until `auto` or a reboot.
    Up {
        /// The uplink's name.
        name: String,
    },
    /// Do not use an uplink, and move its flows, until `auto` or a reboot.
    Down {
        /// The uplink's name.
        name: String,
    },
    /// Let the probes decide again.
    Auto {
        /// The uplink's name.
        name: String,
    },
    /// Say how much of an uplink's quota was used, where its provider counts otherwise.
    Quota {
        /// The uplink's name.
        name: String,
        /// What was used in this billing period, like 12.5GB.
        used: String,
    },
    /// Show what has become of whom.
    Events {
        /// Go on with what happens.
        #[arg(short, long)]
        follow: bool,
        /// As JSON, an object a line.
        #[arg(long)]
        json: bool,
    },
    /// Forget an absent uplink and its slot.
    Forget {
        /// The uplink's name.
        name: String,
    },
    /// Print a completion script.
    #[command(hide = true)]
    Completions {
        /// For this shell.
        shell: Shell,
    },
}

/// What a subcommand can fail with, and with which exit code.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    fn new(text: impl ToString) -> Self {
        Failure { code: exit::FAILURE, text: text.to_string() }
    }

    fn with(code: u8, text: impl ToString) -> Self {
        Failure { code, text: text.to_string() }
    }
}

/// Runs `uplinkctl`.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => {
            runtime.block_on(run(arguments.command.unwrap_or(Command::Status { name: None, json: false })))
        }
        Err(error) => Err(Failure::new(error)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, text }) => {
            // Nobody to read it is no reason to panic.
            let _ = writeln!(std::io::stderr(), "uplinkctl: {}", text.trim_end());
            ExitCode::from(code)
        }
    }
}

async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Status { name, json } => status::run(name.as_deref(), json).await,
        Command::Plan { full, json, config } => plan::run(full, json, &config).await,
        Command::Check { file } => check::run(&file).await,
        Command::Dnsmasq { file } => dnsmasq::run(&file),
        Command::Reload => client::Client::connect().await?.call("Reload", &()).await,
        Command::Set { name, assignments } => set::run(&name, &assignments).await,
        Command::Nudge { wait } => {
            let limit = client::ANSWER_LIMIT + Duration::from_secs(wait.into());
            client::Client::connect().await?.within(limit).call("Nudge", &wait).await
        }
        Command::Flush => flush::run().await,
        Command::Drain { name } => decide(&name, "Drain", true).await,
        Command::Undrain { name } => decide(&name, "Drain", false).await,
        Command::Up { name } => decide(&name, "Override", "up").await,
        Command::Down { name } => decide(&name, "Override", "down").await,
        Command::Auto { name } => decide(&name, "Override", "auto").await,
        Command::Quota { name, used } => quota::run(&name, &used).await,
        Command::Events { follow, json } => events::run(follow, json).await,
        Command::Forget { name } => client::Client::connect().await?.call("Forget", &name).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "uplinkctl", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
    }
}

/// Calls a method that decides over an uplink, which may be named by its interface, and returns when that is carried
/// out.
async fn decide(name: &str, method: &str, what: impl Serialize + Type) -> Result<(), Failure> {
    let client = client::Client::connect().await?;
    let name = client.uplink(name).await?.name;
    client.call(method, &(name, what)).await?;
    client.call("Nudge", &client::WAIT_SECONDS).await
}

/// The configuration that a file and the drop-ins beside it make. The daemon does without a main file; somebody who
/// names another means it.
fn configuration(file: &Path) -> Result<Config, Failure> {
    if file != Path::new(config::MAIN_FILE) && !file.exists() {
        return Err(Failure::with(exit::CONFIG, format!("{}: there is no such file", file.display())));
    }
    config::load(file).map_err(|problems| Failure::with(exit::CONFIG, problems))
}

/// Prints to standard output. A reader that has gone (`| head`) is no failure.
fn print(text: &str) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::new(error)),
        _ => Ok(()),
    }
}
