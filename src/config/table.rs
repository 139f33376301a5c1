//! The one list of keys.
//!
//! Decides what can be said, in which words and within which limits. Refuses to know what holds where nothing is said.

use std::time::Duration;

use ipnet::Ipv6Net;

use super::balance::BALANCE;
use super::firewall::FIREWALL;
use super::keys::{Key, Kind};
use super::matcher::{LinkType, Matcher, Pattern};
use super::router::ROUTER;
use super::routes::{ROUTES, lead};
use super::settings::{FailbackMode, Settings};
use super::{AllDown, Config};
use crate::core::balance::Rate;
use crate::core::health::Limit;
use crate::core::nat6::{MOST_PREFIXES, Nat6, is_delegable};
use crate::core::net::{Tier, UplinkName, Weight};
use crate::core::quota::{Amount, Day};

/// The keys of a section beside `match`.
pub static SETTINGS: [Key<Settings>; 26] = [
    Key {
        name: "name",
        allowed: UplinkName::ALLOWED,
        help: "what the uplink is called in tables, commands and logs",
        kind: Kind::Text,
        put: |settings, value| value.text().and_then(UplinkName::new).map(|name| settings.name = Some(name)),
    },
    Key {
        name: "weight",
        allowed: "a whole number from 1 to 256",
        help: "its share of new flows among the uplinks of its tier",
        kind: Kind::Number,
        put: |settings, value| {
            value.number().and_then(Weight::new).map(|weight| settings.weight = Some(weight))
        },
    },
    Key {
        name: "tier",
        allowed: "a whole number from 1 to 255",
        help: "its rank: new flows use the lowest tier that has a usable uplink",
        kind: Kind::Number,
        put: |settings, value| value.number().and_then(Tier::new).map(|tier| settings.tier = Some(tier)),
    },
    Key {
        name: "metered",
        allowed: "true or false",
        help: "whether traffic costs money; metered uplinks stand in tier 2 unless told otherwise",
        kind: Kind::Flag,
        put: |settings, value| value.flag().map(|metered| settings.metered = Some(metered)),
    },
    Key {
        name: "download",
        allowed: Rate::ALLOWED,
        help: "what its line can receive; the most that it was seen to unless told otherwise",
        kind: Kind::Text,
        put: |settings, value| value.text()?.parse().ok().map(|rate| settings.download = Some(rate)),
    },
    Key {
        name: "upload",
        allowed: Rate::ALLOWED,
        help: "what its line can send; the most that it was seen to unless told otherwise",
        kind: Kind::Text,
        put: |settings, value| value.text()?.parse().ok().map(|rate| settings.upload = Some(rate)),
    },
    Key {
        name: "quota",
        allowed: Amount::ALLOWED,
        help: "what may go over it, both ways together, from one quota-day to the next; then it is not used",
        kind: Kind::Text,
        put: |settings, value| {
            let amount: Amount = value.text()?.parse().ok()?;
            amount.can_be_a_quota().then(|| settings.quota = Some(amount))
        },
    },
    Key {
        name: "quota-day",
        allowed: Day::ALLOWED,
        help: "the day of the month on which its quota is renewed; the last one where a month is shorter",
        kind: Kind::Number,
        put: |settings, value| value.number().and_then(Day::new).map(|day| settings.quota_day = Some(day)),
    },
    Key {
        name: "quota-soft",
        allowed: "percent from 1 to 100",
        help: "the share of its quota from which on others are used first; 100 for never",
        kind: Kind::Number,
        put: |settings, value| value.within(1, 100).map(|percent| settings.quota_soft = Some(percent)),
    },
    Key {
        name: "ignore",
        allowed: "true or false",
        help: "whether the link is left alone, as if it were no uplink",
        kind: Kind::Flag,
        put: |settings, value| value.flag().map(|ignore| settings.ignore = Some(ignore)),
    },
    Key {
        name: "probes",
        allowed: "none, or at most 16 of icmp:HOST, tcp:HOST:PORT, dns:SERVER[/NAME], http://… or https://… with \
                  status=NUMBER and body=TEXT, arp, and command:/PATH in the files under /etc/uplinkd only; outside of TOML with ; between \
                  them",
        help: "whom to ask whether it leads out; a list of well-known servers unless told otherwise",
        kind: Kind::Texts,
        put: |settings, value| {
            let text = value.text()?;
            if text == "none" {
                // It stands alone.
                return settings.probes.replace(Vec::new()).is_none().then_some(());
            }
            let probes = text.split(';').map(|text| text.trim().parse().ok()).collect::<Option<Vec<_>>>()?;
            if settings.probes.as_ref().is_some_and(Vec::is_empty) {
                return None;
            }
            let all = settings.probes.get_or_insert_default();
            all.extend(probes);
            (all.len() <= MOST_PROBES).then_some(())
        },
    },
    Key {
        name: "quorum",
        allowed: "a whole number from 1 to 16",
        help: "how many of the probes have to be answered",
        kind: Kind::Number,
        put: |settings, value| value.within(1, 16).map(|n| settings.limit(Limit::Quorum(n))),
    },
    Key {
        name: "probe-interval",
        allowed: "a time from 200ms to 1h, like 500ms, 2s or 5m",
        help: "how often it is asked",
        kind: Kind::Text,
        put: |settings, value| value.time(ms(200), HOUR).map(|t| settings.limit(Limit::Interval(t))),
    },
    Key {
        name: "probe-timeout",
        allowed: "a time from 100ms to 10s, like 500ms or 2s",
        help: "the longest time that an answer is waited for",
        kind: Kind::Text,
        put: |settings, value| value.time(ms(100), ms(10_000)).map(|t| settings.limit(Limit::Timeout(t))),
    },
    Key {
        name: "down-after",
        allowed: "a whole number from 1 to 20",
        help: "so many unanswered volleys at all probes take it down",
        kind: Kind::Number,
        put: |settings, value| value.within(1, 20).map(|n| settings.limit(Limit::DownAfter(n))),
    },
    Key {
        name: "up-after",
        allowed: "a whole number from 1 to 100",
        help: "so many good rounds in a row bring it back",
        kind: Kind::Number,
        put: |settings, value| value.within(1, 100).map(|n| settings.limit(Limit::UpAfter(n))),
    },
    Key {
        name: "max-loss",
        allowed: "percent from 1 to 100",
        help: "more loss than this degrades it; 100 never does",
        kind: Kind::Number,
        put: |settings, value| value.within(1, 100).map(|n| settings.limit(Limit::MaxLoss(n))),
    },
    Key {
        name: "max-latency",
        allowed: "a time from 1ms to 10s, like 200ms",
        help: "a longer median round-trip time degrades it; 10s never does",
        kind: Kind::Text,
        put: |settings, value| value.time(ms(1), ms(10_000)).map(|t| settings.limit(Limit::MaxLatency(t))),
    },
    Key {
        name: "max-jitter",
        allowed: "a time from 1ms to 10s, like 50ms",
        help: "more difference between round-trip times degrades it; 10s never does",
        kind: Kind::Text,
        put: |settings, value| value.time(ms(1), ms(10_000)).map(|t| settings.limit(Limit::MaxJitter(t))),
    },
    Key {
        name: "window",
        allowed: "a time from 5s to 10m, like 30s",
        help: "what loss, latency and jitter are measured over",
        kind: Kind::Text,
        put: |settings, value| value.time(ms(5000), ms(600_000)).map(|t| settings.limit(Limit::Window(t))),
    },
    Key {
        name: "hold",
        allowed: "a time from 0s to 10m, like 10s",
        help: "how long it is held back after a second failure; doubled with each further one",
        kind: Kind::Text,
        put: |settings, value| value.time(ms(0), ms(600_000)).map(|t| settings.limit(Limit::Hold(t))),
    },
    Key {
        name: "failback",
        allowed: FailbackMode::ALLOWED,
        help: "what becomes of its running flows when new ones go to a better uplink; force where it is metered",
        kind: Kind::Text,
        put: |settings, value| {
            value.text().and_then(FailbackMode::named).map(|mode| settings.failback = Some(mode))
        },
    },
    Key {
        name: "drain-time",
        allowed: FailbackMode::TIMES,
        help: "how long flows have to end where failback is drain",
        kind: Kind::Text,
        put: |settings, value| FailbackMode::time(value).map(|time| settings.drain_time = Some(time)),
    },
    Key {
        name: "nat6",
        allowed: Nat6::ALLOWED,
        help: "what becomes of IPv6 sources that are not its own and leave by it",
        kind: Kind::Text,
        put: |settings, value| value.text()?.parse().ok().map(|nat6| settings.nat6 = Some(nat6)),
    },
    Key {
        name: "prefix",
        allowed: "at most 16 IPv6 prefixes of the internet, of 16 to 64 bits, like 2001:db8:1::/56; outside of TOML with ; \
                  between them",
        help: "the prefixes that are delegated by it; those that its manager knows unless told otherwise",
        kind: Kind::Texts,
        put: |settings, value| {
            let read = |text: &str| text.trim().parse::<Ipv6Net>().ok().filter(is_delegable);
            let prefixes = value.text()?.split(';').map(read).collect::<Option<Vec<_>>>()?;
            let all = settings.prefix.get_or_insert_default();
            all.extend(prefixes);
            (all.len() <= MOST_PREFIXES).then_some(())
        },
    },
    Key {
        name: "routes",
        allowed: ROUTES,
        help: "what lies behind it: new flows to there use it, whatever the method says",
        kind: Kind::Texts,
        put: |settings, value| {
            let leads = value.text()?.split(';').map(|text| lead(text.trim())).collect::<Option<Vec<_>>>()?;
            settings.routes.get_or_insert_default().extend(leads);
            Some(())
        },
    },
];

/// More would only cost.
const MOST_PROBES: usize = 16;

const HOUR: Duration = Duration::from_secs(3600);

fn ms(time: u64) -> Duration {
    Duration::from_millis(time)
}

/// The keys that stand ahead of all sections.
pub static GLOBALS: [Key<Config>; 1] = [Key {
    name: "all-down",
    allowed: "keep or block",
    help: "while no uplink leads out: keep the managers' own default routes, or let nothing out",
    kind: Kind::Text,
    put: |config, value| {
        config.all_down = match value.text()? {
            "keep" => AllDown::Keep,
            "block" => AllDown::Block,
            _ => return None,
        };
        Some(())
    },
}];

/// The sections that stand once, for all uplinks, and their keys.
pub static SECTIONS: [(&str, &[Key<Config>]); 3] =
    [("balance", &BALANCE), ("router", &ROUTER), ("firewall", &FIREWALL)];

/// The keys of `match`.
pub static CRITERIA: [Key<Matcher>; 4] = [
    Key {
        name: "interface",
        allowed: "an interface name, with * and ? for what may vary, or a list of them",
        help: "the name of the interface",
        kind: Kind::Texts,
        put: |matcher, value| value.text().and_then(Pattern::new).map(|name| matcher.interface.push(name)),
    },
    Key {
        name: "connection",
        allowed: "the name or the UUID of a NetworkManager connection, or the path of a .network file",
        help: "the connection that is active on the link",
        kind: Kind::Text,
        put: |matcher, value| {
            let connection = value.text().filter(|text| !text.is_empty());
            connection.map(|text| matcher.connection = Some(text.to_owned()))
        },
    },
    Key {
        name: "type",
        allowed: LinkType::ALLOWED,
        help: "the type of the link",
        kind: Kind::Text,
        put: |matcher, value| {
            let kind = value.text().and_then(|text| text.parse().ok());
            kind.map(|kind| matcher.kind = Some(kind))
        },
    },
    Key {
        name: "mac",
        allowed: "a hardware address like 02:00:5e:00:53:01",
        help: "the hardware address of the link",
        kind: Kind::Text,
        put: |matcher, value| {
            let mac = value.text().and_then(|text| text.parse().ok());
            mac.map(|mac| matcher.mac = Some(mac))
        },
    },
];
