//! New flows at a steady rate.

use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::ns::Ns;
use super::report::{NewFlowsReport, Packet};
use super::socket::Via;
use super::traffic::{GRACE, PATIENCE, Running};

/// How often the open ones are looked at.
const SWEEP: Duration = Duration::from_millis(2);

/// New flows at a steady rate: one datagram each from a new source port.
#[derive(Debug)]
pub struct NewFlows(Running<NewFlowsReport>);

impl NewFlows {
    /// Start `rate` flows a second to echo ports, `dests` in turn.
    pub fn start(ns: &Ns, via: &Via, dests: &[SocketAddr], rate: u32) -> NewFlows {
        let plan = Plan { via: via.clone(), dests: dests.to_vec(), rate, patience: PATIENCE, grace: GRACE };
        NewFlows(Running::start(ns, move |stop| plan.run::<Datagram>(stop)))
    }

    /// Stop, wait for the last answers, and tell.
    pub fn stop(self) -> NewFlowsReport {
        self.0.stop()
    }
}

/// New TCP connections at a steady rate, each closed once it was greeted.
#[derive(Debug)]
pub struct NewTcp(Running<NewFlowsReport>);

impl NewTcp {
    /// Start `rate` connections a second to echo ports, `dests` in turn; one that was not greeted within `patience` failed.
    pub fn start(ns: &Ns, via: &Via, dests: &[SocketAddr], rate: u32, patience: Duration) -> NewTcp {
        let plan = Plan { via: via.clone(), dests: dests.to_vec(), rate, patience, grace: patience };
        NewTcp(Running::start(ns, move |stop| plan.run::<Connection>(stop)))
    }

    /// Stop, wait for the last ones, and tell. A "packet" of the report is a connection, its answer the greeting.
    pub fn stop(self) -> NewFlowsReport {
        self.0.stop()
    }
}

/// A flow that was begun.
trait Attempt: Sized {
    fn begin(via: &Via, dest: SocketAddr) -> io::Result<Self>;
    /// The address that the other side sees, once it has answered.
    fn answer(&mut self) -> io::Result<Option<IpAddr>>;
}

struct Datagram(UdpSocket);

impl Attempt for Datagram {
    fn begin(via: &Via, dest: SocketAddr) -> io::Result<Datagram> {
        let socket = via.udp(dest)?;
        socket.set_nonblocking(true)?;
        socket.send_to(b"new", dest)?;
        Ok(Datagram(socket))
    }

    fn answer(&mut self) -> io::Result<Option<IpAddr>> {
        let mut buffer = [0; 256];
        // An ICMP error leaves it waiting, as an unconnected socket would.
        Ok(self.0.recv(&mut buffer).ok().and_then(|length| address(buffer.get(..length)?)))
    }
}

struct Connection {
    stream: TcpStream,
    line: Vec<u8>,
}

impl Attempt for Connection {
    fn begin(via: &Via, dest: SocketAddr) -> io::Result<Connection> {
        Ok(Connection { stream: via.tcp_begin(dest)?, line: Vec::new() })
    }

    fn answer(&mut self) -> io::Result<Option<IpAddr>> {
        let mut buffer = [0; 256];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(io::ErrorKind::ConnectionAborted.into()),
            Ok(length) => {
                self.line.extend_from_slice(buffer.get(..length).unwrap_or_default());
                Ok(self.line.ends_with(b"\n").then(|| address(&self.line)).flatten())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The address that begins what an echo port says.
fn address(said: &[u8]) -> Option<IpAddr> {
    String::from_utf8_lossy(said).split(' ').next()?.parse().ok()
}

struct Plan {
    via: Via,
    dests: Vec<SocketAddr>,
    rate: u32,
    patience: Duration,
    grace: Duration,
}

/// One that waits for its answer, and its place among all.
type Open<A> = Vec<(usize, A)>;

impl Plan {
    fn run<A: Attempt>(&self, stop: &AtomicBool) -> NewFlowsReport {
        let mut log = NewFlowsReport::begin();
        let mut open: Open<A> = Vec::new();
        let interval = Duration::from_secs(1) / self.rate;
        for dest in self.dests.iter().cycle() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let number = log.packets.len();
            log.packets.push(Packet { sent: log.start.elapsed(), answer: None, error: None });
            match A::begin(&self.via, *dest) {
                Ok(attempt) => open.push((number, attempt)),
                Err(error) => log.packets[number].error = Some(error.to_string()),
            }
            let next = log.start + interval * u32::try_from(number + 1).unwrap_or(u32::MAX);
            self.sweep(&mut log, &mut open, next);
        }
        log.ran = log.start.elapsed();
        let end = log.start + log.ran + self.grace;
        while Instant::now() < end && !open.is_empty() {
            self.sweep(&mut log, &mut open, (Instant::now() + SWEEP).min(end));
        }
        for (number, _) in open {
            log.packets[number].error = Some("no answer at the end".to_owned());
        }
        log
    }

    /// Take answers until then; those that waited long enough are given up.
    fn sweep<A: Attempt>(&self, log: &mut NewFlowsReport, open: &mut Open<A>, until: Instant) {
        loop {
            let rest = until.saturating_duration_since(Instant::now());
            thread::sleep(rest.min(SWEEP));
            let now = log.start.elapsed();
            open.retain_mut(|(number, attempt)| {
                let packet = &mut log.packets[*number];
                match attempt.answer() {
                    Ok(Some(seen)) => packet.answer = Some((now, seen)),
                    Ok(None) if now.saturating_sub(packet.sent) < self.patience => return true,
                    Ok(None) => packet.error = Some("no answer in time".to_owned()),
                    Err(error) => packet.error = Some(error.to_string()),
                }
                false
            });
            if rest <= SWEEP {
                return;
            }
        }
    }
}
