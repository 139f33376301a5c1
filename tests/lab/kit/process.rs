//! Commands, long-lived processes and polling.

use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::ns::Ns;

/// What a command said and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output, invalid UTF-8 replaced.
    pub stdout: String,
    /// Standard error, invalid UTF-8 replaced.
    pub stderr: String,
}

impl Output {
    /// Whether the command ended with 0.
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// Standard output of a command that must have succeeded; panics with everything it said otherwise.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.success(), "{self}");
        self.stdout
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ended with {}\n{}{}", self.command, self.status, self.stdout, self.stderr)
    }
}

/// Run a command to its end, giving it `input` on standard input.
#[track_caller]
pub fn run(command: &mut Command, input: &[u8]) -> Output {
    let text = words(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run `{text}`: {error}"));
    let stdin = child.stdin.take();
    let output = thread::scope(|scope| {
        scope.spawn(move || {
            // A command that does not read all of its input says so by how it ends.
            stdin.map(|mut pipe| pipe.write_all(input))
        });
        child.wait_with_output()
    })
    .unwrap_or_else(|error| panic!("cannot wait for `{text}`: {error}"));
    Output {
        command: text,
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A command from its words.
pub fn command<S: AsRef<str>>(words: &[S]) -> Command {
    let (program, args) = words.split_first().expect("a command has a first word");
    let mut command = Command::new(program.as_ref());
    command.args(args.iter().map(AsRef::as_ref));
    command
}

fn words(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for word in command.get_args() {
        text.push(' ');
        text.push_str(&word.to_string_lossy());
    }
    text
}

/// A process that is killed and reaped when the value goes, and by the kernel when this process dies.
#[derive(Debug)]
pub struct Daemon(Child);

impl Daemon {
    /// Start `command` inside `ns`. It must not change its user or group, or the
    /// kernel forgets to end it with us.
    #[track_caller]
    pub fn start(ns: &Ns, command: &Command) -> Daemon {
        Daemon::start_with(ns, command, None)
    }

    /// [`Daemon::start`], with everything it prints going to `log`.
    #[track_caller]
    pub fn start_logged(ns: &Ns, command: &Command, log: File) -> Daemon {
        Daemon::start_with(ns, command, Some(log))
    }

    #[track_caller]
    fn start_with(ns: &Ns, command: &Command, log: Option<File>) -> Daemon {
        let text = words(command);
        let mut wrapped = Command::new("setpriv");
        wrapped.args(["--pdeathsig", "KILL", "--"]);
        wrapped.arg(command.get_program()).args(command.get_args());
        wrapped.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        wrapped.stdin(Stdio::null());
        if let Some(log) = log {
            let errors = log.try_clone().expect("a descriptor is left");
            wrapped.stdout(log).stderr(errors);
        }
        let ns = ns.clone();
        let child = on_spawner(move || ns.visit(|| wrapped.spawn()));
        Daemon(child.unwrap_or_else(|error| panic!("cannot start `{text}`: {error}")))
    }

    /// Whether it still runs.
    pub fn running(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    /// Wait for its own end for at most `limit`, before it is killed.
    pub fn finish(mut self, limit: Duration) {
        poll(limit, || (!self.running()).then_some(()));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Either may fail only because the process is gone already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// Run `job` on the one thread that starts processes. The kernel ends a child when the *thread* that started it ends, so these
/// must come from a thread that lives as long as the process.
fn on_spawner<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> T {
    static SPAWNER: OnceLock<Mutex<Sender<Job>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, queue) = channel::<Job>();
        thread::Builder::new()
            .name("lab spawner".into())
            .spawn(move || queue.into_iter().for_each(|job| job()))
            .expect("a thread can be started");
        Mutex::new(jobs)
    });
    let (answer, result) = channel();
    spawner
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send(Box::new(move || {
            answer.send(job()).ok();
        }))
        .expect("the spawner lives as long as the process");
    result.recv().expect("the spawner answers")
}

/// Look every 5 ms until `look` finds something, for at most `limit`.
pub fn poll<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// [`poll`] for something that must come: panics with `what` when it does not.
#[track_caller]
pub fn wait<T>(what: &str, limit: Duration, look: impl FnMut() -> Option<T>) -> T {
    match poll(limit, look) {
        Some(found) => found,
        None => panic!("waited {limit:?} in vain: {what}"),
    }
}
