//! A port forward: what comes in for some ports of the machine goes on to a host behind it.
//!
//! Decides how its parts are written, and which ones are in each other's way. Refuses to know on which uplinks it is.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::net::Family;

/// What comes in for these ports goes on to this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortForward {
    /// Over which protocols.
    pub protocol: Protocol,
    /// For which ports of the machine.
    pub ports: Ports,
    /// Where it goes on to.
    pub to: Target,
}

/// What has ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// TCP and UDP.
    Both,
}

impl Protocol {
    /// What it can be, for error messages.
    pub const ALLOWED: &str = "tcp, udp or both";

    /// The protocol of a word.
    pub fn named(word: &str) -> Option<Self> {
        [Protocol::Tcp, Protocol::Udp, Protocol::Both].into_iter().find(|one| one.as_str() == word)
    }

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Both => "both",
        }
    }

    /// Whether it is the other, or has it in itself.
    pub fn has(self, other: Protocol) -> bool {
        self == other || self == Protocol::Both
    }
}

/// A port, or a range of them; never port 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// What is one, for error messages.
    pub const ALLOWED: &str = "a port from 1 to 65535, or a range of them like \"8000-8010\"";

    /// Accepts a range that has a port, and not port 0.
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (1..=last).contains(&first).then_some(Ports { first, last })
    }

    /// The first of them.
    pub fn first(self) -> u16 {
        self.first
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = u16> {
        self.first..=self.last
    }

    /// How many there are.
    pub fn count(self) -> usize {
        usize::from(self.last - self.first) + 1
    }

    /// Whether a port is in both.
    pub fn overlaps(self, other: Ports) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// The same ports, in order, as ranges that neither overlap nor touch.
pub fn apart(mut ports: Vec<Ports>) -> Vec<Ports> {
    ports.sort_unstable();
    let mut apart: Vec<Ports> = Vec::new();
    for next in ports {
        match apart.last_mut().filter(|last| u32::from(next.first) <= u32::from(last.last) + 1) {
            Some(last) => last.last = last.last.max(next.last),
            None => apart.push(next),
        }
    }
    apart
}

impl FromStr for Ports {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok());
        let ports = number(first).flatten().zip(number(last).flatten());
        ports.and_then(|(first, last)| Ports::new(first, last)).ok_or(())
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => self.first.fmt(f),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

/// A host behind the machine, and its ports; without them, those that were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The host.
    pub host: IpAddr,
    /// Its ports, where they are others.
    pub ports: Option<Ports>,
}

impl Target {
    /// What is one, for error messages.
    pub const ALLOWED: &str = "the address of a host with its port, range of ports or none, like \"10.1.0.9:80\" or \
                               \"[fd00::9]:8000-8010\"";

    /// Nobody else can be reached at such an address.
    fn is_host(host: &IpAddr) -> bool {
        let here = host.is_loopback() || host.is_unspecified() || host.is_multicast();
        let everybody = matches!(host, IpAddr::V4(v4) if v4.is_broadcast());
        // Without its interface nothing can be reached there.
        let on_some_link = matches!(host, IpAddr::V6(v6) if v6.is_unicast_link_local());
        !(here || everybody || on_some_link)
    }
}

impl FromStr for Target {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let bracketed = || {
            let (host, rest) = text.strip_prefix('[')?.split_once(']')?;
            let ports = if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?.parse().ok()?) };
            Some(Target { host: host.parse::<Ipv6Addr>().ok()?.into(), ports })
        };
        let with_port = || {
            let (host, ports) = text.split_once(':')?;
            Some(Target { host: IpAddr::V4(host.parse().ok()?), ports: Some(ports.parse().ok()?) })
        };
        let plain = || Some(Target { host: text.parse().ok()?, ports: None });
        let target = bracketed().or_else(with_port).or_else(plain);
        target.filter(|target| Target::is_host(&target.host)).ok_or(())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.host, self.ports) {
            (host, None) => host.fmt(f),
            (IpAddr::V6(host), Some(ports)) => write!(f, "[{host}]:{ports}"),
            (host, Some(ports)) => write!(f, "{host}:{ports}"),
        }
    }
}

/// The most ports of a range that becomes another one: each is an element of a map.
pub const MOST_MOVED: usize = 1024;

impl PortForward {
    /// What is wrong with a range that is to become another one, in the words of an error message.
    pub fn misfit(&self) -> Option<String> {
        let there = self.to.ports.filter(|there| *there != self.ports)?;
        let (from, to) = (self.ports.count(), there.count());
        if from != to {
            let word = |count| super::text::counted(count, "port");
            return Some(format!("{} has {}, and port {} has {to}", self.ports, word(from), there));
        }
        (from > MOST_MOVED).then(|| format!("at most {MOST_MOVED} ports can become others, not {from}"))
    }

    /// The family of whom it is for.
    pub fn family(&self) -> Family {
        Family::of(self.to.host)
    }

    /// Whether some packet would be for both, were they on the same uplink.
    pub fn overlaps(&self, other: &PortForward) -> bool {
        let protocols = self.protocol.has(other.protocol) || other.protocol.has(self.protocol);
        protocols && self.family() == other.family() && self.ports.overlaps(other.ports)
    }

    /// Each port with the one that it becomes; none where all stay what they are.
    pub fn moved(&self) -> Option<impl Iterator<Item = SocketPair>> {
        let (ports, host) = (self.ports, self.to.host);
        let there = self.to.ports.filter(|there| *there != ports)?;
        let pair = move |(port, to)| SocketPair { port, to: SocketAddr::new(host, to) };
        Some(ports.iter().zip(there.iter()).map(pair))
    }
}

/// A port of the machine, and where it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SocketPair {
    /// The port of the machine.
    pub port: u16,
    /// Where it leads.
    pub to: SocketAddr,
}

impl fmt::Display for PortForward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = if self.protocol == Protocol::Both { "tcp and udp" } else { self.protocol.as_str() };
        write!(f, "{protocol} {} to {}", self.ports, self.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(protocol: Protocol, ports: &str, to: &str) -> PortForward {
        PortForward { protocol, ports: ports.parse().unwrap(), to: to.parse().unwrap() }
    }

    #[test]
    fn ports_and_targets_are_read_and_shown() {
        for text in ["1", "80", "8000-8010", "1-65535"] {
            assert_eq!(text.parse::<Ports>().unwrap().to_string(), text);
        }
        for text in ["0", "0-9", "9-8", "", "-", "80-", "65536", "+80", " 80", "http", "1-2-3"] {
            assert!(text.parse::<Ports>().is_err(), "{text}");
        }
        for text in ["10.1.0.9", "10.1.0.9:80", "10.1.0.9:1-2", "fd00::9", "[fd00::9]:80", "[fd00::9]:1-2"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        assert_eq!("[fd00::9]".parse::<Target>().unwrap().to_string(), "fd00::9");
        for text in [
            "",
            "host",
            "host:80",
            "10.1.0.9:",
            "10.1.0.9:0",
            "10.1.0.9:80:80",
            "[10.1.0.9]:80",
            "[fd00::9]80",
            "[fd00::9",
            "127.0.0.1:80",
            "0.0.0.0:80",
            "::1",
            "::",
            "224.0.0.1:80",
            "255.255.255.255:80",
            "ff02::1",
            "fe80::1",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_range_becomes_one_of_the_same_size() {
        let misfit = |ports: &str, to: &str| forward(Protocol::Tcp, ports, to).misfit();
        for fitting in ["10.1.0.9", "10.1.0.9:8000-8010", "10.1.0.9:1-11"] {
            assert_eq!(misfit("8000-8010", fitting), None);
        }
        assert_eq!(
            misfit("8000-8010", "10.1.0.9:80").as_deref(),
            Some("8000-8010 has 11 ports, and port 80 has 1")
        );
        assert_eq!(misfit("1-65535", "10.1.0.9"), None);
        let many = misfit("1-2000", "10.1.0.9:2-2001").unwrap();
        assert_eq!(many, "at most 1024 ports can become others, not 2000");
        let moved: Vec<_> = forward(Protocol::Tcp, "80-81", "[fd00::9]:90-91").moved().unwrap().collect();
        assert_eq!(
            moved.last().map(|pair| (pair.port, pair.to.to_string())),
            Some((81, "[fd00::9]:91".into()))
        );
        assert!(forward(Protocol::Tcp, "80-81", "10.1.0.9:80-81").moved().is_none());
    }

    #[test]
    fn forwards_are_in_each_others_way_where_a_packet_is_for_both() {
        let one = forward(Protocol::Tcp, "8000-8010", "10.1.0.9");
        for (protocol, ports, to, both) in [
            (Protocol::Tcp, "8010", "10.1.0.8:80", true),
            (Protocol::Both, "7000-8000", "10.1.0.8", true),
            (Protocol::Udp, "8010", "10.1.0.8:80", false),
            (Protocol::Tcp, "8011", "10.1.0.8:80", false),
            (Protocol::Tcp, "8010", "[fd00::9]:80", false),
        ] {
            let other = forward(protocol, ports, to);
            assert_eq!((one.overlaps(&other), other.overlaps(&one)), (both, both), "{other}");
        }
    }
}
