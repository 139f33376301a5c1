//! What DHCP clients without a bus were offered: dhclient's and dhcpcd's, by way of their hooks.
//!
//! The second of two dhclients cannot add its default route, as there is one already, and then nothing in the kernel
//! tells its gateway. So a hook of ours writes what was offered into a file for each interface, as root. The text came
//! from the network and is believed in nothing: an offer counts only while its address is on the interface, so one
//! that was left behind by a client that died is worth nothing.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use crate::core::net::IfName;
use crate::core::observed::Offer;
use crate::sources::{dhcp, file};

/// Where the hook writes. The folder is root's, unlike the daemon's own.
pub const FOLDER: &str = "/run/uplinkd-offers";
/// What a DHCP server can put into one message is shorter, as text too; a longer file is none of the hook's.
const LONGEST: u64 = 16 * 1024;

/// Every offer, and in words what cannot be read. What makes no sense, or has gone by now, is none.
pub fn read(folder: &Path) -> (Vec<Offer>, Vec<String>) {
    let (mut offers, mut problems) = (Vec::new(), Vec::new());
    let mut problem = |path: &Path, error: io::Error| {
        if error.kind() != io::ErrorKind::NotFound {
            problems.push(format!("{}: cannot be read: {error}", path.display()));
        }
    };
    let entries = fs::read_dir(folder).map_err(|error| problem(folder, error));
    for path in entries.into_iter().flatten().flatten().map(|entry| entry.path()) {
        let Some(interface) = path.file_name().and_then(|name| IfName::new(name.to_str()?)) else { continue };
        match file::text(&path, LONGEST) {
            Ok(text) => offers.extend(offer(interface, &text)),
            Err(error) => problem(&path, error),
        }
    }
    offers.sort_by(|a: &Offer, b| a.interface.cmp(&b.interface));
    problems.sort();
    (offers, problems)
}

/// Three lines: the address, the routers, the classless routes. Whoever gets a line break into one of them offers nothing.
fn offer(interface: IfName, text: &str) -> Option<Offer> {
    let [address, routers, classless] = text.lines().collect::<Vec<_>>()[..] else { return None };
    let address = address.trim().parse::<Ipv4Addr>().ok()?.into();
    let gateways = dhcp::offered(Some(classless), Some(routers));
    let router = gateways.into_iter().find(|gateway| *gateway != address)?;
    Some(Offer { interface, address, router })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::IpAddr;
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::config::folder::Folder;

    fn router(text: &str) -> Option<String> {
        offer(IfName::new("eth2")?, text).map(|offer| offer.router.to_string())
    }

    #[test]
    fn the_first_router_counts() {
        assert_eq!(router("192.0.2.10\n192.0.2.1 192.0.2.2\n\n").as_deref(), Some("192.0.2.1"));
        assert_eq!(router("192.0.2.10\n192.0.2.1 $(reboot)\n\n").as_deref(), Some("192.0.2.1"));
        assert_eq!(router("192.0.2.10\n192.0.2.10 192.0.2.1\n\n").as_deref(), Some("192.0.2.1"));
    }

    #[test]
    fn classless_routes_overrule_the_routers() {
        for (routes, expected) in [
            ("0 192 0 2 254 8 10 192 0 2 7", Some("192.0.2.254")),
            ("10.0.0.0/8 192.0.2.7 0.0.0.0/0 192.0.2.254", Some("192.0.2.254")),
            ("8 10 192 0 2 7", None),
            ("10.0.0.0/8 192.0.2.7", None),
            ("0 0 0 0 0", None),
            ("$(reboot)", None),
        ] {
            let text = format!("192.0.2.10\n192.0.2.1\n{routes}\n");
            assert_eq!(router(&text).as_deref(), expected, "{routes}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_no_offer() {
        let senseless = [
            "",
            "192.0.2.10",
            "192.0.2.10\n192.0.2.1\n",
            "192.0.2.10 192.0.2.1\n\n\n",
            "192.0.2.10\n\n192.0.2.1\n",
            "192.0.2.10\n192.0.2.1\n\n192.0.2.1\n",
            "192.0.2.10\n0.0.0.0\n\n",
            "192.0.2.10\n127.0.0.1\n\n",
            "192.0.2.10\n224.0.0.1\n\n",
            "192.0.2.10\n255.255.255.255\n\n",
            "192.0.2.10\n192.0.2.10\n\n",
            "192.0.2.10\n192.0.2.1;\n\n",
            "2001:db8::1\nfe80::1\n\n",
            "\0",
        ];
        for text in senseless {
            assert_eq!(router(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_folder_holds_one_for_each_interface() {
        let folder = Folder::new("offers");
        folder.write("eth2", "192.0.2.10\n192.0.2.1\n\n");
        folder.write("eth1", "198.51.100.10\n198.51.100.1\n\n");
        folder.write("eth3", [0xff, 0xfe]);
        folder.write("eth4", "192.0.2.10\n192.0.2.1\n".to_owned() + &"8 10 192 0 2 7 ".repeat(2000));
        folder.write("a name that no interface has", "192.0.2.10\n192.0.2.1\n\n");
        let (offers, problems) = read(&folder.path(""));
        let found: Vec<_> = offers.iter().map(|offer| offer.interface.as_str()).collect();
        assert_eq!(found, ["eth1", "eth2"]);
        assert_eq!(problems.len(), 1, "a file that is too long is told: {problems:?}");
        assert!(folder.relative(&problems[0]).starts_with("eth4: cannot be read: "), "{problems:?}");
    }

    #[test]
    fn no_folder_is_no_problem_and_what_is_none_is_one() {
        let folder = Folder::new("offers-none");
        folder.write("file", "");
        assert_eq!(read(&folder.path("nowhere")), (Vec::new(), Vec::new()));
        let (offers, problems) = read(&folder.path("file"));
        assert_eq!((offers.len(), problems.len()), (0, 1), "{problems:?}");
    }

    #[test]
    fn what_is_no_offer_holds_nobody_up() {
        let folder = Folder::new("offers-hostile");
        folder.write("eth1", "192.0.2.10\n192.0.2.1\n\n");
        folder.write("eth2", [0; LONGEST as usize]);
        folder.write("eth3", "192.0.2.10\n192.0.2.1\0\n\n");
        folder.write("eth4", b"192.0.2.10\n\xff 192.0.2.1\n\n");
        File::create(folder.path("eth5")).unwrap().set_len(1 << 40).unwrap();
        nix::unistd::mkfifo(&folder.path("eth6"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        fs::create_dir(folder.path("eth7")).unwrap();
        symlink("nowhere", folder.path("eth8")).unwrap();
        symlink("eth9", folder.path("eth9")).unwrap();
        let (offers, problems) = read(&folder.path(""));
        let found: Vec<_> = offers.iter().map(|offer| offer.interface.as_str()).collect();
        assert_eq!(found, ["eth1", "eth4"]);
        let told: Vec<_> = problems.iter().map(|problem| folder.relative(problem)[..4].to_owned()).collect();
        assert_eq!(told, ["eth5", "eth9"], "{problems:?}");
    }

    const WORDS: &[&str] = &[
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "224.0.0.5",
        "255.255.255.255",
        "192.0.2.10",
        "192.0.2.1",
        "0.0.0.0/0",
        "10.0.0.0/8",
        "0",
        "8",
        "33",
        "192",
        "2",
        "256",
        "fe80::1",
        "$(reboot)",
        "\0",
        "\u{fffd}",
    ];

    /// Text that is nearly what a hook writes, so that much of it gets far.
    fn nearly() -> impl Strategy<Value = String> {
        let separator = || prop_oneof![12 => Just(" "), 3 => select(&[",", "\t", ""][..]), 1 => select(&["\n", "\r\n"][..])];
        let line = move || {
            let words = prop::collection::vec((select(WORDS), separator()), 0..6);
            words.prop_map(|pairs| pairs.into_iter().flat_map(|(w, s)| [w, s]).collect::<String>())
        };
        let default = line().prop_map(|gateway| format!("0.0.0.0/0 {gateway}"));
        let bytes = prop::collection::vec(any::<u8>(), 4)
            .prop_map(|b| format!("0 {} {} {} {}", b[0], b[1], b[2], b[3]));
        let routes = prop_oneof![Just(String::new()), line(), default, bytes];
        (line(), routes).prop_map(|(routers, routes)| format!("192.0.2.10\n{routers}\n{routes}\n"))
    }

    /// Anything.
    fn garbage() -> impl Strategy<Value = String> {
        any::<Vec<u8>>().prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever is written there: a router is another host's address, and nothing comes of other than three lines.
        #[test]
        fn a_router_is_another_host(
            text in prop_oneof![3 => nearly(), 1 => garbage()]
        ) {
            if let Some(offer) = offer(IfName::new("eth2").unwrap(), &text) {
                let IpAddr::V4(router) = offer.router else { panic!("{offer:?}") };
                prop_assert!(!matches!(router.octets()[0], 0 | 127 | 224..=239), "{:?}", offer);
                prop_assert_ne!(router, Ipv4Addr::BROADCAST);
                prop_assert_ne!(offer.router, offer.address);
                prop_assert_eq!(text.lines().count(), 3);
                prop_assert_eq!(offer.address.to_string(), text.lines().next().unwrap().trim());
            }
        }
    }
}
