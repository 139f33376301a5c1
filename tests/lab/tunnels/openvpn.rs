//! OpenVPN, client and server both real.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::{
    CARRIER, LONG, Outer, SILENT, UP, Vpn, balanced, both_orders, doors, holds, no_uplink, outlives, ready,
    router, spec,
};
use crate::ctl::ours;
use crate::kit::address::{ECHO, internet4};
use crate::kit::process::Daemon;
use crate::kit::{HeldTcp, Lab, Via, lab_or_skip};

/// Keys of these tests, valid to 2120; each side knows the other by the fingerprint of its certificate.
const SERVER_KEY: &str = include_str!("keys/server.pem");
const CLIENT_KEY: &str = include_str!("keys/client.pem");
const SERVER_PRINT: &str =
    "44:45:96:40:CD:BC:B7:DD:AA:7C:E2:56:28:B0:99:A6:79:FB:DF:18:6F:A3:EF:6D:30:65:85:C2:E8:59:70:38";
const CLIENT_PRINT: &str =
    "2B:85:B6:18:45:22:9A:33:09:78:0D:95:E3:22:0A:37:EF:15:87:EA:FC:0A:55:3B:29:04:A6:1F:61:1B:9C:1E";

const PORT: u16 = 1194;
/// Where no test sends anything else to: the route to the server takes that out of the tunnel.
const SERVER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 60);
/// The server's address in the tunnel.
const FAR: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 1);

/// A server on the internet, and a client in the machine that Debian's unit runs.
struct OpenVpn {
    protocol: &'static str,
    _server: Daemon,
}

impl OpenVpn {
    /// Over `udp` or `tcp`; `redirect` is what the server has the client do with its default route.
    fn new(lab: &Lab, protocol: &'static str, redirect: &str) -> OpenVpn {
        let server_end = if protocol == "tcp" { "tcp-server" } else { "udp" };
        let client_end = if protocol == "tcp" { "tcp-client" } else { "udp" };
        lab.machine.write(
            "/root/server.conf",
            &format!(
                "local {SERVER}\nport {PORT}\nproto {server_end}\ndev tuns\ndev-type tun\ntopology subnet\n\
                 server 10.8.0.0 255.255.255.0\nkeepalive 2 10\ndh none\n{redirect}\n{SERVER_KEY}\
                 <peer-fingerprint>\n{CLIENT_PRINT}\n</peer-fingerprint>\nverb 3\n"
            ),
        );
        lab.machine.write(
            "/etc/openvpn/client/lab.conf",
            &format!(
                "client\nremote {SERVER} {PORT}\nproto {client_end}\ndev tun0\nnobind\npersist-key\npersist-tun\n\
                 connect-timeout 5\nconnect-retry 1 4\n{CLIENT_KEY}\
                 <peer-fingerprint>\n{SERVER_PRINT}\n</peer-fingerprint>\nverb 4\n"
            ),
        );
        lab.internet.add_address(SERVER);
        let server = ["openvpn", "--config", "/root/server.conf", "--log", "/root/server.log"];
        OpenVpn { protocol, _server: lab.machine.daemon_at(&lab.internet.ns, &server) }
    }
}

impl Vpn for OpenVpn {
    const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 2);

    fn device(&self) -> &str {
        "tun0"
    }

    fn outer(&self) -> Outer {
        Outer { protocol: self.protocol, server: SERVER, port: PORT }
    }

    fn connect(&self, lab: &Lab) {
        lab.machine.cmd(&["systemctl", "start", "openvpn-client@lab"]).ok();
        let through = || lab.machine.cmd(&["ping", "-c1", "-W1", &FAR.to_string()]).success().then_some(());
        lab.machine.wait("OpenVPN", UP, through);
        let log = || lab.machine.journal("openvpn-client@lab");
        lab.machine
            .wait("its routes", UP, || log().contains("Initialization Sequence Completed").then_some(()));
    }

    fn disconnect(&self, lab: &Lab) {
        lab.machine.cmd(&["systemctl", "stop", "openvpn-client@lab"]).ok();
        let gone = || (!lab.machine.cmd(&["ip", "link", "show", "dev", "tun0"]).success()).then_some(());
        lab.machine.wait("no tun0", UP, gone);
    }
}

const DEF1: &str = "push \"redirect-gateway def1\"";

#[test]
fn two_halves_of_openvpn_hold_in_both_orders() {
    let lab = lab_or_skip!(spec());
    router(&lab);
    let vpn = OpenVpn::new(&lab, "udp", DEF1);
    both_orders(&lab, &vpn, "OpenVPN, def1");
}

#[test]
fn a_default_of_openvpn_holds_in_both_orders() {
    let lab = lab_or_skip!(spec());
    router(&lab);
    let vpn = OpenVpn::new(&lab, "udp", "push \"redirect-gateway\"");
    vpn.connect(&lab);
    ready(&lab);
    holds(&lab, &vpn, "OpenVPN, its default before uplinkd");
    vpn.disconnect(&lab);
    balanced(&lab);
    vpn.connect(&lab);
    holds(&lab, &vpn, "OpenVPN, its default after uplinkd");
    // It leaves the default that it found without the metric that it had.
    vpn.disconnect(&lab);
    balanced(&lab);
}

#[test]
fn a_split_tunnel_of_openvpn_takes_only_its_own() {
    let lab = lab_or_skip!(spec());
    router(&lab);
    ready(&lab);
    let far = internet4(61);
    lab.internet.add_address(far);
    let vpn = OpenVpn::new(&lab, "udp", &format!("push \"route {far} 255.255.255.255\""));
    vpn.connect(&lab);
    balanced(&lab);
    doors(&lab);
    no_uplink(&lab, &vpn);
    for ns in [lab.machine.netns(), &lab.client().ns] {
        let inside = HeldTcp::connect(ns, &Via::any(), (far, ECHO).into()).expect("connects");
        assert_eq!(inside.seen, std::net::IpAddr::from(OpenVpn::INSIDE));
    }
    vpn.disconnect(&lab);
    balanced(&lab);
}

#[test]
fn openvpn_over_udp_outlives_its_uplink() {
    let lab = lab_or_skip!(spec());
    router(&lab);
    ready(&lab);
    let vpn = OpenVpn::new(&lab, "udp", DEF1);
    vpn.connect(&lab);
    for death in [SILENT, CARRIER, LONG] {
        outlives(&lab, &vpn, death, Duration::from_secs(15));
    }
    vpn.disconnect(&lab);
    lab.machine.wait("ours alone", UP, || (!ours(&lab.machine).contains("to 203")).then_some(()));
    balanced(&lab);
}

#[test]
fn openvpn_over_tcp_outlives_its_uplink() {
    let lab = lab_or_skip!(spec());
    router(&lab);
    ready(&lab);
    let vpn = OpenVpn::new(&lab, "tcp", DEF1);
    vpn.connect(&lab);
    for death in [SILENT, CARRIER] {
        outlives(&lab, &vpn, death, Duration::from_secs(30));
    }
}
