//! An ISP: modem, DHCP and DNS server, masquerade. See [`super::fault`] for the ways in which it fails.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnet::Ipv4Net;

use super::address::{DNS, delegated6, internet4, prefix6, public4, resolver4, resolver6, transit6};
use super::delegation::{self, Delegation};
use super::fault::Gate;
use super::internet::Internet;
use super::ns::Ns;
use super::process::Daemon;
use super::relay::Relay;
use super::server::Server;

/// How an ISP serves its customer.
#[derive(Debug, Clone)]
pub struct IspSpec {
    number: u8,
    subnet: Ipv4Net,
    gateway: Ipv4Addr,
    lease: Ipv4Addr,
    ipv6: bool,
    delegates: bool,
    same_router: bool,
    dhcp: bool,
    renew: Option<u32>,
    classless: bool,
    resolvers: Option<(Ipv4Addr, Ipv6Addr)>,
}

impl IspSpec {
    /// ISP `number`, from 1: on the machine's `ethNUMBER`, 192.168.NUMBER.0/24 with gateway .254 and lease .10, DHCP, IPv4 only.
    pub fn new(number: u8) -> IspSpec {
        let subnet = Ipv4Net::new_assert(Ipv4Addr::new(192, 168, number, 0), 24);
        IspSpec {
            number,
            subnet,
            gateway: host(subnet, 254),
            lease: host(subnet, 10),
            ipv6: false,
            delegates: false,
            same_router: false,
            dhcp: true,
            renew: None,
            classless: false,
            resolvers: None,
        }
    }

    /// Another /24 at home, gateway .254 and lease .10. Two ISPs may use the same.
    pub fn subnet(self, subnet: Ipv4Net) -> IspSpec {
        IspSpec { subnet, gateway: host(subnet, 254), lease: host(subnet, 10), ..self }
    }

    /// Another lease than .10.
    pub fn lease(self, lease: Ipv4Addr) -> IspSpec {
        IspSpec { lease, ..self }
    }

    /// Announce a /64 of its own by router advertisements.
    pub fn ipv6(self) -> IspSpec {
        IspSpec { ipv6: true, ..self }
    }

    /// Announce a /64, and delegate [`delegated6`], a /56, by DHCPv6 to a client whose DUID is its hardware address (type
    /// 3) and whose link-local address is made from it.
    pub fn delegates(self) -> IspSpec {
        IspSpec { ipv6: true, delegates: true, ..self }
    }

    /// Have its router speak from fe80::1, as that of any other ISP that is told so.
    pub fn same_router(self) -> IspSpec {
        IspSpec { same_router: true, ..self }
    }

    /// No DHCP server: the machine has a static profile, or none.
    pub fn no_dhcp(self) -> IspSpec {
        IspSpec { dhcp: false, ..self }
    }

    /// Have leases renewed after so many seconds, so that a changed lease arrives by itself; 3 is the least that dnsmasq sends.
    pub fn renew_after(self, seconds: u32) -> IspSpec {
        assert!(seconds >= 3, "dnsmasq ignores renewal times below 3 s");
        IspSpec { renew: Some(seconds), ..self }
    }

    /// Tell the gateway by classless routes (DHCP option 121), and beside them a router that is nobody: .253.
    pub fn classless(self) -> IspSpec {
        IspSpec { classless: true, ..self }
    }

    /// Name resolvers on the internet instead of the modem.
    pub fn resolvers(self, v4: Ipv4Addr, v6: Ipv6Addr) -> IspSpec {
        IspSpec { resolvers: Some((v4, v6)), ..self }
    }

    /// Name the ISP's own resolvers instead of the modem: they answer its customers alone.
    pub fn own_resolvers(self) -> IspSpec {
        let number = self.number;
        self.resolvers(resolver4(number), resolver6(number))
    }

    pub(super) fn number(&self) -> u8 {
        self.number
    }

    pub(super) fn has_dhcp(&self) -> bool {
        self.dhcp
    }

    pub(super) fn has_ipv6(&self) -> bool {
        self.ipv6
    }
}

fn host(subnet: Ipv4Net, number: u8) -> Ipv4Addr {
    let [a, b, c, _] = subnet.network().octets();
    Ipv4Addr::new(a, b, c, number)
}

/// A running ISP.
#[derive(Debug)]
pub struct Isp {
    /// Where it lives.
    pub ns: Ns,
    pub(super) internet: Ns,
    pub(super) gate: Gate,
    number: u8,
    dir: PathBuf,
    _delegation: Option<Delegation>,
    state: Mutex<State>,
}

/// What changes while it runs.
#[derive(Debug)]
pub(super) struct State {
    pub(super) spec: IspSpec,
    dnsmasq: Option<Daemon>,
    pub(super) portal: Option<Server>,
    pub(super) relay: Option<Relay>,
}

impl Isp {
    /// Connect `spec`'s ISP to the internet on one side and to the machine's namespace on the other, and start serving.
    #[track_caller]
    pub(super) fn start(spec: IspSpec, internet: &Internet, machine: &Ns, dir: &Path, root: &Path) -> Isp {
        let number = spec.number;
        let ns = Ns::new(&format!("isp {number}"));
        ns.sysctl("net.ipv4.ip_forward", "1");
        ns.sysctl("net.ipv6.conf.all.forwarding", "1");
        internet.ns.ip(&format!(
            "link add isp{number} type veth peer name wan netns {}\nlink set isp{number} master core up",
            ns.path()
        ));
        ns.ip(&format!(
            "link add lan type veth peer name eth{number} address 02:77:00:00:00:{number:02x} netns {}\n",
            machine.path()
        ));
        if spec.same_router {
            ns.sysctl("net.ipv6.conf.lan.addr_gen_mode", "1");
        }
        let mut lines = format!(
            "link set lan address 02:15:00:00:00:{number:02x} up\n\
             link set wan up\n\
             addr add {}/24 dev wan\n\
             addr add {}/64 dev wan nodad\n\
             addr add {}/{} dev lan\n\
             route add default via 198.51.100.254\n\
             route add default via 2001:db8:ff00::fe\n",
            public4(number),
            transit6(number),
            spec.gateway,
            spec.subnet.prefix_len(),
        );
        if spec.ipv6 {
            lines += &format!("addr add {}/64 dev lan nodad\n", router6(number));
        }
        if spec.same_router {
            lines += "addr add fe80::1/64 dev lan nodad\n";
        }
        if spec.delegates {
            lines += &delegation::route(number);
        }
        ns.ip(&lines);
        let isp = Isp {
            gate: Gate::new(&ns),
            _delegation: spec.delegates.then(|| Delegation::start(&ns, number, dir, root)),
            internet: internet.ns.clone(),
            ns,
            number,
            dir: dir.to_owned(),
            state: Mutex::new(State { spec, dnsmasq: None, portal: None, relay: None }),
        };
        isp.ns.nft(
            "table inet gate {
                counter spoofed { }
                set spoofers_4 { typeof ip saddr . ip daddr . ip protocol; size 1024; flags dynamic; }
                set spoofers_tcp { typeof ip saddr . ip daddr . tcp dport . @th,104,8; size 1024; flags dynamic; }
                set spoofers_6 { type ipv6_addr . ipv6_addr; size 1024; flags dynamic; }
                chain customer { type filter hook forward priority -10; }
            }",
        );
        isp.serve(&mut isp.state());
        isp
    }

    /// The machine's device to this ISP.
    pub fn device(&self) -> String {
        format!("eth{}", self.number)
    }

    /// Its number, from 1.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// The address that its DHCP server leases to the machine now.
    pub fn lease(&self) -> Ipv4Addr {
        self.state().spec.lease
    }

    /// The router that it hands out now.
    pub fn gateway(&self) -> Ipv4Addr {
        self.state().spec.gateway
    }

    /// The subnet at home now.
    pub fn subnet(&self) -> Ipv4Net {
        self.state().spec.subnet
    }

    /// Its address on the internet; what arrives there is forwarded to the machine's leased address.
    pub fn public(&self) -> Ipv4Addr {
        public4(self.number)
    }

    /// Run the DHCP, RA and DNS server or stop it.
    #[track_caller]
    pub fn dhcp(&self, on: bool) {
        let mut state = self.state();
        state.dnsmasq = None;
        if on {
            self.serve(&mut state);
        }
    }

    /// Move the modem to another address in its subnet: the old one is gone, new leases name the new one. The machine learns
    /// it with its next lease: see [`Isp::blip`], [`IspSpec::renew_after`] and [`super::Machine::renew`].
    #[track_caller]
    pub fn move_gateway(&self, gateway: Ipv4Addr) {
        self.change(|spec| spec.gateway = gateway);
    }

    /// Lease another address to the machine from now on; the old one is refused.
    #[track_caller]
    pub fn renumber(&self, lease: Ipv4Addr) {
        self.change(|spec| spec.lease = lease);
    }

    /// Move to another subnet at home: gateway .254, lease .10.
    #[track_caller]
    pub fn move_subnet(&self, subnet: Ipv4Net) {
        self.change(|spec| *spec = spec.clone().subnet(subnet));
    }

    /// How many packets came from the machine with a source address that is not this ISP's: what real ISPs drop, as this does.
    #[track_caller]
    pub fn spoofed(&self) -> u64 {
        self.ns.counter("inet gate", "spoofed")
    }

    /// Who they were, and to whom, as nft lists them.
    #[track_caller]
    pub fn spoofers(&self) -> String {
        // The flags of TCP by their place: by their name nft 1.0.6 stumbles over two of them.
        self.ns.cmd(&["nft", "list", "sets", "inet"]).ok()
    }

    /// What came so far counts no more.
    #[track_caller]
    pub fn forget_spoofed(&self) {
        self.ns.cmd(&["nft", "reset", "counter", "inet", "gate", "spoofed"]).ok();
        self.ns.nft("flush set inet gate spoofers_4; flush set inet gate spoofers_tcp; flush set inet gate spoofers_6");
    }

    /// Fails where there was any such packet.
    #[track_caller]
    pub fn not_spoofed(&self, what: &str) {
        let (number, count) = (self.number, self.spoofed());
        assert_eq!(count, 0, "{what}: by ISP {number} with another's address: {}", self.spoofers());
    }

    /// Its own, and that of its slow wire.
    pub(super) fn namespaces(&self) -> Vec<Ns> {
        let wire = self.state().relay.as_ref().map(|relay| relay.ns.clone());
        [self.ns.clone()].into_iter().chain(wire).collect()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[track_caller]
    fn change(&self, change: impl FnOnce(&mut IspSpec)) {
        let mut state = self.state();
        state.dnsmasq = None;
        let old = (state.spec.gateway, state.spec.subnet.prefix_len());
        change(&mut state.spec);
        let new = (state.spec.gateway, state.spec.subnet.prefix_len());
        if old != new {
            self.ns
                .ip(&format!("addr add {}/{} dev lan\naddr del {}/{} dev lan\n", new.0, new.1, old.0, old.1));
            // A second address of one subnet goes with the first unless it is promoted.
            self.ns.ip(&format!("addr replace {}/{} dev lan\n", new.0, new.1));
        }
        self.serve(&mut state);
    }

    /// Load the packet filter and start dnsmasq as the specification says now.
    #[track_caller]
    fn serve(&self, state: &mut State) {
        let spec = &state.spec;
        // An offer of the other ISP's that reaches a machine ahead of its address is forwarded as any packet, and is no spoof.
        self.ns.nft(&format!(
            "table ip isp {{ }}
            delete table ip isp
            table ip isp {{
                chain inbound {{ type nat hook prerouting priority dstnat;
                    iifname wan ip daddr {public} dnat to {lease}; }}
                chain outbound {{ type nat hook postrouting priority srcnat;
                    oifname wan snat to {public}; }}
            }}
            flush chain inet gate customer
            add rule inet gate customer iifname lan udp sport 67 udp dport 68 drop
            add rule inet gate customer iifname lan ip saddr != {subnet} update @spoofers_tcp {{ ip saddr . ip daddr . tcp dport . @th,104,8 }}
            add rule inet gate customer iifname lan ip saddr != {subnet} counter name spoofed update @spoofers_4 {{ ip saddr . ip daddr . ip protocol }} drop
            add rule inet gate customer iifname lan ip6 saddr != {{ {prefix}/63, {delegated}, fe80::/10 }} counter name spoofed update @spoofers_6 {{ ip6 saddr . ip6 daddr }} drop
            ",
            prefix = prefix6(self.number),
            delegated = delegated6(self.number),
            public = public4(self.number),
            lease = spec.lease,
            subnet = spec.subnet,
        ));
        let file = |what: &str| self.dir.join(format!("isp{}.{what}", self.number));
        let mut dnsmasq = Command::new("dnsmasq");
        dnsmasq
            .args(["--keep-in-foreground", "--user=root", "--group=root", "--conf-file=/dev/null"])
            .args(["--no-resolv", "--no-hosts", "--cache-size=0", "--no-ping", "--interface=lan"])
            .arg(format!("--pid-file={}", file("pid").display()))
            .arg(format!("--log-facility={}", file("log").display()))
            .arg(format!("--server={}", internet4(DNS)));
        // [::] stands for the modem itself.
        let (resolver4, resolver6) = spec.resolvers.unwrap_or((spec.gateway, Ipv6Addr::UNSPECIFIED));
        // Who has met no server asks again after half of what is left (RFC 2131, 4.4.5); this is dnsmasq's shortest.
        let lasts = if spec.renew.is_some() { "2m" } else { "1h" };
        let router = if spec.classless { host(spec.subnet, 253) } else { spec.gateway };
        if spec.dhcp {
            dnsmasq
                .args(["--dhcp-authoritative", "--dhcp-ignore-clid", "--log-dhcp"])
                .arg(format!("--dhcp-leasefile={}", file("leases").display()))
                .arg(format!(
                    "--dhcp-range={},static,{},{lasts}",
                    spec.subnet.network(),
                    spec.subnet.netmask()
                ))
                .arg(format!("--dhcp-host=02:77:00:00:00:{:02x},{}", self.number, spec.lease))
                .arg(format!("--dhcp-option=option:router,{router}"))
                .arg(format!("--dhcp-option=option:dns-server,{resolver4}"));
            if spec.classless {
                dnsmasq.arg(format!("--dhcp-option=121,10.9.0.0/16,{router},0.0.0.0/0,{}", spec.gateway));
            }
            if let Some(seconds) = spec.renew {
                // The server may have moved meanwhile, so the client is to ask everybody right after asking it.
                dnsmasq
                    .arg(format!("--dhcp-option=option:T1,{seconds}"))
                    .arg(format!("--dhcp-option=option:T2,{}", seconds + 1));
            }
        }
        if spec.ipv6 {
            dnsmasq
                .arg("--enable-ra")
                .arg(format!("--dhcp-option=option6:dns-server,[{resolver6}]"))
                .arg("--dhcp-range=::,constructor:lan,ra-only,64,1h");
        }
        state.dnsmasq = Some(self.ns.daemon(&dnsmasq));
    }
}

/// The ISP's router address in the /64 that it announces.
pub(super) fn router6(number: u8) -> Ipv6Addr {
    let [a, b, c, ..] = prefix6(number).segments();
    Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0xfe)
}

impl From<&Isp> for IpAddr {
    fn from(isp: &Isp) -> IpAddr {
        isp.public().into()
    }
}
