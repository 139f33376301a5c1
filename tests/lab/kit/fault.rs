//! The ways in which an ISP fails. Each is ended by saying it again with `false`, or with zero.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::address::HTTP;
use super::isp::{Isp, router6};
use super::ns::Ns;
use super::relay::Relay;
use super::server::{Server, Service};

/// A protocol that an ISP's firewall can swallow, in both families.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Filter {
    /// All of ICMP, so pings and errors.
    Icmp,
    /// Port 53 of others, UDP and TCP; the ISP's own resolver works.
    Dns,
    /// All of TCP.
    Tcp,
}

impl Filter {
    const ALL: [Filter; 3] = [Filter::Icmp, Filter::Dns, Filter::Tcp];

    fn rule(self) -> &'static str {
        match self {
            Filter::Icmp => "meta l4proto { icmp, icmpv6 } drop",
            Filter::Dns => "meta l4proto { tcp, udp } th dport 53 drop",
            Filter::Tcp => "meta l4proto tcp drop",
        }
    }
}

/// What an ISP loses; clones speak of the same one.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    ns: Ns,
    lost: Arc<Mutex<Lost>>,
}

#[derive(Debug, Default)]
struct Lost {
    up: u8,
    down: u8,
    filters: Vec<Filter>,
}

impl Gate {
    /// The gate is on the device to the internet, so that it is also between the internet and the ISP's own resolver.
    #[track_caller]
    pub(super) fn new(ns: &Ns) -> Gate {
        ns.nft(
            "table netdev gate {
                chain down { type filter hook ingress device wan priority 0; }
                chain up { type filter hook egress device wan priority 0; }
            }
            table inet filters { chain forward { type filter hook forward priority -20; }; }",
        );
        Gate { ns: ns.clone(), lost: Arc::default() }
    }

    #[track_caller]
    fn change(&self, change: impl FnOnce(&mut Lost)) {
        // The lock is held while it is loaded, so that the last one said is the last one loaded.
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut lost);
        let mut text = String::from("flush table netdev gate\nflush table inet filters\n");
        for (chain, percent) in [("up", lost.up), ("down", lost.down)] {
            text += &loss(chain, percent);
        }
        for filter in Filter::ALL.iter().filter(|filter| lost.filters.contains(filter)) {
            text += &format!("add rule inet filters forward {}\n", filter.rule());
        }
        self.ns.nft(&text);
    }

    #[track_caller]
    fn lose(&self, up: u8, down: u8) {
        self.change(|lost| (lost.up, lost.down) = (up, down));
    }
}

/// Neighbours are found all the same: or the modem would tell the customer "host unreachable" after a while.
fn loss(chain: &str, percent: u8) -> String {
    let drop = match percent {
        0 => return String::new(),
        100.. => "drop".to_owned(),
        some => format!("numgen random mod 100 < {some} drop"),
    };
    let neighbours = ["meta protocol arp", "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }"];
    let accept = neighbours.map(|these| format!("add rule netdev gate {chain} {these} accept\n"));
    format!("{}add rule netdev gate {chain} {drop}\n", accept.concat())
}

fn all_if(on: bool) -> u8 {
    if on { 100 } else { 0 }
}

/// Losses: [`Isp::silent`], [`Isp::lose`], [`Isp::deaf`] and [`Isp::mute`] set the same two figures, one for each
/// direction, so the last one that was said of a direction holds.
impl Isp {
    /// Let everything behind the modem fall silent, or speak again, so nothing is lost any more. The modem itself goes on
    /// answering (ARP, ping, DHCP), but its resolver knows no answers.
    #[track_caller]
    pub fn silent(&self, on: bool) {
        self.gate.lose(all_if(on), all_if(on));
    }

    /// Lose so many percent of the packets in each direction, each packet at random.
    #[track_caller]
    pub fn lose(&self, percent: u8) {
        self.gate.lose(percent, percent);
    }

    /// Lose what comes back from the internet; what is sent arrives there.
    #[track_caller]
    pub fn deaf(&self, on: bool) {
        self.gate.change(|lost| lost.down = all_if(on));
    }

    /// Lose what goes out to the internet.
    #[track_caller]
    pub fn mute(&self, on: bool) {
        self.gate.change(|lost| lost.up = all_if(on));
    }

    /// Swallow one protocol of the customer's. Several may be swallowed at a time.
    #[track_caller]
    pub fn filter(&self, filter: Filter, on: bool) {
        self.gate.change(|lost| {
            lost.filters.retain(|other| *other != filter);
            lost.filters.extend(on.then_some(filter));
        });
    }

    /// Fall silent at once, for `silent` of every `period`, until the value goes; then it speaks.
    #[track_caller]
    pub fn flap(&self, period: Duration, silent: Duration) -> Flap {
        assert!(silent < period, "it must speak in between");
        let gate = self.gate.clone();
        let (stop, stopped) = channel();
        let thread = thread::spawn(move || {
            let wait = |time| stopped.recv_timeout(time) == Err(RecvTimeoutError::Timeout);
            loop {
                gate.lose(100, 100);
                let go_on = wait(silent);
                gate.lose(0, 0);
                if !go_on || !wait(period - silent) {
                    return;
                }
            }
        });
        Flap { stop: Some(stop), thread: Some(thread) }
    }

    /// Make every way there and back longer by this, half in each direction, for all that passes between the ISP and the
    /// internet. Nothing is lost when it changes but for what is just under way when it is first said; what waits when it
    /// becomes shorter arrives the sooner, in its order.
    #[track_caller]
    pub fn delay(&self, both_ways: Duration) {
        self.relay(!both_ways.is_zero(), |relay| relay.delay(both_ways / 2));
    }

    /// Let so many bits a second pass in each direction, and the rest wait for 100 ms at most: a line that can be full. None
    /// for as fast as it goes.
    #[track_caller]
    pub fn narrow(&self, rate: Option<u32>) {
        self.relay(rate.is_some(), |relay| relay.narrow(rate));
    }

    /// Change the relay; cut the wire for it only where that is needed.
    #[track_caller]
    fn relay(&self, needed: bool, how: impl Fn(&Relay)) {
        let mut state = self.state();
        if needed || state.relay.is_some() {
            how(state.relay.get_or_insert_with(|| Relay::insert(&self.internet, self.number())));
        }
    }

    /// Plug the cable in or out: the machine sees the carrier come and go.
    #[track_caller]
    pub fn carrier(&self, on: bool) {
        // Taking the device down loses its global IPv6 address; dnsmasq wants it back before it announces.
        let spec = &self.state().spec;
        let mut lines = format!("link set lan {}\n", if on { "up" } else { "down" });
        if on && spec.has_ipv6() {
            lines += &format!("addr replace {}/64 dev lan nodad\n", router6(self.number()));
        }
        self.ns.ip(&lines);
    }

    /// Take the carrier away for 100 ms, as a modem does that was restarted. NetworkManager asks for its lease anew when the
    /// carrier returns, and keeps address and routes meanwhile: the quickest way to bring it a changed lease. That is
    /// NetworkManager 1.52; 1.42 (Debian 12) does not ask again unless the carrier stays away for longer than 6 s.
    #[track_caller]
    pub fn blip(&self) {
        self.carrier(false);
        thread::sleep(Duration::from_millis(100));
        self.carrier(true);
    }

    /// Let the modem itself die with the light on: carrier stays, nothing is answered or announced, not even ARP.
    #[track_caller]
    pub fn dead(&self, on: bool) {
        self.ns.nft("add table netdev dead\ndelete table netdev dead\n");
        if on {
            self.ns.nft(
                "table netdev dead {
                    chain in { type filter hook ingress device lan priority 0; policy drop; }
                    chain out { type filter hook egress device lan priority 0; policy drop; }
                }",
            );
        }
    }

    /// Put the customer behind a login page, or let them out again. Its resolver works, as it does at the counter.
    #[track_caller]
    pub fn portal(&self, on: bool) {
        self.ns.nft("add table inet portal\ndelete table inet portal\n");
        self.state().portal = on.then(|| {
            self.ns.nft(&format!(
                "table inet portal {{
                    chain login {{ type nat hook prerouting priority dstnat - 10;
                        iifname lan tcp dport {HTTP} redirect; }}
                    chain walled {{ type filter hook forward priority -30;
                        iifname lan drop; }}
                }}"
            ));
            Server::start(&self.ns, HTTP, Service::Portal)
        });
    }
}

/// An ISP that falls silent again and again, for as long as this is there: see [`Isp::flap`].
#[derive(Debug)]
pub struct Flap {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Flap {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
