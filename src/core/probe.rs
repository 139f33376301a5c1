//! What can be asked to find out whether an uplink reaches the internet: the value, its text form, the defaults.
//!
//! Decides what is a well-formed question and which are asked unless told otherwise. Refuses to know how a question
//! is asked, when, and what an answer means for the uplink.

mod parse;
mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;

pub use parse::Invalid;
pub use table::{defaults, is_public_resolver, portal_checks, public_resolver};

use super::net::Family;

/// One question to the internet, or to whoever stands before it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Probe {
    /// An echo request (RFC 792, RFC 4443).
    Icmp(Host),
    /// A connection to a port that is closed again at once.
    Tcp(Host, u16),
    /// A DNS query over UDP.
    Dns {
        /// Whom to ask.
        server: IpAddr,
        /// For which name; `.` asks for the servers of the root.
        name: String,
    },
    /// A page, fetched.
    Http {
        /// Where it is.
        url: Url,
        /// What it is like when nobody else answers in its place.
        expect: Expect,
    },
    /// Neighbour discovery of the gateway: ARP (RFC 826), or ND in IPv6 (RFC 4861).
    Gateway,
    /// A program, of which the exit status counts.
    Command {
        /// Its absolute path.
        program: String,
        /// Its arguments, without blanks.
        args: Vec<String>,
    },
}

/// Whom to ask.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// An address.
    Ip(IpAddr),
    /// A name that has yet to be resolved (RFC 1123, section 2.1; underscores are let through).
    Name(String),
}

/// The parts of an `http` or `https` address that matter here (RFC 3986; no user, no fragment).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Url {
    /// Whether it is `https`.
    pub secure: bool,
    /// The server.
    pub host: Host,
    /// Its TCP port.
    pub port: u16,
    /// What to ask it for, from the first `/` on, with the query.
    pub path: String,
}

/// What a page is like when it is the one that was asked for. Nothing said: any status of 2xx, any body.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Expect {
    /// This very status (RFC 9110, section 15) instead of any 2xx.
    pub status: Option<u16>,
    /// All of the body, but for white space around it.
    pub body: Option<String>,
}

/// The protocol of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// ICMP echo.
    Icmp,
    /// TCP.
    Tcp,
    /// DNS over UDP.
    Dns,
    /// HTTP, with or without TLS.
    Http,
    /// ARP or neighbour discovery.
    Gateway,
    /// A program.
    Command,
}

impl Probe {
    /// The family of a literal address; none where either will do.
    pub fn family(&self) -> Option<Family> {
        match self {
            Probe::Icmp(host) | Probe::Tcp(host, _) | Probe::Http { url: Url { host, .. }, .. } => {
                host.family()
            }
            Probe::Dns { server, .. } => Some(Family::of(*server)),
            Probe::Gateway | Probe::Command { .. } => None,
        }
    }

    /// Its protocol.
    pub fn kind(&self) -> Kind {
        match self {
            Probe::Icmp(_) => Kind::Icmp,
            Probe::Tcp(..) => Kind::Tcp,
            Probe::Dns { .. } => Kind::Dns,
            Probe::Http { .. } => Kind::Http,
            Probe::Gateway => Kind::Gateway,
            Probe::Command { .. } => Kind::Command,
        }
    }
}

impl Host {
    /// The family of a literal address; none for a name.
    pub fn family(&self) -> Option<Family> {
        match self {
            Host::Ip(ip) => Some(Family::of(*ip)),
            Host::Name(_) => None,
        }
    }

    /// The host as it stands ahead of a port: IPv6 in brackets (RFC 3986, section 3.2.2).
    fn bracketed(&self) -> String {
        match self {
            Host::Ip(IpAddr::V6(ip)) => format!("[{ip}]"),
            other => other.to_string(),
        }
    }
}

impl Url {
    /// The port of a scheme, which need not be written.
    pub(super) fn usual_port(secure: bool) -> u16 {
        if secure { 443 } else { 80 }
    }

    /// What the header field `Host` says: the server, and the port where it is not the usual one (RFC 9110, 7.2).
    pub fn authority(&self) -> String {
        match self.port == Self::usual_port(self.secure) {
            true => self.host.bracketed(),
            false => format!("{}:{}", self.host.bracketed(), self.port),
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Probe::Icmp(host) => write!(f, "icmp:{host}"),
            Probe::Tcp(host, port) => write!(f, "tcp:{}:{port}", host.bracketed()),
            Probe::Dns { server, name } if name == "." => write!(f, "dns:{server}"),
            Probe::Dns { server, name } => write!(f, "dns:{server}/{name}"),
            Probe::Http { url, expect } => write!(f, "{url}{expect}"),
            Probe::Gateway => f.write_str("arp"),
            Probe::Command { program, args } => {
                write!(f, "command:{program}")?;
                args.iter().try_for_each(|arg| write!(f, " {arg}"))
            }
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Ip(ip) => ip.fmt(f),
            Host::Name(name) => name.fmt(f),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

/// With a blank ahead of each word.
impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(status) = self.status {
            write!(f, " status={status}")?;
        }
        // Last, because its blanks belong to it.
        self.body.as_ref().map_or(Ok(()), |body| write!(f, " body={body}"))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Icmp => "icmp",
            Kind::Tcp => "tcp",
            Kind::Dns => "dns",
            Kind::Http => "http",
            Kind::Gateway => "arp",
            Kind::Command => "command",
        })
    }
}
