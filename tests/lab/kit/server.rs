//! Servers on threads of this process, inside a namespace: they tell each client the address that they see.

use std::collections::HashMap;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};

use super::ns::Ns;
use super::socket::BURST;
use super::{dns, http};

/// What a server does with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// One line `ADDRESS PORT` with what it sees, then an echo; over UDP the line's words before each echoed datagram.
    Echo,
    /// The line, then 16 KiB every 5 ms.
    Bulk,
    /// The line, then as fast as it goes.
    Flood,
    /// HTTP: the pages that portal checks ask for, else 200 with the address that it sees.
    Http,
    /// HTTP as a captive portal: every request is sent to a login page.
    Portal,
    /// A resolver that knows every name, TCP and UDP.
    Dns,
    /// Accepts, and closes at once.
    Close,
}

impl Service {
    /// What it answers to a datagram, if it takes any.
    fn datagrams(self) -> Option<Answer> {
        match self {
            Service::Echo => Some(|peer, datagram| {
                let mut answer = format!("{} {} ", peer.ip(), peer.port()).into_bytes();
                answer.extend_from_slice(datagram);
                Some(answer)
            }),
            Service::Dns => Some(|_, datagram| dns::answer(datagram)),
            _ => None,
        }
    }
}

/// What is answered to a datagram from there.
type Answer = fn(SocketAddr, &[u8]) -> Option<Vec<u8>>;

/// A server on all addresses of a namespace, both families. It ends, with all its connections, when the value goes.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    listener: TcpListener,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    accepted: AtomicU64,
    open: Mutex<HashMap<u64, TcpStream>>,
}

impl Server {
    /// Serve on `port` of every address in `ns`, TCP and, for an echo and a resolver, UDP.
    #[track_caller]
    pub fn start(ns: &Ns, port: u16, service: Service) -> Server {
        let shared = Arc::new(Shared::default());
        let listener = ns.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)));
        let listener = listener.unwrap_or_else(|error| panic!("in {}: TCP port {port}: {error}", ns.name()));
        let for_thread = listener.try_clone().expect("a descriptor is left");
        let accepting = Arc::clone(&shared);
        let mut threads = vec![ns.thread(move || accept(&for_thread, &accepting, service))];
        if let Some(answer) = service.datagrams() {
            let socket = ns.run(|| udp(port));
            let socket = socket.unwrap_or_else(|error| panic!("in {}: UDP port {port}: {error}", ns.name()));
            let shared = Arc::clone(&shared);
            threads.push(ns.thread(move || answer_datagrams(&socket, &shared, answer)));
        }
        Server { shared, listener, threads }
    }

    /// How many TCP connections were accepted so far.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Close all connections that are open now.
    pub fn hang_up(&self) {
        for stream in self.shared.streams().values() {
            stream.shutdown(Shutdown::Both).ok();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes accept(2), which then answers EINVAL.
        nix::sys::socket::shutdown(self.listener.as_raw_fd(), nix::sys::socket::Shutdown::Both).ok();
        self.hang_up();
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

impl Shared {
    fn streams(&self) -> std::sync::MutexGuard<'_, HashMap<u64, TcpStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>, service: Service) {
    thread::scope(|scope| {
        while let Ok((stream, peer)) = listener.accept() {
            if shared.stopped() {
                break;
            }
            let number = shared.accepted.fetch_add(1, Ordering::Relaxed);
            let Ok(held) = stream.try_clone() else {
                continue;
            };
            shared.streams().insert(number, held);
            let serving = thread::Builder::new().stack_size(128 * 1024).spawn_scoped(scope, move || {
                serve(stream, peer, service).ok();
                shared.streams().remove(&number);
            });
            if serving.is_err() {
                shared.streams().remove(&number);
            }
        }
        for stream in shared.streams().values() {
            stream.shutdown(Shutdown::Both).ok();
        }
    });
}

fn serve(mut stream: TcpStream, peer: SocketAddr, service: Service) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let seen = peer.ip().to_canonical();
    match service {
        Service::Echo => {
            stream.write_all(format!("{seen} {}\n", peer.port()).as_bytes())?;
            let mut buffer = [0; 4096];
            loop {
                match stream.read(&mut buffer)? {
                    0 => return Ok(()),
                    n => stream.write_all(buffer.get(..n).unwrap_or_default())?,
                }
            }
        }
        Service::Bulk | Service::Flood => {
            stream.write_all(format!("{seen} {}\n", peer.port()).as_bytes())?;
            let block = [b'.'; 16 * 1024];
            loop {
                stream.write_all(&block)?;
                if service == Service::Bulk {
                    thread::sleep(Duration::from_millis(5));
                }
            }
        }
        Service::Http | Service::Portal => http::serve(&mut stream, seen, service == Service::Portal),
        Service::Dns => dns::serve(&mut stream),
        Service::Close => Ok(()),
    }
}

fn udp(port: u16) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))?;
    setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    setsockopt(&socket, sockopt::RcvBufForce, &BURST)?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    Ok(socket)
}

/// Answer each datagram from the very address that it was sent to.
fn answer_datagrams(socket: &UdpSocket, shared: &Shared, answer: Answer) {
    let mut buffer = [0; 2048];
    while !shared.stopped() {
        // A timeout is the moment to look at the flag; an error of an earlier answer is not ours to handle.
        answer_datagram(socket, &mut buffer, answer).ok();
    }
}

fn answer_datagram(socket: &UdpSocket, buffer: &mut [u8], answer: Answer) -> nix::Result<()> {
    let mut space = nix::cmsg_space!(libc::in6_pktinfo);
    let (length, peer, mut info) = {
        let mut parts = [IoSliceMut::new(buffer)];
        let message =
            recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty())?;
        let info = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(info),
            _ => None,
        });
        let (Some(peer), Some(info)) = (message.address, info) else {
            return Ok(());
        };
        (message.bytes, peer, info)
    };
    let Some(from) = peer.as_sockaddr_in6() else {
        return Ok(());
    };
    let from = SocketAddr::new(IpAddr::from(from.ip()).to_canonical(), from.port());
    let Some(answer) = answer(from, buffer.get(..length).unwrap_or_default()) else {
        return Ok(());
    };
    info.ipi6_ifindex = 0;
    sendmsg(
        socket.as_raw_fd(),
        &[IoSlice::new(&answer)],
        &[ControlMessage::Ipv6PacketInfo(&info)],
        MsgFlags::empty(),
        Some(&peer),
    )?;
    Ok(())
}
