//! The vocabulary: a type of its own for every number and name that could be swapped with another.
//!
//! Constructors validate; what exists is valid. Nothing here knows what an uplink is.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Our routing protocol number: the owner's tag on every route and rule that is ours.
///
/// Free in iproute2's lists up to 6.15 (`/usr/share/iproute2/rt_protos`).
pub const OWNER: u8 = 177;

/// An address family. IPv4 and IPv6 are independent all the way through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families, in the order in which everything is shown.
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    /// The family of an address.
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    /// `0.0.0.0/0` or `::/0`.
    pub fn default_prefix(self) -> IpNet {
        let any = match self {
            Family::V4 => IpAddr::from([0; 4]),
            Family::V6 => IpAddr::from([0; 16]),
        };
        IpNet::new_assert(any, 0)
    }

    /// The longest prefix of the routes by which a tunnel takes what a default would: OpenVPN's `redirect-gateway` adds
    /// 0.0.0.0/1 and 128.0.0.0/1, and for IPv6 ::/3, 2000::/4 and 3000::/4 (2.6, `options.c`).
    pub fn covering_len(self) -> u8 {
        match self {
            Family::V4 => 1,
            Family::V6 => 4,
        }
    }

    /// The word of nftables for this family's packets.
    pub fn nft(self) -> &'static str {
        match self {
            Family::V4 => "ip",
            Family::V6 => "ip6",
        }
    }

    /// The type that nftables has for this family's addresses.
    pub fn nft_address(self) -> &'static str {
        match self {
            Family::V4 => "ipv4_addr",
            Family::V6 => "ipv6_addr",
        }
    }

    /// The version number of the protocol.
    pub fn version(self) -> u8 {
        match self {
            Family::V4 => 4,
            Family::V6 => 6,
        }
    }

    /// The option of `ip` that chooses this family.
    pub fn ip_flag(self) -> &'static str {
        match self {
            Family::V4 => "-4",
            Family::V6 => "-6",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        })
    }
}

/// A value for each family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PerFamily<T> {
    /// The value for IPv4.
    pub v4: T,
    /// The value for IPv6.
    pub v6: T,
}

impl<T> PerFamily<T> {
    /// Builds both values with one function.
    pub fn from_fn(mut make: impl FnMut(Family) -> T) -> Self {
        PerFamily { v4: make(Family::V4), v6: make(Family::V6) }
    }
}

impl<T> std::ops::Index<Family> for PerFamily<T> {
    type Output = T;
    fn index(&self, family: Family) -> &T {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

impl<T> std::ops::IndexMut<Family> for PerFamily<T> {
    fn index_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

/// A kernel interface index; changes when a device is deleted and made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IfIndex(pub u32);

/// A kernel interface name: 1 to 15 bytes without white space, `/`, quotes or control characters.
///
/// The kernel allows more (`dev_valid_name`, net/core/dev.c); a name that could end a string in
/// nft's language or in a shell is refused here, once, so that nothing later has to quote it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct IfName(String);

impl IfName {
    /// Accepts a name that is safe to write into commands.
    pub fn new(name: &str) -> Option<Self> {
        let safe = |b: u8| b.is_ascii_graphic() && !b"\"'`\\/*;{}$&|<>()#,".contains(&b);
        let valid = (1..=15).contains(&name.len()) && name.bytes().all(safe);
        (valid && name != "." && name != "..").then(|| IfName(name.to_owned()))
    }

    /// `all`, as the kernel's settings name every interface.
    pub fn all() -> Self {
        IfName("all".to_owned())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An interface as routes name it: the kernel compares the index, people read the name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Device {
    /// What the kernel goes by.
    pub index: IfIndex,
    /// What people read and what rules go by.
    pub name: IfName,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

/// A routing table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct TableId(pub u32);

impl TableId {
    /// No table at all (`RT_TABLE_UNSPEC`, linux/rtnetlink.h): a rule that leads there refuses what it takes.
    pub const NOWHERE: TableId = TableId(0);
    /// `local`: the kernel's own addresses.
    pub const LOCAL: TableId = TableId(255);
    /// `main`: where every manager puts its routes.
    pub const MAIN: TableId = TableId(254);
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            TableId::MAIN => f.write_str("main"),
            TableId::LOCAL => f.write_str("local"),
            TableId(id) => id.fmt(f),
        }
    }
}

/// The preference of a rule: lower is asked first (ip-rule(8)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pref(pub u32);

impl fmt::Display for Pref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The metric of a route: lower is better. IPv6 has no 0; the kernel reads it as 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Metric(pub u32);

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The type-of-service byte that a packet must have for a route; 0 is asked of none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tos(pub u8);

impl Tos {
    /// Takes every packet.
    pub const ANY: Tos = Tos(0);
}

/// A packet mark under a mask; no bit stands outside the mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    value: u32,
    mask: u32,
}

impl Mark {
    /// A mark of these bits under this mask.
    pub const fn new(value: u32, mask: u32) -> Self {
        Mark { value: value & mask, mask }
    }

    /// The bits.
    pub const fn value(self) -> u32 {
        self.value
    }

    /// The bits that count.
    pub const fn mask(self) -> u32 {
        self.mask
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}/{:#x}", self.value, self.mask)
    }
}

/// The share of an uplink among those of its tier, 1 to 256: what one leg of a multipath route can hold
/// (`rtnh_hops` is one byte and counts from 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Weight(u16);

impl Weight {
    /// Accepts 1 to 256.
    pub fn new(weight: u16) -> Option<Self> {
        (1..=256).contains(&weight).then_some(Weight(weight))
    }

    /// 1 to 256.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl Default for Weight {
    fn default() -> Self {
        Weight(1)
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The rank of an uplink, 1 to 255: new flows use the lowest tier that has a usable uplink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Tier(u8);

impl Tier {
    /// Where an unmetered uplink stands unless told otherwise.
    pub const UNMETERED: Tier = Tier(1);
    /// Where a metered uplink stands unless told otherwise: it carries nothing until needed.
    pub const METERED: Tier = Tier(2);

    /// Accepts 1 to 255.
    pub fn new(tier: u8) -> Option<Self> {
        (tier >= 1).then_some(Tier(tier))
    }

    /// 1 to 255.
    pub fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A six-byte hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

impl std::str::FromStr for MacAddr {
    type Err = ();

    /// Six hexadecimal bytes separated by `:` or `-`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut bytes = [0u8; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or(())?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| ())?;
        }
        parts.next().is_none().then_some(MacAddr(bytes)).ok_or(())
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The name of an uplink as people, table names and commands use it.
///
/// 1 to 32 characters of `A-Z a-z 0-9 . _ -`, beginning with a letter, and none of iproute2's own table names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UplinkName(String);

impl UplinkName {
    /// What [`UplinkName::new`] accepts, for error messages.
    pub const ALLOWED: &str = "1 to 32 of A-Z a-z 0-9 . _ - beginning with a letter, \
                               and not main, local, default, all or none";

    /// Accepts a well-formed name.
    pub fn new(name: &str) -> Option<Self> {
        let word = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let reserved = ["main", "local", "default", "all", "none", "unspec"];
        let valid = name.len() <= 32
            && name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(word)
            && !reserved.contains(&name);
        valid.then(|| UplinkName(name.to_owned()))
    }

    /// Makes a name out of a text that a network or a person chose freely (a profile name, an SSID).
    pub fn sanitised(text: &str) -> Option<Self> {
        let mut name = String::new();
        for c in text.chars() {
            if c.is_ascii_alphanumeric() || "._".contains(c) {
                name.push(c);
            } else if !name.is_empty() && !name.ends_with('-') {
                name.push('-');
            }
        }
        name.truncate(28);
        let name = name.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        if name.is_empty() {
            return None;
        }
        Self::new(name).or_else(|| Self::new(&format!("u-{name}")))
    }

    /// The name of an uplink of which nothing can be said.
    pub fn nameless() -> Self {
        UplinkName("uplink".to_owned())
    }

    /// The same name with a number, for when two uplinks would have one name.
    pub fn numbered(&self, n: usize) -> Self {
        let suffix = format!("-{n}");
        let keep = self.0.len().min(32 - suffix.len());
        UplinkName(format!("{}{suffix}", &self.0[..keep]))
    }

    /// Whether another name is this one with a number.
    pub fn is_numbered_as(&self, other: &UplinkName) -> bool {
        let number = other.0.rsplit_once('-').and_then(|(_, digits)| digits.parse().ok());
        number.is_some_and(|n| self.numbered(n) == *other)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for UplinkName {
    type Error = String;
    fn try_from(name: String) -> Result<Self, String> {
        Self::new(&name).ok_or_else(|| format!("not a name: {name:?}; allowed: {}", Self::ALLOWED))
    }
}

impl From<UplinkName> for String {
    fn from(name: UplinkName) -> String {
        name.0
    }
}

impl fmt::Display for UplinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_cannot_end_a_string() {
        for good in ["eth0", "enp3s0f1", "br-lan", "wan.7", "a:b", "veth@x"] {
            assert!(IfName::new(good).is_some(), "{good}");
        }
        for bad in ["", ".", "..", "a b", "x\"y", "a/b", "sixteen-bytes-xx", "a;b", "a*", "é", "a{", "a,b"] {
            assert!(IfName::new(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn names_from_the_network_become_harmless() {
        let name = |text| UplinkName::sanitised(text).map(String::from);
        assert_eq!(name("Wired connection 1").as_deref(), Some("Wired-connection-1"));
        assert_eq!(name("$(reboot)\n; \"").as_deref(), Some("reboot"));
        assert_eq!(name("2.4 GHz").as_deref(), Some("u-2.4-GHz"));
        assert_eq!(name("main").as_deref(), Some("u-main"));
        assert_eq!(name("☃☃"), None);
        let long = UplinkName::sanitised(&"x".repeat(200)).unwrap();
        assert!(long.numbered(63).as_str().len() <= 32);
    }

    #[test]
    fn marks_stay_under_their_mask() {
        let mark = Mark::new(0xffff_ffff, 0x3f00_0000);
        assert_eq!(mark.value(), 0x3f00_0000);
        assert_eq!(mark.to_string(), "0x3f000000/0x3f000000");
    }

    #[test]
    fn mac_addresses_parse_and_print() {
        let mac: MacAddr = "02-00-00-AB-cd-01".parse().unwrap();
        assert_eq!(mac.to_string(), "02:00:00:ab:cd:01");
        for bad in ["", "02:00", "02:00:00:ab:cd:01:02", "02:00:00:ab:cd:0g", "2:0:0:a:c:1"] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
        }
    }
}
