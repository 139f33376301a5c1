//! Flows that measure what happens to them.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use super::ns::Ns;
use super::report::{Packet, Shares, UdpReport};
use super::socket::{BURST, Via};

/// How long a connection attempt, and an answer to a single question, may take.
pub const PATIENCE: Duration = Duration::from_secs(3);
/// How long after the end a flow still waits for answers.
pub(super) const GRACE: Duration = Duration::from_millis(500);

/// Make `count` TCP connections one after another to `dests` in turn, and count by which ISP each went.
pub fn connect_many(ns: &Ns, via: &Via, count: usize, dests: &[SocketAddr]) -> Shares {
    ns.run(|| {
        let mut shares = Shares::default();
        for dest in dests.iter().cycle().take(count) {
            let connect = || {
                let stream = via.tcp(*dest, PATIENCE)?;
                greeting(&mut BufReader::new(stream))
            };
            match connect() {
                Ok(seen) => shares.add(seen),
                Err(error) => shares.failures.push(format!("{dest}: {error}")),
            }
        }
        shares
    })
}

/// Which address a single connection to `dest` is seen with.
pub fn seen(ns: &Ns, via: &Via, dest: SocketAddr) -> io::Result<IpAddr> {
    HeldTcp::connect(ns, via, dest).map(|held| held.seen)
}

/// The address that the other side of a new connection says it sees.
pub(super) fn greeting(stream: &mut BufReader<TcpStream>) -> io::Result<IpAddr> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let address = line.split(' ').next().unwrap_or_default();
    address.parse().map_err(|_| io::Error::other(format!("the server's first line was {line:?}")))
}

/// A connection that stays open, as that of ssh.
#[derive(Debug)]
pub struct HeldTcp {
    /// The address that the other side sees.
    pub seen: IpAddr,
    stream: BufReader<TcpStream>,
}

impl HeldTcp {
    /// Connect to an echo port.
    pub fn connect(ns: &Ns, via: &Via, dest: SocketAddr) -> io::Result<HeldTcp> {
        let stream = ns.run(|| via.tcp(dest, PATIENCE))?;
        HeldTcp::over(stream)
    }

    /// Take a connection that was made elsewhere, to an echo port.
    pub fn over(stream: TcpStream) -> io::Result<HeldTcp> {
        let mut stream = BufReader::new(stream);
        let seen = greeting(&mut stream)?;
        Ok(HeldTcp { seen, stream })
    }

    /// How long an echo takes, waiting `limit` at most. A ping that came too late spoils the connection for more.
    pub fn ping(&mut self, limit: Duration) -> io::Result<Duration> {
        let start = Instant::now();
        self.stream.get_mut().write_all(b"ping\n")?;
        self.stream.get_ref().set_read_timeout(Some(limit))?;
        let mut line = String::new();
        match self.stream.read_line(&mut line)? {
            0 => Err(io::ErrorKind::ConnectionAborted.into()),
            _ if line == "ping\n" => Ok(start.elapsed()),
            _ => Err(io::Error::other(format!("the echo was {line:?}"))),
        }
    }

    /// The socket, for its addresses.
    pub fn socket(&self) -> &TcpStream {
        self.stream.get_ref()
    }
}

/// One UDP flow: a datagram each interval, all from one socket.
#[derive(Debug)]
pub struct UdpFlow(Running<UdpReport>);

impl UdpFlow {
    /// Start sending to an echo port.
    pub fn start(ns: &Ns, via: &Via, dest: SocketAddr, interval: Duration) -> UdpFlow {
        let via = via.clone();
        UdpFlow(Running::start(ns, move |stop| {
            let socket = via.udp(dest).and_then(|socket| {
                setsockopt(&socket, sockopt::RcvBufForce, &BURST)?;
                Ok(socket)
            });
            let mut log = Log::new();
            while !stop.load(Ordering::Relaxed) {
                let (number, at) = (log.packets.len(), log.start.elapsed());
                let sent = match &socket {
                    Ok(socket) => socket.send_to(number.to_string().as_bytes(), dest).map(drop),
                    Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
                };
                log.sent(at, sent.err());
                let next = interval * u32::try_from(number + 1).unwrap_or(u32::MAX);
                log.listen(socket.as_ref().ok(), next);
            }
            let ran = log.start.elapsed();
            let end = ran + GRACE;
            while log.start.elapsed() < end && log.waiting() {
                let step = (log.start.elapsed() + Duration::from_millis(20)).min(end);
                log.listen(socket.as_ref().ok(), step);
            }
            log.report(ran)
        }))
    }

    /// Stop sending, wait for the last answers, and tell.
    pub fn stop(self) -> UdpReport {
        self.0.stop()
    }
}

struct Log {
    start: Instant,
    packets: Vec<Packet>,
    answered: usize,
}

impl Log {
    fn new() -> Log {
        Log { start: Instant::now(), packets: Vec::new(), answered: 0 }
    }

    fn sent(&mut self, at: Duration, error: Option<io::Error>) {
        self.packets.push(Packet { sent: at, answer: None, error: error.map(|error| error.to_string()) });
    }

    fn waiting(&self) -> bool {
        self.answered < self.packets.len()
    }

    /// Take answers until the flow's time is `until`.
    fn listen(&mut self, socket: Option<&UdpSocket>, until: Duration) {
        loop {
            let rest = until.saturating_sub(self.start.elapsed());
            if rest.is_zero() {
                return;
            }
            let Some(socket) = socket else {
                thread::sleep(rest);
                return;
            };
            socket.set_read_timeout(Some(rest)).ok();
            self.take(socket);
        }
    }

    /// Take one answer, if there is one.
    fn take(&mut self, socket: &UdpSocket) {
        let mut buffer = [0; 256];
        let Ok((length, _)) = socket.recv_from(&mut buffer) else {
            return;
        };
        let at = self.start.elapsed();
        let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
        let mut words = text.split(' ');
        let seen = words.next().and_then(|word| word.parse().ok());
        let number = words.nth(1).and_then(|word| word.parse::<usize>().ok());
        let (Some(seen), Some(number)) = (seen, number) else {
            return;
        };
        let unanswered = |packet: &&mut Packet| packet.answer.is_none();
        if let Some(packet) = self.packets.get_mut(number).filter(unanswered) {
            packet.answer = Some((at, seen));
            self.answered += 1;
        }
    }

    fn report(self, ran: Duration) -> UdpReport {
        UdpReport { start: self.start, packets: self.packets, ran }
    }
}

/// What became of a download.
#[derive(Debug, Clone, Default)]
pub struct DownloadReport {
    /// Bytes that arrived.
    pub bytes: u64,
    /// The longest time without any.
    pub longest_stall: Duration,
    /// Why it ended before it was stopped.
    pub broke: Option<String>,
    /// The address that the server saw.
    pub seen: Option<IpAddr>,
}

/// A download that runs until it is stopped.
#[derive(Debug)]
pub struct TcpDownload {
    running: Running<DownloadReport>,
    stream: TcpStream,
    progress: Arc<Mutex<DownloadReport>>,
}

impl TcpDownload {
    /// Connect to [`super::address::BULK`] or [`super::address::FLOOD`] of some address and start to read.
    pub fn start(ns: &Ns, via: &Via, dest: SocketAddr) -> io::Result<TcpDownload> {
        let stream = ns.run(|| via.tcp(dest, PATIENCE))?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let first = DownloadReport { seen: Some(greeting(&mut reader)?), ..DownloadReport::default() };
        stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        let progress = Arc::new(Mutex::new(first));
        let shared = Arc::clone(&progress);
        let running = Running::start(ns, move |stop| {
            let mut last = Instant::now();
            let mut buffer = [0; 64 * 1024];
            while !stop.load(Ordering::Relaxed) {
                let got = reader.read(&mut buffer);
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let mut report = shared.lock().unwrap_or_else(PoisonError::into_inner);
                report.longest_stall = report.longest_stall.max(last.elapsed());
                match got {
                    Ok(0) => report.broke = Some("the server closed it".to_owned()),
                    Ok(length) => {
                        report.bytes += u64::try_from(length).unwrap_or(u64::MAX);
                        last = Instant::now();
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => report.broke = Some(error.to_string()),
                }
                if report.broke.is_some() {
                    break;
                }
            }
            shared.lock().unwrap_or_else(PoisonError::into_inner).clone()
        });
        Ok(TcpDownload { running, stream, progress })
    }

    /// How it goes so far.
    pub fn progress(&self) -> DownloadReport {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stop and tell.
    pub fn stop(self) -> DownloadReport {
        self.running.ask();
        self.stream.shutdown(Shutdown::Both).ok();
        self.running.stop()
    }
}

/// A thread that is asked to stop, also when nobody wants its report.
#[derive(Debug)]
pub(super) struct Running<T> {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<T>>,
}

impl<T: Send + 'static> Running<T> {
    #[track_caller]
    pub(super) fn start(ns: &Ns, work: impl FnOnce(&AtomicBool) -> T + Send + 'static) -> Running<T> {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        Running { stop, thread: Some(ns.thread(move || work(&seen))) }
    }
}

impl<T> Running<T> {
    fn ask(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn stop(mut self) -> T {
        self.ask();
        let thread = self.thread.take().expect("only this takes it");
        thread.join().expect("a traffic thread does not panic")
    }
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        self.ask();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
