//! The internet: one namespace behind all ISPs.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::address::{BULK, DESTINATIONS, ECHO, FLOOD, HTTP, internet4, internet6, prefix6, transit6};
use super::ns::Ns;
use super::process::Daemon;
use super::server::{Server, Service};
use super::socket::Via;

/// The internet: many addresses, servers at all of them, and a DNS that knows every name.
#[derive(Debug)]
pub struct Internet {
    /// Where it lives.
    pub ns: Ns,
    servers: Vec<Server>,
    _dns: Daemon,
}

impl Internet {
    /// Bring it up for ISPs 1 to `isps`; `dir` holds what its DNS server writes.
    #[track_caller]
    pub fn start(isps: u8, dir: &Path) -> Internet {
        let ns = Ns::new("internet");
        ns.sysctl("net.ipv4.ip_forward", "1");
        ns.sysctl("net.ipv6.conf.all.forwarding", "1");
        let mut lines = String::from("link add core type bridge forward_delay 0 mcast_snooping 0\n");
        lines += "link set core address 02:00:00:00:ff:fe up\n";
        lines += "addr add 198.51.100.254/24 dev core\n";
        lines += "addr add 2001:db8:ff00::fe/64 dev core nodad\n";
        for n in 1..=DESTINATIONS {
            lines += &format!("addr add {}/32 dev lo\n", internet4(n));
            lines += &format!("addr add {}/128 dev lo nodad\n", internet6(n));
        }
        for isp in 1..=isps {
            lines += &format!("route add {}/48 via {}\n", prefix6(isp), transit6(isp));
        }
        ns.ip(&lines);
        let servers =
            [(ECHO, Service::Echo), (BULK, Service::Bulk), (FLOOD, Service::Flood), (HTTP, Service::Http)];
        let mut dns = Command::new("dnsmasq");
        dns.args(["--keep-in-foreground", "--user=root", "--group=root", "--conf-file=/dev/null"])
            .args(["--no-resolv", "--no-hosts", "--cache-size=0"])
            .arg(format!("--pid-file={}", dir.join("internet.pid").display()))
            .arg("--log-facility=/dev/null")
            .arg(format!("--address=/#/{}", internet4(1)))
            .arg(format!("--address=/#/{}", internet6(1)));
        Internet {
            servers: servers.into_iter().map(|(port, service)| Server::start(&ns, port, service)).collect(),
            _dns: ns.daemon(&dns),
            ns,
        }
    }

    /// Answer at one more address, such as that of a well-known resolver.
    #[track_caller]
    pub fn add_address(&self, address: impl Into<IpAddr>) {
        match address.into() {
            IpAddr::V4(address) => self.ns.ip(&format!("addr add {address}/32 dev lo")),
            IpAddr::V6(address) => self.ns.ip(&format!("addr add {address}/128 dev lo nodad")),
        }
    }

    /// Open a connection from the internet, as a visitor of a server behind an ISP would.
    pub fn connect(&self, to: SocketAddr, timeout: Duration) -> std::io::Result<TcpStream> {
        self.ns.run(|| Via::any().tcp(to, timeout))
    }

    /// Close every connection to the internet's servers.
    pub fn hang_up(&self) {
        self.servers.iter().for_each(Server::hang_up);
    }
}
