//! A program of the administrator's, of which the exit status is the answer.
//!
//! Decides what it is told, how long it may run and how much it may write. Where its packets go it refuses to know:
//! the program has to bind them to the device, or mark them, itself.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::time::{Instant, timeout};

use super::{Outcome, Way, failed};

/// The most that it may write to both of its outputs together, in bytes.
const OUTPUT: usize = 4096;
/// How long after its end is waited for what it wrote, should somebody outside of its group still hold the pipe.
const AFTERMATH: Duration = Duration::from_millis(50);

/// Runs it. What it started in its process group is killed when it ends, and when this future is dropped.
pub(super) async fn ask(program: &str, args: &[String], way: &Way) -> Result<Duration, Outcome> {
    let since = Instant::now();
    let child =
        command(program, args, way).spawn().map_err(|error| failed(format!("cannot run: {error}")))?;
    let mut group = Group { leader: child.id(), child };
    let mut out = Output::of(group.child.stdout.take());
    let mut err = Output::of(group.child.stderr.take());
    let status = loop {
        tokio::select! {
            () = out.read(), if out.pipe.is_some() => {}
            () = err.read(), if err.pipe.is_some() => {}
            status = group.child.wait() => break status.map_err(failed)?,
        }
        if out.text.len() + err.text.len() > OUTPUT {
            return Err(failed("wrote more than 4 KiB"));
        }
    };
    let time = since.elapsed();
    // Closes the pipes in the hands of those that it left behind, so that reading on comes to an end.
    group.kill();
    let rest = async {
        while err.pipe.is_some() && err.text.len() <= OUTPUT {
            err.read().await;
        }
    };
    let _ = timeout(AFTERMATH, rest).await;
    verdict(status, &err.text).map_or(Ok(time), |why| Err(failed(why)))
}

fn command(program: &str, args: &[String], way: &Way) -> Command {
    let path = env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/sbin:/usr/bin:/sbin:/bin"));
    let mut command = Command::new(program);
    command
        .args(args)
        .current_dir("/")
        .env_clear()
        .env("PATH", path)
        .env("UPLINKD_UPLINK", way.uplink.as_str())
        .env("UPLINKD_DEVICE", way.device.as_str())
        .env("UPLINKD_FAMILY", way.family.to_string())
        .env("UPLINKD_GATEWAY", way.gateway.map(|ip| ip.to_string()).unwrap_or_default())
        // As `SO_MARK` and `ping -m` take it.
        .env("UPLINKD_MARK", way.mark.value().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        // The group is killed by us; this has tokio reap the leader.
        .kill_on_drop(true);
    command
}

/// Why an exit status is no answer; none where it is one.
fn verdict(status: ExitStatus, complaint: &[u8]) -> Option<String> {
    let how = match (status.code(), status.signal()) {
        (Some(0), _) => return None,
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    };
    let complaint = String::from_utf8_lossy(complaint);
    Some(match complaint.lines().map(str::trim).find(|line| !line.is_empty()) {
        Some(line) => format!("{how}: {line}"),
        None => how,
    })
}

/// One of its outputs, as far as it was read.
struct Output<P> {
    pipe: Option<P>,
    text: Vec<u8>,
}

impl<P: AsyncRead + Unpin> Output<P> {
    fn of(pipe: Option<P>) -> Self {
        Output { pipe, text: Vec::new() }
    }

    /// Reads what is there; nothing is lost when it is dropped.
    async fn read(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        let mut part = [0; 1024];
        match pipe.read(&mut part).await {
            Ok(length) if length > 0 => self.text.extend_from_slice(&part[..length]),
            _ => self.pipe = None,
        }
    }
}

/// A process group, killed when it is dropped.
struct Group {
    /// Its number, until it was killed.
    leader: Option<u32>,
    child: Child,
}

impl Group {
    /// Kills whoever is in it. The leader may have been reaped just before: while the group has members its number is
    /// not given away, and when it has none, not again within the moment that this takes.
    fn kill(&mut self) {
        if let Some(leader) = self.leader.take().and_then(|id| i32::try_from(id).ok()) {
            // An error means that nobody is left.
            let _ = killpg(Pid::from_raw(leader), Signal::SIGKILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
