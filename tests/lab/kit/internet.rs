//! The internet: one namespace behind all ISPs.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use super::address::{
    BULK, DESTINATIONS, DOMAIN, ECHO, FLOOD, HTTP, HTTPS, RESOLVERS4, RESOLVERS6, internet4, internet6,
    prefix6, public4, resolver4, resolver6, transit6, web4, web6,
};
use super::ns::Ns;
use super::server::{Server, Service};
use super::socket::Via;

/// The servers, at every address.
const SERVERS: [(u16, Service); 6] = [
    (ECHO, Service::Echo),
    (BULK, Service::Bulk),
    (FLOOD, Service::Flood),
    (HTTP, Service::Http),
    (HTTPS, Service::Close),
    (DOMAIN, Service::Dns),
];

/// Sorts out what is unreachable. Neighbours are always found, so that nothing comes back as "host unreachable".
const OUTAGES: &str = "table inet outage {
    set gone4 { type ipv4_addr; }
    set gone6 { type ipv6_addr; }
    counter strangers { }
    chain customers { type filter hook prerouting priority -310; }
    chain core { }
    chain in { type filter hook prerouting priority -300;
        ip daddr @gone4 drop
        ip6 daddr @gone6 drop
        jump core
    }
    chain out { type filter hook postrouting priority 0;
        ip saddr @gone4 drop
        ip6 saddr @gone6 drop
        jump core
    }
}";

/// The internet: many addresses, those of well-known resolvers among them, and servers at all of them.
#[derive(Debug)]
pub struct Internet {
    /// Where it lives.
    pub ns: Ns,
    servers: Vec<Server>,
}

impl Internet {
    /// Bring it up for ISPs 1 to `isps`.
    #[track_caller]
    pub fn start(isps: u8) -> Internet {
        let ns = Ns::new("internet");
        ns.sysctl("net.ipv4.ip_forward", "1");
        ns.sysctl("net.ipv6.conf.all.forwarding", "1");
        let mut lines = String::from("link add core type bridge forward_delay 0 mcast_snooping 0\n");
        lines += "link set core address 02:00:00:00:ff:fe up\n";
        lines += "addr add 198.51.100.254/24 dev core\n";
        lines += "addr add 2001:db8:ff00::fe/64 dev core nodad\n";
        addresses().for_each(|address| lines += &address_line(address));
        for isp in 1..=isps {
            lines += &format!("route add {}/48 via {}\n", prefix6(isp), transit6(isp));
            lines += &address_line(resolver4(isp).into());
            lines += &address_line(resolver6(isp).into());
        }
        ns.ip(&lines);
        ns.nft(OUTAGES);
        (1..=isps).for_each(|isp| ns.nft(&customers_only(isp)));
        let servers = SERVERS.into_iter().map(|(port, service)| Server::start(&ns, port, service)).collect();
        Internet { servers, ns }
    }

    /// Answer at one more address; nothing new where it does already.
    #[track_caller]
    pub fn add_address(&self, address: impl Into<IpAddr>) {
        self.ns.ip(&address_line(address.into()));
    }

    /// How many packets to the ISPs' own resolvers came from somebody else's customers, and were dropped.
    #[track_caller]
    pub fn strangers(&self) -> u64 {
        self.ns.counter("inet outage", "strangers")
    }

    /// Cut all of it off, for every ISP at once, or bring it back.
    #[track_caller]
    pub fn gone(&self, on: bool) {
        let rules = if on {
            "add rule inet outage core icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
            add rule inet outage core iifname core drop
            add rule inet outage core oifname core drop"
        } else {
            ""
        };
        self.ns.nft(&format!("flush chain inet outage core\n{rules}\n"));
    }

    /// Have the host at one address stop answering, whoever asks, or answer again: an outage at its operator's.
    #[track_caller]
    pub fn outage(&self, address: impl Into<IpAddr>, on: bool) {
        let address = address.into();
        let set = if address.is_ipv4() { "gone4" } else { "gone6" };
        let element = format!("element inet outage {set} {{ {address} }}\n");
        // What is not there cannot be deleted, so it is added first.
        let delete = if on { String::new() } else { format!("delete {element}") };
        self.ns.nft(&format!("add {element}{delete}"));
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

/// Has an ISP's resolver hear that ISP's customers alone.
fn customers_only(isp: u8) -> String {
    format!(
        "add rule inet outage customers ip daddr {} ip saddr != {} counter name strangers drop
        add rule inet outage customers ip6 daddr {} ip6 saddr != {}/48 counter name strangers drop\n",
        resolver4(isp),
        public4(isp),
        resolver6(isp),
        prefix6(isp),
    )
}

/// All addresses that it answers at from the start.
fn addresses() -> impl Iterator<Item = IpAddr> {
    let numbered = (1..=DESTINATIONS).flat_map(|n| [IpAddr::from(internet4(n)), internet6(n).into()]);
    let resolvers = RESOLVERS4.into_iter().map(IpAddr::from).chain(RESOLVERS6.into_iter().map(IpAddr::from));
    numbered.chain([web4().into(), web6().into()]).chain(resolvers)
}

fn address_line(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("addr replace {address}/32 dev lo\n"),
        IpAddr::V6(address) => format!("addr replace {address}/128 dev lo nodad\n"),
    }
}
