//! What was known of a gateway, for as long as the kernel has lost sight of it.
//!
//! By its hardware address two interfaces are seen to lead into one LAN. The kernel forgets that of a gateway which is
//! silent for a moment, or that nobody spoke to for long; it is still the same gateway while the link stays.

use super::net::Family;
use super::observed::{Link, Neighbour, Observed};
use super::uplink::{Gateway, Leg, Uplink};

/// Adds to what was observed the gateways that were met when the uplinks were last looked at, and whose links have
/// stayed.
pub fn recall(observed: &mut Observed, last: &[Uplink]) {
    let mut recalled = Vec::new();
    for uplink in last {
        let stays = |leg: &Leg| {
            let there = |l: &Link| l.index == uplink.dev.index && l.up && l.carrier;
            leg.link && observed.links.iter().any(there)
        };
        for leg in Family::BOTH.map(|family| &uplink.legs[family]).into_iter().filter(|leg| stays(leg)) {
            let known = leg.gateway.and_then(Gateway::ip).zip(leg.gateway_mac);
            recalled.extend(known.map(|(ip, mac)| Neighbour { dev: uplink.dev.index, ip, mac }));
        }
    }
    let seen = |n: &Neighbour| observed.neighbours.iter().any(|o| (o.dev, o.ip) == (n.dev, n.ip));
    recalled.retain(|neighbour| !seen(neighbour));
    observed.neighbours.extend(recalled);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::net::{IfIndex, IfName, MacAddr};

    fn uplink(link: bool) -> Uplink {
        let leg = Leg {
            link,
            gateway: Some(Gateway::Via("192.168.1.1".parse().unwrap())),
            gateway_mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
            ..Leg::default()
        };
        Uplink::example(1, leg)
    }

    fn seen(carrier: bool, neighbour: Option<u8>) -> Observed {
        let link = Link {
            index: IfIndex(2),
            name: IfName::new("eth1").unwrap(),
            kind: None,
            arphrd: 1,
            mac: None,
            up: true,
            carrier,
            controller: None,
            mtu: 1500,
        };
        let of = |n| Neighbour {
            dev: IfIndex(2),
            ip: "192.168.1.1".parse().unwrap(),
            mac: MacAddr([2, 0, 0, 0, 0, n]),
        };
        Observed {
            links: vec![link],
            neighbours: neighbour.map(of).into_iter().collect(),
            ..Observed::default()
        }
    }

    #[test]
    fn a_gateway_is_known_for_as_long_as_its_link_stays() {
        let macs = |mut observed: Observed, last: &[Uplink]| {
            recall(&mut observed, last);
            observed.neighbours.iter().map(|n| n.mac.0[5]).collect::<Vec<_>>()
        };
        assert_eq!(macs(seen(true, None), &[uplink(true)]), [1]);
        assert_eq!(macs(seen(true, Some(9)), &[uplink(true)]), [9], "what is seen counts");
        // The cable was out: it may be in another box now.
        assert_eq!(macs(seen(false, None), &[uplink(true)]), [0; 0]);
        assert_eq!(macs(seen(true, None), &[uplink(false)]), [0; 0]);
        assert_eq!(macs(Observed::default(), &[uplink(true)]), [0; 0]);
    }
}
