//! The keys of `[[policy]]`, and what they say before lists are read and accounts are looked up.
//!
//! Refuses to know what lies in files, and who is who on this machine; [`Outside`] is asked for that.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::keys::{Key, Kind, Value};
use super::matcher::Pattern;
use super::settings::FailbackMode;
use crate::core::net::{MacAddr, UplinkName};
use crate::core::policy::{Domain, Hours, OnFailure, Same, Unit, Way};

/// What reading the configuration needs of the machine.
pub trait Outside {
    /// The text of a list.
    fn list(&self, path: &Path) -> Result<String, String>;
    /// The number of a user.
    fn user(&self, name: &str) -> Option<u32>;
    /// The number of a group.
    fn group(&self, name: &str) -> Option<u32>;
}

/// A text that is read for itself: nothing else is there.
pub(super) struct Nothing;

impl Outside for Nothing {
    fn list(&self, _: &Path) -> Result<String, String> {
        Err("no files are read here".into())
    }

    fn user(&self, name: &str) -> Option<u32> {
        (name == "root").then_some(0)
    }

    fn group(&self, name: &str) -> Option<u32> {
        self.user(name)
    }
}

/// What a policy does, as it is written.
#[derive(Debug, Default)]
pub struct Draft {
    pub(super) name: Option<UplinkName>,
    pub(super) way: Way,
    pub(super) uplinks: Vec<UplinkName>,
    pub(super) on_failure: Option<OnFailure>,
    pub(super) failback: Option<FailbackMode>,
    pub(super) drain_time: Option<Duration>,
    pub(super) same: Option<Same>,
    pub(super) idle: Option<Duration>,
    pub(super) skips_bad_lines: bool,
}

/// Which traffic it is for, as it is written.
#[derive(Debug, Default)]
pub struct TrafficDraft {
    pub(super) from: Vec<Place>,
    pub(super) to: Vec<Place>,
    pub(super) domain: Vec<Domain>,
    pub(super) interface: Vec<Pattern>,
    pub(super) protocol: Vec<u8>,
    pub(super) ports: Vec<(u16, u16)>,
    pub(super) dscp: Vec<u8>,
    pub(super) mac: Vec<MacAddr>,
    pub(super) user: Vec<Account>,
    pub(super) group: Vec<Account>,
    pub(super) unit: Vec<Named>,
    pub(super) slice: Vec<Named>,
    pub(super) time: Vec<Hours>,
}

/// Addresses, or where they are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Net(IpNet),
    File(PathBuf),
}

/// Users or groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Account {
    Numbers(u32, u32),
    Name(String),
}

impl Account {
    fn is_one(&self) -> bool {
        !matches!(self, Account::Numbers(from, to) if from != to)
    }
}

/// A unit, and whose it is where it is a user's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) user: Option<Account>,
    pub(super) name: String,
}

/// The keys that go with one method alone, and its word.
pub(super) const BESIDE_METHOD: [(&str, &str); 3] =
    [("uplink", "enforced"), ("same", "persistence"), ("idle", "persistence")];

/// What is wrong with a key that goes with one method alone; none where that is the one.
pub(super) fn misplaced(method: &str, way: Way) -> Option<String> {
    (way.as_str() != method).then(|| format!("only allowed with method = \"{method}\""))
}

/// The keys of a policy beside `match`.
pub static POLICY: [Key<Draft>; 9] = [
    Key {
        name: "name",
        allowed: UplinkName::ALLOWED,
        help: "what the policy is called in the status",
        kind: Kind::Text,
        put: |draft, value| value.text().and_then(UplinkName::new).map(|name| draft.name = Some(name)),
    },
    Key {
        name: "method",
        allowed: Way::ALLOWED,
        help: "how one of its uplinks is chosen; weighted unless told otherwise",
        kind: Kind::Text,
        put: |draft, value| value.text().and_then(Way::named).map(|way| draft.way = way),
    },
    Key {
        name: "uplinks",
        allowed: "the name of an uplink, or a list of names",
        help: "the uplinks that it may use, the best first; all unless told otherwise",
        kind: Kind::Texts,
        put: |draft, value| {
            let name = value.text().and_then(UplinkName::new)?;
            (!draft.uplinks.contains(&name)).then(|| draft.uplinks.push(name))
        },
    },
    Key {
        name: "on-failure",
        allowed: OnFailure::ALLOWED,
        help: "while none of them can be used: look at the next policy, refuse, or go by the default route",
        kind: Kind::Text,
        put: |draft, value| value.text().and_then(OnFailure::named).map(|word| draft.on_failure = Some(word)),
    },
    Key {
        name: "failback",
        allowed: FailbackMode::ALLOWED,
        help: "what becomes of its running flows when a better uplink of its own is back; else what their uplink says",
        kind: Kind::Text,
        put: |draft, value| {
            value.text().and_then(FailbackMode::named).map(|mode| draft.failback = Some(mode))
        },
    },
    Key {
        name: "drain-time",
        allowed: FailbackMode::TIMES,
        help: "how long they have to end where failback is drain",
        kind: Kind::Text,
        put: |draft, value| FailbackMode::time(value).map(|time| draft.drain_time = Some(time)),
    },
    Key {
        name: "same",
        allowed: SAME,
        help: "with method = \"persistence\": what stays on one uplink",
        kind: Kind::Text,
        put: |draft, value| same(value).map(|same| draft.same = Some(same)),
    },
    Key {
        name: "idle",
        allowed: IDLE,
        help: "with method = \"persistence\": so long after its last new connection a client is forgotten",
        kind: Kind::Text,
        put: |draft, value| idle(value).map(|time| draft.idle = Some(time)),
    },
    Key {
        name: "bad-lines",
        allowed: "refuse or skip",
        help: "what a line of a list that is no prefix costs: the whole configuration, or itself",
        kind: Kind::Text,
        put: |draft, value| {
            draft.skips_bad_lines = match value.text()? {
                "refuse" => false,
                "skip" => true,
                _ => return None,
            };
            Some(())
        },
    },
];

/// What [`same`] takes.
pub(super) const SAME: &str = "client or client-and-destination";

/// What stays together.
pub(super) fn same(value: &Value) -> Option<Same> {
    Some(match value.text()? {
        "client" => Same::Client,
        "client-and-destination" => Same::ClientAndDestination,
        _ => return None,
    })
}

/// What [`idle`] takes.
pub(super) const IDLE: &str = "a time from 1s to 24h, like 30s or 10m";

/// After what time somebody is forgotten.
pub(super) fn idle(value: &Value) -> Option<Duration> {
    value.time(Duration::from_secs(1), Duration::from_secs(24 * 3600))
}

/// What `from` and `to` allow.
const NETS: &str = "an address, a prefix like 192.0.2.0/24 or 2001:db8::/32, the absolute path of a file with one of these a \
                    line, or a list of such";

/// The keys of a policy's `match`.
pub static TRAFFIC: [Key<TrafficDraft>; 13] = [
    Key {
        name: "from",
        allowed: NETS,
        help: "the source address",
        kind: Kind::Texts,
        put: |draft, value| value.text().and_then(place).map(|place| draft.from.push(place)),
    },
    Key {
        name: "to",
        allowed: NETS,
        help: "the destination address",
        kind: Kind::Texts,
        put: |draft, value| value.text().and_then(place).map(|place| draft.to.push(place)),
    },
    Key {
        name: "domain",
        allowed: Domain::ALLOWED,
        help: "what its destination was called by whoever asked for it",
        kind: Kind::Texts,
        put: |draft, value| value.text().and_then(Domain::new).map(|name| draft.domain.push(name)),
    },
    Key {
        name: "interface",
        allowed: "an interface name, with * and ? for what may vary, or a list of them",
        help: "the interface that it comes in by",
        kind: Kind::Texts,
        put: |draft, value| value.text().and_then(Pattern::new).map(|name| draft.interface.push(name)),
    },
    Key {
        name: "protocol",
        allowed: "tcp, udp, icmp, icmpv6, gre, esp, ah, sctp, dccp, udplite, a number from 0 to 255, or a list of them",
        help: "the IP protocol",
        kind: Kind::Several,
        put: |draft, value| protocol(value).map(|number| draft.protocol.push(number)),
    },
    Key {
        name: "ports",
        allowed: "a port from 1 to 65535, a range like 5000-5100, or a list of them",
        help: "the destination port; of TCP, UDP and their like",
        kind: Kind::Several,
        put: |draft, value| range(value, 1, u16::MAX.into()).map(|ports| draft.ports.push(ports)),
    },
    Key {
        name: "dscp",
        allowed: "ef, cs0 to cs7, af11 to af43, a number from 0 to 63, or a list of them",
        help: "the differentiated services code point",
        kind: Kind::Several,
        put: |draft, value| dscp(value).map(|point| draft.dscp.push(point)),
    },
    Key {
        name: "mac",
        allowed: "a hardware address like 02:00:5e:00:53:01, or a list of them",
        help: "the hardware address of the sender on its link",
        kind: Kind::Texts,
        put: |draft, value| value.text()?.parse().ok().map(|mac| draft.mac.push(mac)),
    },
    Key {
        name: "user",
        allowed: ACCOUNT,
        help: "the user of this machine whose program sends it",
        kind: Kind::Several,
        put: |draft, value| account(value).map(|user| draft.user.push(user)),
    },
    Key {
        name: "group",
        allowed: ACCOUNT,
        help: "the group of the program of this machine that sends it",
        kind: Kind::Several,
        put: |draft, value| account(value).map(|group| draft.group.push(group)),
    },
    Key {
        name: "unit",
        allowed: Unit::ALLOWED,
        help: "the systemd unit whose program sends it",
        kind: Kind::Texts,
        put: |draft, value| named(value, Unit::new).map(|unit| draft.unit.push(unit)),
    },
    Key {
        name: "slice",
        allowed: Unit::SLICES_ALLOWED,
        help: "the systemd slice in which that program runs",
        kind: Kind::Texts,
        put: |draft, value| named(value, Unit::slice).map(|slice| draft.slice.push(slice)),
    },
    Key {
        name: "time",
        allowed: Hours::ALLOWED,
        help: "when it is sent",
        kind: Kind::Texts,
        put: |draft, value| value.text()?.parse().ok().map(|hours| draft.time.push(hours)),
    },
];

/// What `user` and `group` allow.
const ACCOUNT: &str = "a name that this machine knows, a number, a range like 1000-1999, or a list of them";

/// A unit of this kind; whose it is is looked up later.
fn named(value: &Value, kind: fn(Option<u32>, &str) -> Option<Unit>) -> Option<Named> {
    let (user, name) = match value.text()?.split_once('/') {
        Some((user, name)) => (Some(account(&Value::Text(user.into())).filter(Account::is_one)?), name),
        None => (None, value.text()?),
    };
    kind(None, name).map(|_| Named { user, name: name.to_owned() })
}

/// An address or a prefix; what lies beyond its length does not count.
pub(super) fn net(text: &str) -> Option<IpNet> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse::<IpNet>().ok().or_else(address).map(|net| net.trunc())
}

fn place(text: &str) -> Option<Place> {
    match text.starts_with('/') {
        true => Some(Place::File(text.into())),
        false => net(text).map(Place::Net),
    }
}

fn protocol(value: &Value) -> Option<u8> {
    let named = |name: &str| {
        Some(match name {
            "tcp" => 6,
            "udp" => 17,
            "icmp" => 1,
            "icmpv6" => 58,
            "gre" => 47,
            "esp" => 50,
            "ah" => 51,
            "sctp" => 132,
            "dccp" => 33,
            "udplite" => 136,
            number => return number.parse().ok(),
        })
    };
    value.number().or_else(|| named(value.text()?))
}

/// A number, or two with a hyphen.
fn range<N: TryFrom<u32>>(value: &Value, least: u32, most: u32) -> Option<(N, N)> {
    let number = |text: &str| text.trim().parse::<u32>().ok().filter(|n| (least..=most).contains(n));
    let (from, to) = match value.text() {
        Some(text) => match text.split_once('-') {
            Some((from, to)) => (number(from)?, number(to)?),
            None => (number(text)?, number(text)?),
        },
        None => {
            let one = value.number::<u32>().filter(|n| (least..=most).contains(n))?;
            (one, one)
        }
    };
    (from <= to).then_some((N::try_from(from).ok()?, N::try_from(to).ok()?))
}

/// RFC 2474, 2597 and 3246.
fn dscp(value: &Value) -> Option<u8> {
    let Some(text) = value.text() else { return value.within(0, 63) };
    let digit = |c: char, most| c.to_digit(10).filter(|d| (1..=most).contains(d));
    let mut letters = text.chars().skip(2);
    let point = match (text.get(..2).unwrap_or_default(), letters.next(), letters.next(), letters.next()) {
        ("ef", None, ..) => 46,
        ("cs", Some('0'), None, _) => 0,
        ("cs", Some(class), None, _) => 8 * digit(class, 7)?,
        ("af", Some(class), Some(drop), None) => 8 * digit(class, 4)? + 2 * digit(drop, 3)?,
        _ => text.parse().ok()?,
    };
    u8::try_from(point).ok().filter(|point| *point < 64)
}

fn account(value: &Value) -> Option<Account> {
    let name = || value.text().filter(|text| text.starts_with(|c: char| c.is_alphabetic() || c == '_'));
    // The last number stands for nobody.
    match range(value, 0, u32::MAX - 1) {
        Some((from, to)) => Some(Account::Numbers(from, to)),
        None => name().map(|name| Account::Name(name.to_owned())),
    }
}
