//! A slow or narrow piece of wire between an ISP and the internet.
//!
//! The kernels that tests run on have no netem. Here the wire is cut, and both ends go into a VXLAN device each, which
//! gives every frame to a UDP socket of ours and takes frames from it. That asks for no ioctl, as a tun device would, and
//! as it happens below IP, routing and NAT on both sides know nothing of it. The sockets are in a namespace of their own,
//! because a VXLAN device that sends to an address of its own namespace looks for another device there, not for a socket.
//!
//! ```text
//!  isp's wan ── ispN ── slowN ── nearN ═══ threads in a namespace ═══ farN ── core
//!                      (bridge) (VXLAN)                              (VXLAN)  (bridge)
//! ```

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use super::ns::Ns;
use super::socket::BURST;

/// Where the VXLAN devices of each ISP listen.
const NEAR: u16 = 47001;
const FAR: u16 = 47002;
/// How much waits at most in front of a narrow wire, in time: what a modem's buffer holds that is neither scarce nor bloated.
const QUEUE: Duration = Duration::from_millis(100);

/// The slow wire of one ISP. It stays in until the lab ends; without a delay it is only a little slower than a real one.
#[derive(Debug)]
pub(super) struct Relay {
    /// Where its threads live.
    pub(super) ns: Ns,
    lanes: [Arc<Lane>; 2],
    threads: Vec<JoinHandle<()>>,
}

/// One direction.
#[derive(Debug, Default)]
struct Lane {
    traffic: Mutex<Traffic>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Traffic {
    /// With the time at which they came.
    frames: VecDeque<(Instant, Vec<u8>)>,
    /// What they weigh together.
    bytes: usize,
    delay: Duration,
    /// Bits per second; none for as fast as it goes.
    rate: Option<u32>,
    /// Until when the last frame occupies the wire.
    busy: Option<Instant>,
    stop: bool,
}

impl Relay {
    /// Cut the wire of ISP `number` in the internet's namespace and put the relay in.
    #[track_caller]
    pub(super) fn insert(internet: &Ns, number: u8) -> Relay {
        let ns = Ns::new(&format!("wire {number}"));
        let [inside, outside] = connect(internet, &ns, number);
        let sockets = [("near", NEAR), ("far", FAR)].map(|(name, port)| {
            let socket = ns.run(|| socket(outside)).expect("a port is free, and root may have a buffer");
            let ours = socket.local_addr().expect("it is bound");
            vxlan(internet, number, &format!("{name}{number}"), port, ours);
            socket
        });
        let lanes = [Arc::<Lane>::default(), Arc::default()];
        let mut threads = Vec::new();
        for ((lane, from), port) in lanes.iter().zip(sockets).zip([FAR, NEAR]) {
            let to = from.try_clone().expect("a descriptor is left");
            let (reading, writing) = (Arc::clone(lane), Arc::clone(lane));
            threads.push(ns.thread(move || reading.read(&from)));
            threads.push(ns.thread(move || writing.write(&to, (inside, port).into())));
        }
        internet.ip(&format!(
            "link add slow{number} type bridge forward_delay 0 mcast_snooping 0\n\
             link set slow{number} up\n\
             link set near{number} master slow{number}\n\
             link set far{number} master core\n\
             link set isp{number} master slow{number}\n"
        ));
        Relay { ns, lanes, threads }
    }

    /// How long each frame takes in each direction from now on, those under way included.
    pub(super) fn delay(&self, each_way: Duration) {
        self.change(|traffic| traffic.delay = each_way);
    }

    /// How many bits a second pass in each direction from now on. More waits for [`QUEUE`], and what comes then is lost.
    pub(super) fn narrow(&self, rate: Option<u32>) {
        self.change(|traffic| traffic.rate = rate);
    }

    fn change(&self, how: impl Fn(&mut Traffic)) {
        for lane in &self.lanes {
            how(&mut lane.traffic());
            lane.changed.notify_all();
        }
    }
}

/// Connect the two namespaces; their addresses.
#[track_caller]
fn connect(internet: &Ns, ns: &Ns, number: u8) -> [Ipv4Addr; 2] {
    let [inside, outside] = [1, 2].map(|host| Ipv4Addr::new(169, 254, number, host));
    // What wraps a frame makes it longer than 1500.
    internet.ip(&format!(
        "link add wire{number} mtu 2000 type veth peer name wire mtu 2000 netns {}\n\
         addr add {inside}/24 dev wire{number}\n\
         link set wire{number} up\n",
        ns.path()
    ));
    ns.ip(&format!("addr add {outside}/24 dev wire\nlink set wire up\n"));
    [inside, outside]
}

/// What takes the frames of one end.
fn socket(address: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((address, 0))?;
    setsockopt(&socket, sockopt::RcvBufForce, &BURST)?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    Ok(socket)
}

/// Make a VXLAN device that listens on `port` and sends all to `peer`.
#[track_caller]
fn vxlan(internet: &Ns, number: u8, device: &str, port: u16, peer: SocketAddr) {
    // Frames come with checksums still to be computed, and in one piece for many segments, as no hardware is involved:
    // the first is noted in the VXLAN header and done by whoever takes the frame out again, the second is prevented.
    internet.ip(&format!(
        "link add {device} type vxlan id {number} dstport {port} nolearning udpcsum remcsumtx remcsumrx\n\
         link set {device} mtu 1500\n\
         link set {device} gso_max_segs 1\n\
         link set {device} up\n"
    ));
    let (address, port) = (peer.ip().to_string(), peer.port().to_string());
    let everybody = "00:00:00:00:00:00";
    let words = ["bridge", "fdb", "append", everybody, "dev", device, "dst", &address, "port", &port];
    internet.cmd(&words).ok();
}

impl Lane {
    fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Take frames until the end.
    fn read(&self, from: &UdpSocket) {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let got = from.recv(&mut buffer);
            let mut traffic = self.traffic();
            if traffic.stop {
                return;
            }
            // An error is the timeout, after which the flag is looked at.
            if let Some(frame) = got.ok().and_then(|length| buffer.get(..length)) {
                traffic.take(frame.to_vec());
                self.changed.notify_all();
            }
        }
    }

    /// Send them on when their time has come, until the end.
    fn write(&self, to: &UdpSocket, device: SocketAddr) {
        while let Some(frame) = self.next() {
            // What cannot be sent is lost, as on any wire.
            to.send_to(&frame, device).ok();
        }
    }

    /// Wait for the next frame that is due; none at the end.
    fn next(&self) -> Option<Vec<u8>> {
        let mut traffic = self.traffic();
        while !traffic.stop {
            traffic = match traffic.due().map(|due| due.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return traffic.give(),
                Some(rest) => {
                    self.changed.wait_timeout(traffic, rest).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(traffic).unwrap_or_else(PoisonError::into_inner),
            };
        }
        None
    }
}

impl Traffic {
    /// A frame arrives, and waits if there is room.
    fn take(&mut self, frame: Vec<u8>) {
        if self.rate.is_some_and(|rate| lasts(self.bytes, rate) > QUEUE + self.delay) {
            return;
        }
        self.bytes += frame.len();
        self.frames.push_back((Instant::now(), frame));
    }

    /// When the first that waits is to leave.
    fn due(&self) -> Option<Instant> {
        let (came, _) = self.frames.front()?;
        Some((*came + self.delay).max(self.busy.unwrap_or(*came)))
    }

    /// The first leaves. A wire that was told to wait for a moment makes up for it.
    fn give(&mut self) -> Option<Vec<u8>> {
        let due = self.due()?;
        let (_, frame) = self.frames.pop_front()?;
        self.bytes -= frame.len();
        self.busy = self.rate.map(|rate| due + lasts(frame.len(), rate));
        Some(frame)
    }
}

/// How long so many bytes take at so many bits a second. What VXLAN puts ahead of a frame is counted as the preamble and the
/// gap that a wire has.
fn lasts(bytes: usize, rate: u32) -> Duration {
    Duration::from_secs_f64(bytes as f64 * 8.0 / f64::from(rate))
}

impl Drop for Relay {
    fn drop(&mut self) {
        for lane in &self.lanes {
            lane.traffic().stop = true;
            lane.changed.notify_all();
        }
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}
