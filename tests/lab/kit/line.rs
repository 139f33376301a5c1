//! A line that is dialled, as PPPoE and LTE are: a device with one other end, made anew with each session.
//!
//! The kernels that tests run on have no PPP. Two tun devices stand in for it, with a program between them that moves
//! their packets; one is moved to the ISP's namespace. So the machine's end is a tun named `ppp0`, which the configuration
//! has to name; all else is as with PPP: no gateway, a default route into the link, a small MTU, another index and, if one
//! likes, another address after each redial.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::address::{prefix6, public4};
use super::lab::Lab;
use super::process::{Daemon, wait};

const PROGRAM: &str = include_str!("line.py");

/// The machine's end.
pub const DEVICE: &str = "ppp0";
/// What fits into Ethernet beside the 8 bytes of PPPoE (RFC 2516).
pub const MTU: u32 = 1492;
/// The ISP's end.
const PEER: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 1);

/// A session.
#[derive(Debug)]
pub struct Line {
    isp: u8,
    _program: Daemon,
}

impl Line {
    /// Dial in with ISP `isp` and be given `address`, and an IPv6 address of the ISP's prefix. The machine gets the default
    /// routes that pppd would make.
    #[track_caller]
    pub fn dial(lab: &Lab, isp: u8, address: Ipv4Addr) -> Line {
        lab.machine.write("/root/line.py", PROGRAM);
        let program = lab.machine.daemon(&["python3", "/root/line.py", DEVICE, "far"]);
        let (machine, provider) = (lab.machine.netns(), &lab.isp(isp).ns);
        wait("both ends of the line", Duration::from_secs(10), || {
            machine.cmd(&["ip", "link", "show", "far"]).success().then_some(())
        });
        machine.ip(&format!("link set far netns {}\n", provider.path()));
        let six = ipv6(isp);
        provider.ip(&format!(
            "link set far name line mtu {MTU} up\n\
             addr add {PEER} peer {address}/32 dev line\n\
             route replace {six}/128 dev line\n"
        ));
        admit(lab, isp, address);
        machine.ip(&format!(
            "link set {DEVICE} mtu {MTU} up\n\
             addr add {address} peer {PEER}/32 dev {DEVICE}\n\
             addr add {six}/64 dev {DEVICE} nodad\n\
             route add default dev {DEVICE} scope link metric 200\n\
             route add ::/0 dev {DEVICE} metric 200\n"
        ));
        Line { isp, _program: program }
    }

    /// Be given another address while the session stays.
    #[track_caller]
    pub fn renumber(&self, lab: &Lab, old: Ipv4Addr, new: Ipv4Addr) {
        lab.isp(self.isp)
            .ns
            .ip(&format!("addr add {PEER} peer {new}/32 dev line\naddr del {PEER} peer {old}/32 dev line\n"));
        admit(lab, self.isp, new);
        lab.machine.netns().ip(&format!(
            "addr del {old} peer {PEER}/32 dev {DEVICE}\naddr add {new} peer {PEER}/32 dev {DEVICE}\n\
             route replace default dev {DEVICE} scope link metric 200\n"
        ));
    }

    /// Hang up: the device is gone, on both ends.
    #[track_caller]
    pub fn hang_up(self, lab: &Lab) {
        lab.machine.netns().ip(&format!("link del {DEVICE}\n"));
        let provider = &lab.isp(self.isp).ns;
        wait("the end of the line at the ISP", Duration::from_secs(10), || {
            (!provider.cmd(&["ip", "link", "show", "line"]).success()).then_some(())
        });
    }

    /// How many packets came with another source than the one that was given for this session.
    #[track_caller]
    pub fn strays(&self, lab: &Lab) -> u64 {
        let text = lab.isp(self.isp).ns.cmd(&["nft", "list", "counter", "ip", "line", "strays"]).ok();
        let mut words = text.split_whitespace().skip_while(|word| *word != "packets");
        words.nth(1).and_then(|number| number.parse().ok()).expect("nft prints the counter")
    }
}

/// Let this address of the customer's through, and no other; visitors are led to it.
#[track_caller]
fn admit(lab: &Lab, isp: u8, address: Ipv4Addr) {
    lab.isp(isp).ns.nft(&format!(
        "table ip line {{ }}
        delete table ip line
        table ip line {{
            counter strays {{ }}
            chain inbound {{ type nat hook prerouting priority dstnat - 1;
                iifname wan ip daddr {} dnat to {address}; }}
            chain customer {{ type filter hook forward priority -10;
                iifname line ip saddr != {address} counter name strays drop; }}
        }}",
        public4(isp)
    ));
}

/// The machine's IPv6 address on the line.
pub fn ipv6(isp: u8) -> Ipv6Addr {
    let [a, b, c, ..] = prefix6(isp).segments();
    Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0x10)
}
