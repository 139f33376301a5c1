//! Programs that want one TCP connection for ever, and make another when it breaks.

use std::io::{self, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::address::isp_of;
use super::ns::Ns;
use super::recovery::{GAP, Recovery};
use super::socket::Via;
use super::traffic::{Running, greeting};

/// How long an attempt to connect may take where the program has no patience of its own.
const CONNECT: Duration = Duration::from_secs(1);
/// How long after one that failed at once the next is made.
const RETRY: Duration = Duration::from_millis(50);
/// How often a silent connection is looked at.
const TICK: Duration = Duration::from_millis(50);

/// A program that holds a TCP connection, and connects anew once an error, or its patience, tells it that it is gone.
#[derive(Debug)]
pub struct SteadyTcp(Running<SteadyReport>);

/// What became of a [`SteadyTcp`]. All times are from its start.
#[derive(Debug, Clone)]
pub struct SteadyReport {
    /// When it started.
    pub start: Instant,
    /// How long it ran.
    pub ran: Duration,
    /// When data came, and by which of `connections`.
    pub data: Vec<(Duration, usize)>,
    /// When each connection was made, and the address that the other side saw.
    pub connections: Vec<(Duration, IpAddr)>,
    /// When the program learned that something was wrong, and what: connections that broke, or could not be made.
    pub errors: Vec<(Duration, String)>,
}

impl SteadyTcp {
    /// Read from [`super::address::BULK`] of some address. `patience` is how much silence the program bears, when it reads and
    /// when it connects; one without waits for the kernel to tell it, which for one that only reads may be never.
    pub fn download(ns: &Ns, via: &Via, dest: SocketAddr, patience: Option<Duration>) -> SteadyTcp {
        SteadyTcp::start(ns, Program { via: via.clone(), dest, patience, writes: None })
    }

    /// Write a line to an echo port at every `interval`, which must be shorter than a [`GAP`], and read what comes.
    pub fn dialogue(
        ns: &Ns,
        via: &Via,
        dest: SocketAddr,
        interval: Duration,
        patience: Option<Duration>,
    ) -> SteadyTcp {
        assert!(interval < GAP, "or every interval is a pause");
        SteadyTcp::start(ns, Program { via: via.clone(), dest, patience, writes: Some(interval) })
    }

    fn start(ns: &Ns, program: Program) -> SteadyTcp {
        SteadyTcp(Running::start(ns, move |stop| program.run(stop)))
    }

    /// Stop and tell.
    pub fn stop(self) -> SteadyReport {
        self.0.stop()
    }
}

impl SteadyReport {
    /// What a fault did to it: `noticed` is the first error after it.
    pub fn recovery(&self, fault: Instant) -> Recovery {
        let fault = fault.saturating_duration_since(self.start);
        let seen = |number: usize| self.connections.get(number).and_then(|(_, seen)| isp_of(*seen));
        let data: Vec<_> = self.data.iter().map(|(at, number)| (*at, seen(*number))).collect();
        let noticed = self.errors.iter().find(|(at, _)| *at >= fault);
        let noticed = noticed.map(|(at, _)| *at - fault);
        Recovery { noticed, ..Recovery::of(&data, fault, self.ran) }
    }

    /// [`Recovery::recovered`].
    pub fn recovered_after(&self, fault: Instant) -> Option<Duration> {
        self.recovery(fault).recovered
    }
}

struct Program {
    via: Via,
    dest: SocketAddr,
    patience: Option<Duration>,
    writes: Option<Duration>,
}

impl Program {
    fn run(&self, stop: &AtomicBool) -> SteadyReport {
        let mut report = SteadyReport {
            start: Instant::now(),
            ran: Duration::ZERO,
            data: Vec::new(),
            connections: Vec::new(),
            errors: Vec::new(),
        };
        while !stop.load(Ordering::Relaxed) {
            let ended = self.connect(&mut report).and_then(|stream| self.hold(stream, &mut report, stop));
            if let Err(error) = ended {
                report.errors.push((report.start.elapsed(), error.to_string()));
                thread::sleep(RETRY);
            }
        }
        report.ran = report.start.elapsed();
        report
    }

    fn connect(&self, report: &mut SteadyReport) -> io::Result<BufReader<TcpStream>> {
        let mut stream = BufReader::new(self.via.tcp(self.dest, self.patience.unwrap_or(CONNECT))?);
        let seen = greeting(&mut stream)?;
        report.connections.push((report.start.elapsed(), seen));
        Ok(stream)
    }

    /// Until the connection breaks, or everything is to end.
    fn hold(
        &self,
        mut stream: BufReader<TcpStream>,
        report: &mut SteadyReport,
        stop: &AtomicBool,
    ) -> io::Result<()> {
        let mut buffer = [0; 64 * 1024];
        let (mut last, mut due) = (Instant::now(), Instant::now());
        while !stop.load(Ordering::Relaxed) {
            if let Some(interval) = self.writes.filter(|_| Instant::now() >= due) {
                stream.get_mut().write_all(b"line\n")?;
                due += interval;
            }
            let pause =
                if self.writes.is_some() { due.saturating_duration_since(Instant::now()) } else { TICK };
            // A timeout of zero would mean none.
            stream.get_ref().set_read_timeout(Some(pause.clamp(Duration::from_millis(1), TICK)))?;
            match stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::ConnectionAborted.into()),
                Ok(_) => {
                    last = Instant::now();
                    report.data.push((report.start.elapsed(), report.connections.len() - 1));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if self.patience.is_some_and(|patience| last.elapsed() > patience) {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "it lost its patience"));
            }
        }
        Ok(())
    }
}
