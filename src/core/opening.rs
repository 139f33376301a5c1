//! What a firewall lets in.

use std::fmt;
use std::str::FromStr;

use super::forward::Ports;

/// Something of the machine's own that visitors reach from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// Ports of TCP.
    Tcp(Ports),
    /// Ports of UDP.
    Udp(Ports),
    /// Another protocol of IP.
    Protocol(Tunnel),
}

/// A protocol without ports that carries a tunnel (linux/in.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tunnel {
    /// IPsec's encryption.
    Esp,
    /// IPsec's authentication.
    Ah,
    /// Generic routing encapsulation.
    Gre,
}

impl Tunnel {
    const ALL: [Tunnel; 3] = [Tunnel::Esp, Tunnel::Ah, Tunnel::Gre];

    /// Its word, which is that of nftables as well.
    pub fn as_str(self) -> &'static str {
        match self {
            Tunnel::Esp => "esp",
            Tunnel::Ah => "ah",
            Tunnel::Gre => "gre",
        }
    }
}

impl Opening {
    /// What is one, for error messages.
    pub const ALLOWED: &str = "tcp: or udp: with a port or a range of ports, like \"tcp:22\" or \"udp:5000-5010\"; or esp, ah, gre; \
                               or a list of these";
}

impl FromStr for Opening {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.split_once(':') {
            Some(("tcp", ports)) => ports.parse().map(Opening::Tcp),
            Some(("udp", ports)) => ports.parse().map(Opening::Udp),
            Some(_) => Err(()),
            None => Tunnel::ALL.into_iter().find(|one| one.as_str() == text).map(Opening::Protocol).ok_or(()),
        }
    }
}

impl fmt::Display for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Opening::Tcp(ports) => write!(f, "tcp:{ports}"),
            Opening::Udp(ports) => write!(f, "udp:{ports}"),
            Opening::Protocol(tunnel) => f.write_str(tunnel.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openings_are_read_and_shown() {
        for text in ["tcp:22", "udp:5000-5010", "esp", "ah", "gre"] {
            assert_eq!(text.parse::<Opening>().unwrap().to_string(), text);
        }
        for text in
            ["", "22", "tcp", "tcp:", "tcp:0", "tcp:ssh", "icmp", "sctp:1", "esp:1", "TCP:22", "tcp:22 "]
        {
            assert!(text.parse::<Opening>().is_err(), "{text}");
        }
    }
}
