//! How many packets each family has received and sent on a link, and how many bytes went over it.
//!
//! The kernel counts by link, and IPv6 besides (`/proc/net/dev`, proc_net(5); `/proc/net/dev_snmp6`,
//! net/ipv6/proc.c): what is not IPv6 is taken for IPv4, ARP among it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::core::balance::Bytes;
use crate::core::health::Counters;
use crate::core::net::{Device, IfName, PerFamily};

/// The counters of all links, as one look at the kernel shows them.
#[derive(Debug, Default)]
pub struct Links {
    text: String,
    /// Those that were asked for already: both families of a link come from one reading.
    read: BTreeMap<IfName, Option<PerFamily<Counters>>>,
}

/// What the kernel calls this boot of the machine (random(4)); nothing where it cannot be read, and then each boot looks
/// alike.
pub fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// The highest interface index there is; where they cannot be listed, the highest that could be.
pub fn newest_index() -> u32 {
    let all = nix::net::if_::if_nameindex();
    all.ok().and_then(|all| all.iter().map(|one| one.index()).max()).unwrap_or(u32::MAX)
}

impl Links {
    /// Has a look.
    pub fn read() -> Self {
        Links { text: fs::read_to_string("/proc/net/dev").unwrap_or_default(), ..Links::default() }
    }

    /// The bytes of one device, of all families; none where it is not there, or not the one that has the name now.
    ///
    /// The kernel names links here, and a name may be another's since the last round: one that was made anew, or two that
    /// were renamed. Whose they are is asked after they were read, so that they are never taken for an older one's.
    pub fn bytes(&self, dev: &Device) -> Option<Bytes> {
        let bytes = self.bytes_of(&dev.name)?;
        nix::net::if_::if_nametoindex(dev.name.as_str())
            .is_ok_and(|index| index == dev.index.0)
            .then_some(bytes)
    }

    fn bytes_of(&self, name: &IfName) -> Option<Bytes> {
        let numbers = numbers(&self.text, name)?;
        Some(Bytes { down: *numbers.first()?, up: *numbers.get(8)? })
    }

    /// The packets of one link; none where there is no such link.
    pub fn of(&mut self, dev: &IfName) -> Option<PerFamily<Counters>> {
        let read = || {
            let all = of_link(&self.text, dev)?;
            let file = Path::new("/proc/net/dev_snmp6").join(dev.as_str());
            Some(by_family(all, &fs::read_to_string(file).unwrap_or_default()))
        };
        *self.read.entry(dev.clone()).or_insert_with(read)
    }
}

/// A line is `NAME: BYTES PACKETS …` with eight numbers for what was received, then the same for what was sent.
fn numbers(text: &str, dev: &IfName) -> Option<Vec<u64>> {
    let line =
        text.lines().find_map(|line| line.trim_start().strip_prefix(dev.as_str())?.strip_prefix(':'))?;
    Some(line.split_whitespace().map_while(|word| word.parse().ok()).collect())
}

fn of_link(text: &str, dev: &IfName) -> Option<Counters> {
    let numbers = numbers(text, dev)?;
    Some(Counters { received: *numbers.get(1)?, sent: *numbers.get(9)? })
}

/// Lines of `Ip6InReceives 42`. What was received includes multicast, which answers nobody.
fn by_family(all: Counters, text: &str) -> PerFamily<Counters> {
    let number = |name: &str| -> u64 {
        let mut lines = text.lines().filter_map(|line| line.split_once(char::is_whitespace));
        let found = lines.find(|(key, _)| *key == name);
        found.and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0)
    };
    let received = number("Ip6InReceives");
    let sent = number("Ip6OutRequests") + number("Ip6OutForwDatagrams");
    PerFamily {
        v4: Counters { received: all.received.saturating_sub(received), sent: all.sent.saturating_sub(sent) },
        v6: Counters { received: received.saturating_sub(number("Ip6InMcastPkts")), sent },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::net::IfIndex;

    const DEV: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    1200      10    0    0    0     0          0         0     1200      10    0    0    0     0       0          0
  eth0: 5000    40 0 0 0 0 0 0 3000 30 0 0 0 0 0 0
eth0.7: 50 4 0 0 0 0 0 0 30 3 0 0 0 0 0 0
";

    #[test]
    fn a_link_is_found_by_its_whole_name() {
        let of = |name| of_link(DEV, &IfName::new(name).unwrap());
        assert_eq!(of("eth0"), Some(Counters { received: 40, sent: 30 }));
        assert_eq!(of("eth0.7"), Some(Counters { received: 4, sent: 3 }));
        assert_eq!(of("eth"), None);
        assert_eq!(of_link("eth0: 1 2 x", &IfName::new("eth0").unwrap()), None);
    }

    #[test]
    fn bytes_stand_ahead_of_packets() {
        let links = Links { text: DEV.to_owned(), ..Links::default() };
        assert_eq!(links.bytes_of(&IfName::new("eth0").unwrap()), Some(Bytes { down: 5000, up: 3000 }));
        assert_eq!(links.bytes_of(&IfName::new("eth1").unwrap()), None);
    }

    #[test]
    fn bytes_are_those_of_the_device_and_not_of_its_name() {
        let (links, lo) = (Links::read(), IfName::new("lo").unwrap());
        let index = nix::net::if_::if_nametoindex("lo").unwrap();
        let of = |index| links.bytes(&Device { index: IfIndex(index), name: lo.clone() });
        assert!(of(index).is_some());
        assert_eq!(of(index + 1), None, "it was made anew");
    }

    #[test]
    fn multicast_is_no_answer() {
        let text = "ifIndex \t3\nIp6InReceives \t50\nIp6OutRequests \t7\nIp6InMcastPkts \t20\nIp6OutForwDatagrams 3\n";
        let all = Counters { received: 80, sent: 15 };
        let both = by_family(all, text);
        assert_eq!(both.v6, Counters { received: 30, sent: 10 });
        assert_eq!(both.v4, Counters { received: 30, sent: 5 });
        assert_eq!(by_family(all, "").v4, all);
    }
}
