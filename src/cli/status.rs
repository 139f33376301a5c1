//! `uplinkctl status`: the document, or a table that a person reads at a glance.

mod detail;

use std::fmt::Write;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::client::{Client, meant};
use super::{Failure, print};
use crate::config::Balance;
use crate::core::net::Family;
use crate::core::quota::Amount;
use crate::status::{LegStatus, PolicyLeg, PolicyStatus, RaceStatus, Status, UplinkStatus};

pub(super) async fn run(name: Option<&str>, json: bool) -> Result<(), Failure> {
    let client = Client::connect().await?;
    let Some(name) = name else {
        if json {
            let answer: String = client.ask("Status").await?;
            return print(&format!("{answer}\n"));
        }
        return print(&render(&client.status().await?, OffsetDateTime::now_utc()));
    };
    let status = client.status().await?;
    let alerts = alerts(&status);
    let uplink = meant(status.uplinks, name)?;
    match json {
        true => print(&format!("{}\n", serde_json::to_string(&uplink).map_err(Failure::new)?)),
        false => print(&(alerts + &detail::render(&uplink, OffsetDateTime::now_utc()))),
    }
}

/// The table.
pub(super) fn render(status: &Status, now: OffsetDateTime) -> String {
    let mut text = alerts(status);
    let forwards = match (status.forwarding.ipv4, status.forwarding.ipv6) {
        (true, true) => "forwards ipv4 and ipv6",
        (true, false) => "forwards ipv4",
        (false, true) => "forwards ipv6",
        (false, false) => "does not forward",
    };
    let count = match status.uplinks.len() {
        0 => "no uplinks".to_owned(),
        1 => "1 uplink".to_owned(),
        n => format!("{n} uplinks"),
    };
    let method = match status.method.as_str() {
        "" | "weighted" => String::new(),
        method => format!(", method {method}"),
    };
    let _ = writeln!(text, "uplinkd {}: {count}{method}; this machine {forwards}\n", status.version);
    if !status.uplinks.is_empty() {
        let mut rows = vec![["", "UPLINK", "DEVICE", "TIER", "WEIGHT", "IPV4", "IPV6"].map(String::from)];
        rows.extend(status.uplinks.iter().map(row));
        table(&mut text, &rows);
        text.push('\n');
    }
    quotas(&mut text, status);
    let legs: Vec<_> = status.uplinks.iter().flat_map(|uplink| health(uplink, now)).collect();
    if !legs.is_empty() {
        let head = ["UPLINK", "FAMILY", "STATE", "SINCE", "RTT", "LOSS", "WHY"].map(String::from);
        table(&mut text, &[vec![head], legs].concat());
        text.push('\n');
    }
    if !status.policies.is_empty() {
        let head = ["POLICY", "METHOD", "ON FAILURE", "IPV4", "IPV6"].map(String::from);
        let rows = status.policies.iter().map(|policy| {
            let (method, on_failure) = (policy.method.clone(), policy.on_failure.clone());
            [policy.name.clone(), method, on_failure, policy.ipv4.said(), policy.ipv6.said()]
        });
        table(&mut text, &[vec![head], rows.collect()].concat());
        text.push('\n');
    }
    races(&mut text, status);
    share(&mut text, Family::V4, status, &status.active.ipv4, status.blocked.ipv4);
    share(&mut text, Family::V6, status, &status.active.ipv6, status.blocked.ipv6);
    status.router.lines().iter().for_each(|line| text.extend([line, "\n"]));
    if !status.notes.is_empty() {
        text.push_str("\nNotes:\n");
        for note in &status.notes {
            let _ = writeln!(text, "  - {}", note.replace('\n', "\n    "));
        }
    }
    text
}

/// What became of the races of policies.
fn races(text: &mut String, status: &Status) {
    let row = |name: &str, family: Family, races: &RaceStatus| {
        let time =
            races.known_after_us.map_or_else(|| "-".to_owned(), |us| format!("{} ms", us.div_ceil(1000)));
        let leads = races.leads.iter().map(|(uplink, count)| format!("{uplink} {count}"));
        let leads = Vec::from_iter(leads).join(", ");
        [
            name.to_owned(),
            family.to_string(),
            format!("{} of {}", races.won, races.run),
            time,
            Amount(races.bytes).to_string(),
            races.hits.to_string(),
            if leads.is_empty() { "-".to_owned() } else { leads },
        ]
    };
    let of = |policy: &PolicyStatus| {
        let legs = policy.legs().into_iter();
        legs.filter_map(|(family, leg)| Some(row(&policy.name, family, leg.races.as_ref()?)))
            .collect::<Vec<_>>()
    };
    let rows: Vec<_> = status.policies.iter().flat_map(of).collect();
    if !rows.is_empty() {
        let head =
            ["RACES", "FAMILY", "WON", "KNOWN AFTER", "BYTES", "FOLLOWED", "LEAD TO"].map(String::from);
        table(text, &[vec![head], rows].concat());
        text.push('\n');
    }
}

/// What stands ahead of everything else.
fn alerts(status: &Status) -> String {
    status.alerts.iter().map(|alert| format!("{alert}\n\n")).collect()
}

fn row(uplink: &UplinkStatus) -> [String; 7] {
    let dot = if uplink.active { "*" } else { "" };
    let tier = format!("{}{}", uplink.tier, if uplink.metered { " metered" } else { "" });
    [
        dot.to_owned(),
        uplink.name.clone(),
        uplink.interface.clone(),
        tier,
        uplink.weight.to_string(),
        leg(&uplink.ipv4),
        leg(&uplink.ipv6),
    ]
}

/// What has been used of each quota.
fn quotas(text: &mut String, status: &Status) {
    let row = |uplink: &UplinkStatus| {
        let quota = uplink.quota.as_ref()?;
        let [limit, used, left] =
            [quota.limit_bytes, quota.used_bytes, quota.left_bytes].map(|n| Amount(n).to_string());
        let used = format!("{used} ({} %)", quota.percent());
        Some([
            uplink.name.clone(),
            limit,
            used,
            left,
            quota.renewal().to_owned(),
            quota.level.as_str().into(),
        ])
    };
    let rows: Vec<_> = status.uplinks.iter().filter_map(row).collect();
    if !rows.is_empty() {
        let head = ["UPLINK", "QUOTA", "USED", "LEFT", "RENEWED", "LIMITS"].map(String::from);
        table(text, &[vec![head], rows].concat());
        text.push('\n');
    }
}

/// How each family stands that is offered at all.
fn health(uplink: &UplinkStatus, now: OffsetDateTime) -> Vec<[String; 7]> {
    let row = |(family, leg): (Family, &LegStatus)| {
        let figures = leg.health.as_ref();
        // What was measured before it went down is over.
        let figures = figures.filter(|_| leg.state != "down");
        let rtt = figures.and_then(|h| h.rtt_us).map_or("-".to_owned(), milliseconds);
        let loss =
            figures.filter(|h| h.samples > 0).map_or("-".to_owned(), |h| format!("{} %", h.loss_percent));
        let held = figures.and_then(|h| h.held_for_s).map(|s| format!(", held for {s} s more"));
        let why = format!("{}{}", leg.why, held.unwrap_or_default());
        [uplink.name.clone(), family.to_string(), leg.state.clone(), since(leg, now), rtt, loss, why]
    };
    uplink.legs().into_iter().filter(|(_, leg)| leg.state != "absent").map(row).collect()
}

fn milliseconds(us: u64) -> String {
    format!("{}.{} ms", us / 1000, us / 100 % 10)
}

/// For how long it has been as it is.
fn since(leg: &LegStatus, now: OffsetDateTime) -> String {
    let since = leg.since.as_ref().and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    let Some(since) = since else { return "-".to_owned() };
    match (now - since).whole_seconds().max(0) {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s @ 7200..172_800 => format!("{} h", s / 3600),
        s => format!("{} d", s / 86_400),
    }
}

fn leg(leg: &LegStatus) -> String {
    let mut text = leg.state.clone();
    if leg.state == "up" && !leg.active {
        text.push_str(", stands by");
    }
    if let Some(address) = leg.addresses.first() {
        let _ = write!(text, " {}", address.split('/').next().unwrap_or(address));
    }
    if let Some(gateway) = &leg.gateway {
        let _ = write!(text, " via {gateway}");
    }
    text
}

fn table<const N: usize>(text: &mut String, rows: &[[String; N]]) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

fn share(text: &mut String, family: Family, status: &Status, names: &[String], blocked: bool) {
    let weight =
        |name: &String| status.uplinks.iter().find(|u| u.name == *name).map_or(1, |u| u32::from(u.weight));
    let total: u32 = names.iter().map(weight).sum();
    let part = |name: &String| format!("{name} {} %", (weight(name) * 100 + total / 2) / total.max(1));
    let parts: Vec<_> = names.iter().map(part).collect();
    let offered =
        |uplink: &UplinkStatus| uplink.legs().iter().any(|(of, leg)| *of == family && leg.state != "absent");
    let refused = |policy: &PolicyStatus| {
        let is_blocked = |(of, leg): &(Family, &PolicyLeg)| *of == family && leg.state == "blocked";
        policy.name == Balance::NAME && policy.legs().iter().any(is_blocked)
    };
    let parts = match parts.is_empty() {
        true if status.policies.iter().any(refused) => {
            format!(
                "no uplink; all that no policy leads elsewhere is refused, as {} enforces one that cannot carry it",
                Balance::NAME
            )
        }
        true if blocked => {
            "no uplink; nothing leaves by the managers' own default routes (all-down = \"block\")".to_owned()
        }
        true if status.uplinks.iter().any(offered) => "no uplink; the managers' own routes decide".to_owned(),
        true => "no uplink".to_owned(),
        false => parts.join(", "),
    };
    let _ = writeln!(text, "New {family} flows: {parts}");
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::core::quota::Level;
    use crate::status::{Active, Families, ForwardStatus, QuotaStatus, RouterStatus};

    pub(in crate::cli) fn uplink(name: &str, slot: u8, weight: u16) -> UplinkStatus {
        UplinkStatus {
            name: name.into(),
            interface: format!("eth{slot}"),
            manager: None,
            profile: None,
            slot,
            table: 7000 + u32::from(slot),
            mark: String::new(),
            tier: 1,
            weight,
            metered: false,
            active: true,
            drained: false,
            manual: None,
            failback: "keep".into(),
            traffic: None,
            quota: None,
            ipv4: LegStatus {
                state: "up".into(),
                why: "icmp:1.1.1.1 answered in 12 ms".into(),
                since: Some("2026-11-21T08:00:00Z".into()),
                active: true,
                gateway: Some(format!("192.168.{slot}.254")),
                addresses: vec![format!("192.168.{slot}.10/24")],
                metric: Some(100),
                ..LegStatus::default()
            },
            ipv6: LegStatus { state: "absent".into(), ..LegStatus::default() },
        }
    }

    /// That of a machine with such uplinks, of which none is used.
    fn status(uplinks: Vec<UplinkStatus>) -> Status {
        Status {
            version: String::new(),
            uplinks,
            method: "weighted".into(),
            active: Active { ipv4: vec![], ipv6: vec![] },
            blocked: Families::default(),
            forwarding: Families::default(),
            router: RouterStatus::default(),
            policies: Vec::new(),
            alerts: vec![],
            notes: vec![],
        }
    }

    #[test]
    fn a_person_sees_uplinks_shares_and_notes() {
        let status = Status {
            version: "1.2.3".into(),
            active: Active { ipv4: vec!["dsl".into(), "cable".into()], ipv6: vec![] },
            forwarding: Families { ipv4: true, ipv6: false },
            router: RouterStatus {
                enable: "auto".into(),
                active: true,
                masquerade: true,
                lan: vec!["br0".into(), "wlan0".into()],
                forwards: vec![ForwardStatus {
                    protocol: "both".into(),
                    port: "8080".into(),
                    to: "10.1.0.9:80".into(),
                    uplinks: vec!["dsl".into(), "cable".into()],
                }],
                reaches: [("wlan0".into(), vec!["eth2".into()])].into(),
                firewall: Some(vec!["tcp:22".into()]),
            },
            notes: vec!["something".into()],
            ..status(vec![uplink("dsl", 1, 2), uplink("cable", 2, 1)])
        };
        let expected = "\
uplinkd 1.2.3: 2 uplinks; this machine forwards ipv4

   UPLINK  DEVICE  TIER  WEIGHT  IPV4                                IPV6
*  dsl     eth1    1     2       up 192.168.1.10 via 192.168.1.254  absent
*  cable   eth2    1     1       up 192.168.2.10 via 192.168.2.254  absent

UPLINK  FAMILY  STATE  SINCE  RTT  LOSS  WHY
dsl     ipv4    up     5 min  -    -     icmp:1.1.1.1 answered in 12 ms
cable   ipv4    up     5 min  -    -     icmp:1.1.1.1 answered in 12 ms

New ipv4 flows: dsl 67 %, cable 33 %
New ipv6 flows: no uplink
LAN: br0, wlan0; private IPv4 sources are masqueraded
Group: wlan0 reaches eth2
Forward: tcp and udp 8080 of dsl, cable to 10.1.0.9:80
Firewall: uplinks are closed but for tcp:22

Notes:
  - something
";
        assert_eq!(
            render(&status, OffsetDateTime::parse("2026-11-21T08:05:30Z", &Rfc3339).unwrap()),
            expected.replace(
                "IPV4                                IPV6",
                "IPV4                               IPV6"
            )
        );
    }

    #[test]
    fn a_person_sees_what_is_left_of_quotas() {
        let mut status = status(vec![uplink("dsl", 1, 1), uplink("lte", 2, 1)]);
        assert!(!render(&status, OffsetDateTime::UNIX_EPOCH).contains("QUOTA"));
        status.uplinks[1].quota = Some(QuotaStatus {
            level: Level::Soft,
            limit_bytes: 50_000_000_000,
            soft_bytes: 40_000_000_000,
            used_bytes: 41_250_000_000,
            left_bytes: 8_750_000_000,
            day: 15,
            since: Some("2026-11-15".into()),
            renewed: Some("2026-12-15".into()),
            former_bytes: None,
        });
        let text = render(&status, OffsetDateTime::UNIX_EPOCH);
        let lines: Vec<_> = text.lines().skip_while(|line| !line.contains("QUOTA")).take(3).collect();
        assert_eq!(
            lines,
            [
                "UPLINK  QUOTA  USED            LEFT    RENEWED     LIMITS",
                "lte     50 GB  41.2 GB (82 %)  8.7 GB  2026-12-15  soft",
                "",
            ]
        );
    }

    #[test]
    fn that_no_configuration_is_in_use_stands_ahead_of_everything_else() {
        let status = Status {
            version: "1.2.3".into(),
            alerts: vec!["NO CONFIGURATION IS IN USE: a file\n  is broken".into()],
            notes: vec!["something".into()],
            ..status(vec![])
        };
        let told = render(&status, OffsetDateTime::UNIX_EPOCH);
        let head = "NO CONFIGURATION IS IN USE: a file\n  is broken\n\nuplinkd 1.2.3: no uplinks;";
        assert!(told.starts_with(head), "{told}");
        assert!(told.ends_with("Notes:\n  - something\n"), "{told}");
    }

    #[test]
    fn what_becomes_of_new_flows_is_told_where_no_uplink_leads_out() {
        let mut status = status(vec![uplink("dsl", 1, 2)]);
        let told = |status: &Status| render(status, OffsetDateTime::UNIX_EPOCH);
        let kept = told(&status);
        assert!(kept.contains("\nNew ipv4 flows: no uplink; the managers' own routes decide\n"), "{kept}");
        status.blocked.ipv4 = true;
        let blocked = told(&status);
        assert!(
            blocked.contains("\nNew ipv4 flows: no uplink; nothing leaves by the managers' own"),
            "{blocked}"
        );
        assert!(blocked.contains("\nNew ipv6 flows: no uplink\n"), "{blocked}");
        let leg = |state: &str| serde_json::json!({ "state": state, "uplinks": [] });
        let enforced = serde_json::json!({
            "name": "[balance]", "origin": "uplinkd.toml:2", "method": "enforced", "on_failure": "block",
            "ipv4": leg("blocked"), "ipv6": leg("next"),
        });
        status.policies.push(serde_json::from_value(enforced).unwrap());
        let refused = told(&status);
        assert!(
            refused.contains(
                "\nNew ipv4 flows: no uplink; all that no policy leads elsewhere is refused, as [balance]"
            ),
            "{refused}"
        );
        assert!(refused.contains("\nNew ipv6 flows: no uplink\n"), "{refused}");
    }
}
