//! `uplinkctl set`: writes where the link is configured, so that the setting goes where the profile goes.
//!
//! Only NetworkManager offers to have its profiles written. What it does not keep is written into a file of ours, for
//! the interface; a .network file is the administrator's own.

use std::fmt::Display;
use std::path::Path;
use std::str::FromStr;

use super::client::{Client, WAIT_SECONDS};
use super::{Failure, print};
use crate::config::{self, Assignment, Refusal};
use crate::core::balance::Rate;
use crate::core::net::{IfName, UplinkName};
use crate::core::observed::Manager;
use crate::core::quota::Amount;
use crate::exit;
use crate::sources::nm::{self, Storage};
use crate::status::{DirectionStatus, TrafficStatus, UplinkStatus};
use crate::world::chain;

pub(super) async fn run(name: &str, assignments: &[String]) -> Result<(), Failure> {
    let assignments = assignments.iter().map(|text| parse(text)).collect::<Result<Vec<_>, _>>()?;
    let client = Client::connect().await?;
    let uplink = client.uplink(name).await?;
    let assignments = with_day(assignments, &uplink)?;
    let done = match (uplink.manager, &uplink.profile) {
        (Some(Manager::NetworkManager), Some(profile)) => {
            if assignments.iter().any(Assignment::runs_programs) {
                return Err(Failure::with(exit::USAGE, config::NO_PROGRAMS));
            }
            if assignments.iter().any(Assignment::reads_files) {
                return Err(Failure::with(exit::USAGE, config::NO_FILES));
            }
            let pairs: Vec<_> = assignments
                .iter()
                .map(|a| (a.key().to_owned(), a.value().map(ToString::to_string)))
                .collect();
            let written = nm::set_user_data(client.bus(), &profile.uuid, &pairs).await;
            let storage = written.map_err(|error| {
                let denied = error.dbus_name().is_some_and(|name| name.ends_with("Denied"));
                refused(denied, &error)
            })?;
            let fleeting = match storage {
                Storage::Disk => "",
                Storage::Memory => {
                    ", which is gone after a reboot because the profile is kept in memory only"
                }
            };
            format!("written to NetworkManager's profile {:?}{fleeting}", profile.id)
        }
        _ => {
            let interface = IfName::new(&uplink.interface)
                .ok_or_else(|| Failure::new("its interface has no usable name"))?;
            let name = UplinkName::try_from(uplink.name.clone()).map_err(Failure::new)?;
            let (path, changed) = config::edit(Path::new(config::MAIN_FILE), &name, &interface, &assignments)
                .map_err(|error| {
                    let denied = matches!(&error, config::Error::Write { source, .. }
                        if source.kind() == std::io::ErrorKind::PermissionDenied);
                    refused(denied, &error)
                })?;
            client.call("Reload", &()).await?;
            told(&path, changed, &assignments)
        }
    };
    print(&format!("{done}\n"))?;
    client.call("Nudge", &WAIT_SECONDS).await?;
    overruled(&client, &uplink, &assignments).await
}

/// A quota is written with its day beside it, as both have to be said in one place: with the one that counts now, where no
/// other is said. Refused where nobody says any.
fn with_day(mut assignments: Vec<Assignment>, uplink: &UplinkStatus) -> Result<Vec<Assignment>, Failure> {
    let says = |key| assignments.iter().rfind(|assignment| assignment.key() == key);
    let is_set = |key| says(key).map(|assignment| assignment.value().is_some());
    let (quota, day, now) = (is_set("quota"), is_set("quota-day"), uplink.quota.as_ref());
    match (quota, day, now) {
        (Some(true), None, Some(now)) => assignments.push(parse(&format!("quota-day={}", now.day))?),
        (Some(true), None | Some(false), _) | (None, Some(false), Some(_)) => {
            return Err(Failure::with(exit::USAGE, config::NO_DAY));
        }
        _ => {}
    }
    Ok(assignments)
}

/// What was done to the file.
fn told(path: &Path, changed: bool, assignments: &[Assignment]) -> String {
    let path = path.display();
    match changed {
        true => format!("written to {path}"),
        false if assignments.iter().all(|assignment| assignment.value().is_none()) => {
            format!("nothing to take back: {path} does not say it")
        }
        false => format!("nothing to write: {path} says so already"),
    }
}

/// Why it could not be written, and who could do it.
fn refused(denied: bool, error: &dyn std::error::Error) -> Failure {
    match denied {
        true => {
            let why = format!("{}; root and the members of group uplinkd may", chain(error));
            Failure::with(exit::PERMISSION, why)
        }
        false => Failure::new(chain(error)),
    }
}

fn parse(text: &str) -> Result<Assignment, Failure> {
    text.parse().map_err(|refusal: Refusal| Failure::with(exit::USAGE, refusal))
}

/// Says so when a file overrules what was written.
async fn overruled(
    client: &Client,
    before: &UplinkStatus,
    assignments: &[Assignment],
) -> Result<(), Failure> {
    let status = client.status().await?;
    let Some(now) = status.uplinks.iter().find(|uplink| uplink.slot == before.slot) else { return Ok(()) };
    for (at, assignment) in assignments.iter().enumerate() {
        if assignments[at + 1..].iter().any(|later| later.key() == assignment.key()) {
            continue;
        }
        let Some(wanted) = assignment.value().map(ToString::to_string) else { continue };
        let key = assignment.key();
        if let Some(is) = otherwise(key, &wanted, now) {
            print(&format!("but {key} stays {is}: a file under /etc/uplinkd says so, and files win\n"))?;
        }
    }
    Ok(())
}

/// What a key says, where that is not what was wanted.
fn otherwise(key: &str, wanted: &str, now: &UplinkStatus) -> Option<String> {
    let quota = now.quota.as_ref();
    let capacity = |of: fn(&TrafficStatus) -> &DirectionStatus| {
        let configured = now.traffic.as_ref().map(of).filter(|direction| !direction.learned);
        differs(configured.and_then(|direction| direction.capacity_bps).map(Rate), wanted)
    };
    match key {
        "name" => differs(Some(now.name.clone()), wanted),
        "weight" => differs(Some(now.weight), wanted),
        "tier" => differs(Some(now.tier), wanted),
        "metered" => differs(Some(now.metered), wanted),
        "quota" => differs(quota.map(|quota| Amount(quota.limit_bytes)), wanted),
        // Without a quota neither says anything.
        "quota-day" => differs(Some(quota?.day), wanted),
        "quota-soft" => differs(Some(quota?.soft_percent()), wanted),
        "download" => capacity(|traffic| &traffic.down),
        "upload" => capacity(|traffic| &traffic.up),
        _ => None,
    }
}

/// What something is, where that is not what the text says; a text that says nothing is as it was wanted.
fn differs<T: FromStr + PartialEq + Display>(is: Option<T>, wanted: &str) -> Option<String> {
    let wanted = wanted.parse::<T>().ok()?;
    (is.as_ref() != Some(&wanted)).then(|| is.map_or_else(|| "unset".to_owned(), |is| is.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::quota::{Amount, Day, Ledger, Quota};
    use crate::status::QuotaStatus;

    fn quota(limit: u64, day: u8) -> Option<QuotaStatus> {
        let day = Day::new(day).unwrap();
        Some(QuotaStatus::of(&Quota { limit: Amount(limit), day, soft: 80 }, &Ledger::new(day)))
    }

    #[test]
    fn a_quota_is_written_with_its_day() {
        let mut uplink = crate::cli::status::tests::uplink("lte", 1, 1);
        let written = |texts: &[&str], uplink: &UplinkStatus| {
            let assignments = texts.iter().map(|text| text.parse().unwrap()).collect();
            let pair = |a: &Assignment| {
                format!("{}={}", a.key(), a.value().map(ToString::to_string).unwrap_or_default())
            };
            with_day(assignments, uplink).ok().map(|all| all.iter().map(pair).collect::<Vec<_>>().join(" "))
        };
        let lacks = |texts: &[&str], uplink: &UplinkStatus| written(texts, uplink).is_none();
        assert!(lacks(&["quota=50 GB"], &uplink) && lacks(&["quota=50GB", "quota-day="], &uplink));
        assert!(!lacks(&["quota=50 GB", "quota-day=15"], &uplink) && !lacks(&["weight=2"], &uplink));
        assert!(!lacks(&["quota=50GB", "quota="], &uplink));
        uplink.quota = quota(1, 7);
        // It may be another file, or no file at all, that says the day now.
        assert_eq!(written(&["quota=60 GB"], &uplink).as_deref(), Some("quota=60 GB quota-day=7"));
        assert_eq!(
            written(&["quota=60 GB", "quota-day=9"], &uplink).as_deref(),
            Some("quota=60 GB quota-day=9")
        );
        assert!(lacks(&["quota-day="], &uplink) && lacks(&["quota=60GB", "quota-day="], &uplink));
        assert!(!lacks(&["quota=", "quota-day="], &uplink) && !lacks(&["quota-soft=90"], &uplink));
    }

    #[test]
    fn what_a_file_overrules_is_told_of_every_key_that_shows() {
        let mut now = crate::cli::status::tests::uplink("lte", 1, 1);
        let capacity = |rate, learned| DirectionStatus { bps: None, capacity_bps: Some(rate), learned };
        now.traffic = Some(TrafficStatus { down: capacity(16_000_000, false), up: capacity(5, true) });
        let told = |key, wanted, now: &UplinkStatus| otherwise(key, wanted, now).unwrap_or_default();
        assert_eq!(told("quota", "50GB", &now), "unset");
        assert_eq!([told("quota-day", "3", &now), told("quota-soft", "70", &now)], ["", ""]);
        assert_eq!([told("download", "16M", &now), told("download", "8M", &now)], ["", "16 Mbit/s"]);
        assert_eq!(told("upload", "1M", &now), "unset", "what was learned was not said");
        now.quota = quota(50_000_000_000, 3);
        assert_eq!([told("quota", "50GB", &now), told("quota", "60 GB", &now)], ["", "50 GB"]);
        assert_eq!([told("quota-day", "3", &now), told("quota-day", "4", &now)], ["", "3"]);
        assert_eq!([told("quota-soft", "80", &now), told("quota-soft", "85", &now)], ["", "80"]);
        assert_eq!(
            [told("tier", "1", &now), told("tier", "2", &now), told("hold", "5", &now)],
            ["", "1", ""]
        );
    }

    #[test]
    fn it_is_told_whether_anything_was_written() {
        let said = |changed, texts: &[&str]| {
            let assignments: Vec<Assignment> = texts.iter().map(|text| text.parse().unwrap()).collect();
            told(Path::new("/etc/x.toml"), changed, &assignments)
        };
        assert_eq!(said(true, &["weight=2", "name="]), "written to /etc/x.toml");
        assert_eq!(said(false, &["weight=2", "name="]), "nothing to write: /etc/x.toml says so already");
        assert_eq!(said(false, &["name=", "tier="]), "nothing to take back: /etc/x.toml does not say it");
    }
}
