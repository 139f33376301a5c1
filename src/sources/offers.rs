//! What DHCP clients without a bus were offered: dhclient's and dhcpcd's, by way of their hooks.
//!
//! The second of two dhclients cannot add its default route, as there is one already, and then nothing in the kernel
//! tells its gateway. So a hook of ours writes what was offered into a file for each interface, as root. The text came
//! from the network and is believed in nothing: an offer counts only while its address is on the interface, so one
//! that was left behind by a client that died is worth nothing.

use std::fs::{self, File};
use std::io::Read;
use std::net::Ipv4Addr;
use std::path::Path;

use crate::core::net::IfName;
use crate::core::observed::Offer;

/// Where the hook writes. The folder is root's, unlike the daemon's own.
pub const FOLDER: &str = "/run/uplinkd-offers";
/// An offer is one line of addresses; a longer file is none of the hook's.
const LONGEST: u64 = 4096;

/// Every offer. A file that cannot be read or makes no sense is none.
pub fn read(folder: &Path) -> Vec<Offer> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut offers: Vec<_> = entries
        .filter_map(|entry| {
            let interface = IfName::new(entry.file_name().to_str()?)?;
            let mut text = String::new();
            File::open(entry.path()).ok()?.take(LONGEST).read_to_string(&mut text).ok()?;
            offer(interface, &text)
        })
        .collect();
    offers.sort_by(|a, b| a.interface.cmp(&b.interface));
    offers
}

/// `ADDRESS ROUTER …`, the best router first (RFC 2132, 3.5).
fn offer(interface: IfName, text: &str) -> Option<Offer> {
    let mut addresses = text.split_ascii_whitespace().map(|word| word.parse::<Ipv4Addr>().ok());
    let (address, router) = (addresses.next()??, addresses.next()??);
    let is_host = |ip: Ipv4Addr| !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast();
    (is_host(router) && router != address).then(|| Offer {
        interface,
        address: address.into(),
        router: router.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::folder::Folder;

    fn router(text: &str) -> Option<String> {
        offer(IfName::new("eth2")?, text).map(|offer| offer.router.to_string())
    }

    #[test]
    fn the_first_router_counts() {
        assert_eq!(router("192.0.2.10 192.0.2.1 192.0.2.2\n").as_deref(), Some("192.0.2.1"));
        assert_eq!(router("192.0.2.10 192.0.2.1 $(reboot)").as_deref(), Some("192.0.2.1"));
    }

    #[test]
    fn what_makes_no_sense_is_no_offer() {
        let senseless = [
            "",
            "192.0.2.10",
            "192.0.2.10 0.0.0.0",
            "192.0.2.10 224.0.0.1",
            "192.0.2.10 255.255.255.255",
            "192.0.2.10 192.0.2.10",
            "192.0.2.10 192.0.2.1; 192.0.2.1",
            "2001:db8::1 fe80::1",
            "\0",
        ];
        for text in senseless {
            assert_eq!(router(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_folder_holds_one_for_each_interface() {
        let folder = Folder::new("offers");
        folder.write("eth2", "192.0.2.10 192.0.2.1\n");
        folder.write("eth1", "198.51.100.10 198.51.100.1\n");
        folder.write("eth3", [0xff, 0xfe]);
        folder.write("eth4", " ".repeat(5000) + "192.0.2.10 192.0.2.1");
        folder.write("a name that no interface has", "192.0.2.10 192.0.2.1");
        let found: Vec<_> = read(&folder.path("")).iter().map(|o| o.interface.to_string()).collect();
        assert_eq!(found, ["eth1", "eth2"]);
        assert_eq!(read(Path::new("/nonexistent")), []);
    }
}
