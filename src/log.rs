//! Where the log goes: to the journal with its fields, else to syslog, else to the terminal.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use syslog::{Facility, Formatter5424, Logger, LoggerBackend};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// Lines that may wait for a slow log daemon before further ones are dropped.
const QUEUE: usize = 256;

/// Sets up the log. `UPLINKD_LOG` chooses what is logged, as in `UPLINKD_LOG=debug`; the default is `info`.
///
/// Returns whether it reaches whoever reads standard error, which systemd connects to the journal.
pub fn start() -> bool {
    let filter = EnvFilter::builder().with_env_var("UPLINKD_LOG").try_from_env();
    let registry = Registry::default().with(filter.unwrap_or_else(|_| EnvFilter::new("info,zbus=warn")));
    if std::io::stderr().is_terminal() {
        registry.with(terminal()).init();
        return true;
    }
    if let Ok(journal) = tracing_journald::layer() {
        registry.with(journal.with_syslog_identifier("uplinkd".into())).init();
        return std::env::var_os("JOURNAL_STREAM").is_some();
    }
    match Syslog::connect() {
        Some(syslog) => registry.with(syslog).init(),
        None => {
            registry.with(terminal()).init();
            return true;
        }
    }
    false
}

/// Lines for a person; no colour where nobody sees it.
fn terminal<S>() -> impl Layer<S>
where
    S: Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let layer =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false).without_time();
    layer.with_ansi(std::io::stderr().is_terminal())
}

/// Syslog by way of a thread of its own: its socket blocks while the log daemon is slow, and has to be opened again
/// after the log daemon was restarted.
struct Syslog {
    lines: SyncSender<(Level, String)>,
}

impl Syslog {
    fn connect() -> Option<Self> {
        let logger = logger().ok()?;
        let (lines, queue) = sync_channel(QUEUE);
        std::thread::Builder::new().name("syslog".into()).spawn(move || write_all(logger, &queue)).ok()?;
        Some(Syslog { lines })
    }
}

/// RFC 5424 is the format whose time stamps the crate gets right.
fn logger() -> syslog::Result<Logger<LoggerBackend, Formatter5424>> {
    syslog::unix(Formatter5424 {
        facility: Facility::LOG_DAEMON,
        hostname: None,
        process: "uplinkd".into(),
        pid: std::process::id(),
    })
}

fn write_all(mut log: Logger<LoggerBackend, Formatter5424>, queue: &Receiver<(Level, String)>) {
    while let Ok((level, line)) = queue.recv() {
        if send(&mut log, level, &line).is_err() {
            if let Ok(again) = logger() {
                log = again;
                // Lost twice is lost.
                let _ = send(&mut log, level, &line);
            }
        }
    }
}

fn send(log: &mut Logger<LoggerBackend, Formatter5424>, level: Level, line: &str) -> syslog::Result<()> {
    let message = (0, BTreeMap::new(), line);
    match level {
        Level::ERROR => log.err(message),
        Level::WARN => log.warning(message),
        Level::INFO => log.info(message),
        _ => log.debug(message),
    }
}

impl<S: Subscriber> Layer<S> for Syslog {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        // A full queue means that the log daemon hangs; the daemon must not.
        let _ = self.lines.try_send((*event.metadata().level(), line.0));
    }
}

/// An event on one line: what came from the network cannot begin a second one.
#[derive(Default)]
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let text = format!("{value:?}").replace(|c: char| c.is_control(), " ");
        let text = if field.name() == "message" { text } else { format!(" {}={text}", field.name()) };
        self.0.push_str(&text);
    }
}
