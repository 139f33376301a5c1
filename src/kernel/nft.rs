//! Loads rulesets with the `nft` program: text in, a verdict out.
//!
//! Decides where the program is looked for and how long it may take. What the text means is
//! [`core::nft`](crate::core::nft)'s business; whether it is loaded, [`nfnl`](super::nfnl)'s.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use std::{env, fmt, io};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStderr, Command};
use tokio::time::timeout;

use crate::core::nft::{self, TABLE};
use crate::core::stream::Stream;

/// A load of 63 uplinks takes some 30 ms; a machine at its limits may be a hundred times slower.
const PATIENCE: Duration = Duration::from_secs(5);

/// A second more for so many bytes of text. Lists of 100 000 prefixes, some 4 MB, take a second or two.
const BYTES_A_SECOND: usize = 200_000;

/// How much of what `nft` complains of is kept: its first lines name the cause.
const COMPLAINT_BYTES: u64 = 2048;

/// What was asked of `nft`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Replace our table.
    Load,
    /// See whether a ruleset would load.
    Check,
    /// Delete our table.
    Drop,
    /// Name connections that it is to reset.
    Condemn,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self {
            Action::Load => "load",
            Action::Check => "check",
            Action::Drop => "delete",
            Action::Condemn => "name lost connections in",
        };
        write!(f, "{verb} nft table inet {TABLE}")
    }
}

/// Why `nft` did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such program.
    #[error("cannot {0}: no program nft in PATH, /usr/sbin or /sbin: install the package nftables")]
    Missing(Action),
    /// It could not be run, or not be talked to.
    #[error("cannot {action}: running nft: {source}")]
    Run {
        /// What it was run for.
        action: Action,
        /// What failed.
        source: io::Error,
    },
    /// It took longer than it may and was killed; the kernel has either all of the text or nothing.
    #[error("cannot {action}: nft did not end within {} s", .after.as_secs())]
    Timeout {
        /// What it was run for.
        action: Action,
        /// What it may take.
        after: Duration,
    },
    /// It refused; nothing was changed.
    #[error("cannot {action}: nft: {status}: {complaint}")]
    Refused {
        /// What it was run for.
        action: Action,
        /// How it ended.
        status: ExitStatus,
        /// The first lines of what it printed.
        complaint: String,
    },
}

/// Loads a text, all of it or nothing.
pub async fn load(text: &str) -> Result<(), Error> {
    run(Action::Load, text).await
}

/// Sees whether a text would load, and changes nothing.
pub async fn check(text: &str) -> Result<(), Error> {
    run(Action::Check, text).await
}

/// Deletes a table of ours; fine where there is none.
pub async fn drop_table(name: &str) -> Result<(), Error> {
    // `destroy table` would say the same, but nft learned it only with 1.0.7.
    run(Action::Drop, &format!("table inet {name} {{\n}}\ndelete table inet {name}\n")).await
}

/// Has our table, which must be loaded, reset these connections when their near end next sends something.
///
/// To be done before their conntrack entries are deleted: what is sent in between is taken for a new
/// flow, and from then on nothing looks at it any more. Some 10 000 take about 100 ms.
pub async fn condemn(streams: &[Stream]) -> Result<(), Error> {
    if streams.is_empty() {
        return Ok(());
    }
    match run(Action::Condemn, &nft::condemn(streams, false)).await {
        // A set may be full of those of an earlier failure, which are the less urgent ones.
        Err(Error::Refused { .. }) => run(Action::Condemn, &nft::condemn(streams, true)).await,
        outcome => outcome,
    }
}

async fn run(action: Action, text: &str) -> Result<(), Error> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => Error::Missing(action),
        _ => Error::Run { action, source },
    };
    let mut command = Command::new("nft");
    if action == Action::Check {
        command.arg("-c");
    }
    let mut child = command
        .args(["-f", "-"])
        .env_clear()
        .env("LC_ALL", "C")
        // An unprivileged user's PATH often lacks the places where nft lives.
        .env("PATH", format!("{}:/usr/sbin:/sbin", env::var("PATH").unwrap_or_default()))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // One that refuses early stops reading; why, it tells on its standard error.
            let _ = stdin.write_all(text.as_bytes()).await;
        }
    };
    let talk = async { tokio::join!(child.wait(), first_lines(stderr), write) };
    let patience = PATIENCE + Duration::from_secs((text.len() / BYTES_A_SECOND) as u64);
    let timed_out = |_| Error::Timeout { action, after: patience };
    let (status, complaint, ()) = timeout(patience, talk).await.map_err(timed_out)?;
    let (status, complaint) = (status.map_err(failed)?, complaint.map_err(failed)?);
    if status.success() { Ok(()) } else { Err(Error::Refused { action, status, complaint }) }
}

/// The beginning of what a program prints; the rest is read as well, so that it does not block.
async fn first_lines(pipe: Option<ChildStderr>) -> io::Result<String> {
    let Some(mut pipe) = pipe else { return Ok(String::new()) };
    let mut kept = Vec::new();
    (&mut pipe).take(COMPLAINT_BYTES).read_to_end(&mut kept).await?;
    tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await?;
    Ok(String::from_utf8_lossy(&kept).trim_end().to_owned())
}
