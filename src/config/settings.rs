//! What can be said of an uplink, and how one saying overlays another.
//!
//! Refuses to know what holds where nothing is said: that is for whoever knows the uplink.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use ipnet::Ipv6Net;

use super::keys::{Key, Refusal, Value};
use super::routes::{Lead, NO_FILES};
use super::table::SETTINGS;
use crate::core::balance::Rate;
use crate::core::extra::ExtraRoute;
use crate::core::health::Limit;
use crate::core::nat6::Nat6;
use crate::core::net::{Tier, UplinkName, Weight};
use crate::core::probe::{Kind, Probe};
use crate::core::quota::{Amount, Day, Quota, USUAL_SOFT};
use crate::core::uplink::Failback;

/// What one place says of an uplink; by default nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Its name.
    pub name: Option<UplinkName>,
    /// Its share within its tier.
    pub weight: Option<Weight>,
    /// Its rank.
    pub tier: Option<Tier>,
    /// Whether traffic over it costs money.
    pub metered: Option<bool>,
    /// What its line can receive.
    pub download: Option<Rate>,
    /// What its line can send.
    pub upload: Option<Rate>,
    /// What may go over it from one billing day to the next.
    pub quota: Option<Amount>,
    /// The billing day.
    pub quota_day: Option<Day>,
    /// The share of it, in percent, from which on others are used first.
    pub quota_soft: Option<u8>,
    /// Whether it is left alone.
    pub ignore: Option<bool>,
    /// Whom to ask whether it leads out; an empty list for nobody.
    pub probes: Option<Vec<Probe>>,
    /// The limits that are other than usual.
    pub limits: Vec<Limit>,
    /// What becomes of its running flows when new ones go elsewhere.
    pub failback: Option<FailbackMode>,
    /// How long they have to end where they are drained.
    pub drain_time: Option<Duration>,
    /// What becomes of IPv6 sources of others that leave by it.
    pub nat6: Option<Nat6>,
    /// The IPv6 prefixes that are its own.
    pub prefix: Option<Vec<Ipv6Net>>,
    /// What lies behind it.
    pub routes: Option<Vec<Lead>>,
}

/// What becomes of running flows on an uplink that lives on while a better one takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailbackMode {
    /// They stay until they end.
    Keep,
    /// They stay for a while.
    Drain,
    /// They are moved at once.
    Force,
}

impl FailbackMode {
    /// The words for [`FailbackMode::named`], for error messages.
    pub const ALLOWED: &str = "keep, drain or force";
    /// What [`FailbackMode::time`] takes.
    pub(super) const TIMES: &str = "a time from 1s to 24h, like 5m";
    /// How long they stay where nobody says it.
    const DRAIN_TIME: Duration = Duration::from_secs(300);

    /// The mode of a word.
    pub fn named(word: &str) -> Option<Self> {
        Some(match word {
            "keep" => FailbackMode::Keep,
            "drain" => FailbackMode::Drain,
            "force" => FailbackMode::Force,
            _ => return None,
        })
    }

    /// How long they are to stay.
    pub(super) fn time(value: &Value) -> Option<Duration> {
        value.time(Duration::from_secs(1), Duration::from_secs(24 * 3600))
    }

    /// What that comes to, with so much time where it is asked for.
    pub fn with(self, drain_time: Option<Duration>) -> Failback {
        match self {
            FailbackMode::Keep => Failback::Keep,
            FailbackMode::Drain => Failback::Drain(drain_time.unwrap_or(Self::DRAIN_TIME)),
            FailbackMode::Force => Failback::Force,
        }
    }
}

impl Settings {
    /// What holds when another place has its say later: the later wins, key by key.
    pub fn overlaid(self, later: Settings) -> Settings {
        Settings {
            name: later.name.or(self.name),
            weight: later.weight.or(self.weight),
            tier: later.tier.or(self.tier),
            metered: later.metered.or(self.metered),
            download: later.download.or(self.download),
            upload: later.upload.or(self.upload),
            quota: later.quota.or(self.quota),
            quota_day: later.quota_day.or(self.quota_day),
            quota_soft: later.quota_soft.or(self.quota_soft),
            ignore: later.ignore.or(self.ignore),
            probes: later.probes.or(self.probes),
            limits: later.limits.into_iter().fold(self.limits, overlaid),
            failback: later.failback.or(self.failback),
            drain_time: later.drain_time.or(self.drain_time),
            nat6: later.nat6.or(self.nat6),
            prefix: later.prefix.or(self.prefix),
            routes: later.routes.or(self.routes),
        }
    }

    /// What may go over it, where both the amount and the day are said.
    pub fn quota(&self) -> Option<Quota> {
        let soft = self.quota_soft.unwrap_or(USUAL_SOFT);
        self.quota.zip(self.quota_day).map(|(limit, day)| Quota { limit, day, soft })
    }

    /// The routes that are known. Those of a file are, once it was read.
    pub fn routes(&self) -> Vec<ExtraRoute> {
        let known = |lead: &Lead| match lead {
            Lead::Route(route) => Some(*route),
            Lead::File(_) => None,
        };
        self.routes.iter().flatten().filter_map(known).collect()
    }

    /// Sets a limit.
    pub(super) fn limit(&mut self, limit: Limit) {
        self.limits = overlaid(std::mem::take(&mut self.limits), limit);
    }

    /// Reads the same keys where they are kept as plain text, such as a NetworkManager profile's user data.
    ///
    /// What is wrong is left out and told; the rest counts. An empty value says nothing. Programs are not run for a
    /// profile: users may write their own ones, and the daemon has privileges.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> (Settings, Vec<String>) {
        let mut settings = Settings::default();
        let mut problems = Vec::new();
        for (key, value) in pairs {
            match Assignment::new(key, value) {
                Ok(assignment) if assignment.runs_programs() => problems.push(NO_PROGRAMS.to_owned()),
                Ok(assignment) if assignment.reads_files() => problems.push(NO_FILES.to_owned()),
                Ok(assignment) => assignment.apply(&mut settings),
                Err(refusal) => problems.push(refusal.to_string()),
            }
        }
        if settings.quota.is_some() && settings.quota_day.is_none() {
            settings.quota = None;
            problems.push(NO_DAY.to_owned());
        }
        (settings, problems)
    }
}

/// Limits with another in the place of the one for the same thing.
fn overlaid(mut limits: Vec<Limit>, later: Limit) -> Vec<Limit> {
    limits.retain(|limit| std::mem::discriminant(limit) != std::mem::discriminant(&later));
    limits.push(later);
    limits
}

/// Why a profile cannot have a program run.
pub const NO_PROGRAMS: &str = "probes: command: is allowed in the files under /etc/uplinkd only";

/// Why a quota alone says too little.
pub const NO_DAY: &str =
    "quota: without quota-day beside it nobody knows when it is renewed; a day of the month from 1 to 31";

/// A well-formed `KEY=VALUE`; without a value it takes back what was said.
#[derive(Debug, Clone)]
pub struct Assignment {
    key: &'static Key<Settings>,
    value: Option<Value>,
}

impl Assignment {
    /// Accepts a key of [`SETTINGS`] with a value that it allows, or with none.
    pub fn new(key: &str, value: &str) -> Result<Self, Refusal> {
        let key = Key::find(&SETTINGS, key).ok_or_else(|| Refusal::key(key, &Key::names(&SETTINGS)))?;
        let value = match value {
            "" => None,
            text => Some(key.put_text(&mut Settings::default(), text)?),
        };
        Ok(Assignment { key, value })
    }

    /// Whether it has the daemon run a program, which only the administrator's files may.
    pub fn runs_programs(&self) -> bool {
        let mut settings = Settings::default();
        self.apply(&mut settings);
        settings.probes.iter().flatten().any(|probe| probe.kind() == Kind::Command)
    }

    /// Whether it has the daemon read a file, which only the administrator's files may.
    pub fn reads_files(&self) -> bool {
        let mut settings = Settings::default();
        self.apply(&mut settings);
        settings.routes.iter().flatten().any(|lead| matches!(lead, Lead::File(_)))
    }

    /// The name of the key.
    pub fn key(&self) -> &'static str {
        self.key.name
    }

    /// The value; none where the key is to be removed.
    pub fn value(&self) -> Option<&Value> {
        self.value.as_ref()
    }

    fn apply(&self, settings: &mut Settings) {
        if let Some(value) = &self.value {
            self.key.put(settings, value);
        }
    }
}

impl FromStr for Assignment {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let (key, value) = text.split_once('=').ok_or_else(|| Refusal::no_value(text))?;
        Assignment::new(key, value)
    }
}

impl fmt::Display for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}=", self.key())?;
        self.value.as_ref().map_or(Ok(()), |value| value.fmt(f))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_wins_key_by_key() {
        let (first, _) = Settings::from_pairs([("name", "fiber"), ("weight", "2"), ("metered", "true")]);
        let (later, _) = Settings::from_pairs([("weight", "7"), ("ignore", "false"), ("tier", "3")]);
        let (both, problems) = Settings::from_pairs([
            ("name", "fiber"),
            ("weight", "7"),
            ("tier", "3"),
            ("metered", "true"),
            ("ignore", "false"),
        ]);
        assert_eq!(problems, [""; 0]);
        assert_eq!(first.overlaid(later), both);
    }

    #[test]
    fn what_is_wrong_is_told_and_the_rest_counts() {
        let (settings, problems) = Settings::from_pairs([
            ("weight", "0"),
            ("weight", "two"),
            ("tier", "256"),
            ("tier", "-1"),
            ("metered", "yes"),
            ("name", "main"),
            ("name", ""),
            ("wieght", "2"),
            ("match", "eth0"),
            ("ignore", "true"),
        ]);
        assert_eq!(settings, Settings { ignore: Some(true), ..Settings::default() });
        assert_eq!(
            problems,
            [
                "weight: 0 is not allowed; a whole number from 1 to 256",
                "weight: two is not allowed; a whole number from 1 to 256",
                "tier: 256 is not allowed; a whole number from 1 to 255",
                "tier: -1 is not allowed; a whole number from 1 to 255",
                "metered: yes is not allowed; true or false",
                "name: main is not allowed; 1 to 32 of A-Z a-z 0-9 . _ - beginning with a letter, \
                 and not main, local, default, all or none",
                "wieght: no such key here; did you mean `weight`? allowed: name, weight, tier, metered, download, upload, quota, quota-day, quota-soft, ignore, probes, quorum, probe-interval, probe-timeout, down-after, up-after, max-loss, max-latency, max-jitter, window, hold, failback, drain-time, nat6, prefix, routes",
                "match: no such key here; allowed: name, weight, tier, metered, download, upload, quota, quota-day, quota-soft, ignore, probes, quorum, probe-interval, probe-timeout, down-after, up-after, max-loss, max-latency, max-jitter, window, hold, failback, drain-time, nat6, prefix, routes",
            ]
        );
    }

    #[test]
    fn a_quota_without_its_day_does_not_count() {
        let (settings, problems) = Settings::from_pairs([("quota", "5 GB"), ("weight", "2")]);
        assert_eq!((settings.quota, settings.weight), (None, Weight::new(2)));
        assert_eq!(problems, [NO_DAY]);
        let (settings, problems) = Settings::from_pairs([("quota", "5 GB"), ("quota-day", "3")]);
        assert!(settings.quota().is_some() && problems.is_empty());
    }

    #[test]
    fn a_profile_runs_no_programs() {
        let (settings, problems) =
            Settings::from_pairs([("probes", "icmp:192.0.2.1; command:/tmp/x"), ("weight", "2")]);
        assert_eq!((settings.probes, settings.weight), (None, Weight::new(2)));
        assert_eq!(problems, [NO_PROGRAMS]);
    }

    #[test]
    fn a_profile_has_routes_and_reads_no_files() {
        let (settings, problems) =
            Settings::from_pairs([("routes", "192.0.2.0/24;10.0.0.0/8 via 198.51.100.9")]);
        assert_eq!((settings.routes().len(), problems), (2, Vec::new()));
        let (settings, problems) = Settings::from_pairs([("routes", "192.0.2.0/24; /etc/passwd")]);
        assert_eq!((settings.routes, problems), (None, vec![NO_FILES.to_owned()]));
    }

    #[test]
    fn of_a_list_the_one_that_is_wrong_is_cited() {
        let (_, problems) = Settings::from_pairs([
            ("probes", "icmp:192.0.2.1; tcp:192.0.2.2 ;dns:192.0.2.3"),
            ("prefix", "2001:db8:1::/56;2001:db8:2::/65"),
            ("probes", "icmp:192.0.2.1;none"),
        ]);
        let cited =
            ["probes: tcp:192.0.2.2 is", "prefix: 2001:db8:2::/65 is", "probes: icmp:192.0.2.1;none is"];
        assert_eq!(problems.len(), cited.len(), "{problems:?}");
        for (problem, cited) in problems.iter().zip(cited) {
            assert!(problem.starts_with(cited), "{problem}");
        }
        // The same words stand beside a profile's key, where no program is run.
        assert!(
            problems[0].contains("command:/PATH in the files under /etc/uplinkd only"),
            "{}",
            problems[0]
        );
    }

    #[test]
    fn probes_are_a_list_with_semicolons_and_not_too_many() {
        let read = |text: &str| Assignment::new("probes", text).map(|_| ());
        assert!(read("icmp:192.0.2.1; dns:192.0.2.2").is_ok());
        assert!(read("none").is_ok());
        assert!(read(&["icmp:192.0.2.1"; 17].join(";")).is_err());
    }

    #[test]
    fn assignments_are_read_and_shown() {
        let read = |text: &str| text.parse::<Assignment>().map(|a| a.to_string()).map_err(|e| e.to_string());
        assert_eq!(read("weight=05").as_deref(), Ok("weight=5"));
        assert_eq!(read("weight=").as_deref(), Ok("weight="));
        assert_eq!(read("name=fiber").as_deref(), Ok("name=fiber"));
        assert_eq!(read("weight"), Err("weight: not of the form KEY=VALUE".to_owned()));
        assert_eq!(read("name=a=b").map_err(|e| e.starts_with("name: a=b is not allowed; ")), Err(true));
        assert_eq!(
            read("=2"),
            Err("\"\": no such key here; allowed: name, weight, tier, metered, download, upload, quota, quota-day, quota-soft, ignore, probes, quorum, probe-interval, probe-timeout, down-after, up-after, max-loss, max-latency, max-jitter, window, hold, failback, drain-time, nat6, prefix, routes".to_owned())
        );
    }
}
