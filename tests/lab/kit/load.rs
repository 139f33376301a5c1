//! Traffic of a known rate.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::address::isp_of;
use super::ns::Ns;
use super::socket::Via;
use super::traffic::Running;

/// Bits that a datagram's echo has on a link: 14 bytes of Ethernet, 20 of IPv4, 8 of UDP, and what follows.
const BITS: u32 = 10_000;
/// What is sent for that: the echo has `198.51.100.1 PORT ` in front of it.
const SENT: usize = 1250 - 14 - 20 - 8 - 19;
/// Who was held up for longer does not make up for it: a burst would be more than the rate.
const LAG: Duration = Duration::from_millis(100);

/// One UDP flow to an echo port over IPv4, which loads a link both ways alike.
#[derive(Debug)]
pub struct Load {
    running: Running<BTreeSet<Option<u8>>>,
    rate: Arc<AtomicU32>,
}

impl Load {
    /// Start with so many bits a second, as the counters of a link see them.
    pub fn start(ns: &Ns, via: &Via, dest: SocketAddr, rate: u32) -> Load {
        let via = via.clone();
        let shared = Arc::new(AtomicU32::new(rate));
        let rate = Arc::clone(&shared);
        let running = Running::start(ns, move |stop| {
            let socket = via.udp(dest).expect("a port is free");
            socket.set_nonblocking(true).expect("it is a socket");
            let (mut seen, mut buffer, mut next) = (BTreeSet::new(), [0; 2048], Instant::now());
            while !stop.load(Ordering::Relaxed) {
                let rate = rate.load(Ordering::Relaxed);
                if rate == 0 {
                    thread::sleep(LAG);
                    continue;
                }
                thread::sleep(next.saturating_duration_since(Instant::now()));
                // What cannot be sent is a load that is not there, and shows in the rate.
                socket.send_to(&[b'.'; SENT], dest).ok();
                while let Ok(length) = socket.recv(&mut buffer) {
                    let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
                    let by = text.split(' ').next().and_then(|address| address.parse().ok());
                    seen.insert(by.and_then(isp_of));
                }
                let pause = Duration::from_secs(1) * BITS / rate;
                next = (next + pause).max(Instant::now().checked_sub(LAG).unwrap_or(next));
            }
            seen
        });
        Load { running, rate: shared }
    }

    /// So many bits a second from now on; none for a pause.
    pub fn set(&self, rate: u32) {
        self.rate.store(rate, Ordering::Relaxed);
    }

    /// Stop, and tell which ISPs it went by; none for an address that no ISP has.
    pub fn stop(self) -> BTreeSet<Option<u8>> {
        self.running.stop()
    }
}
