//! `uplinkctl set`: writes where the link is configured, so that the setting goes where the profile goes.
//!
//! Only NetworkManager offers to have its profiles written. What it does not keep is written into a file of ours, for
//! the interface; a .network file is the administrator's own.

use std::path::Path;

use super::client::{Client, WAIT_SECONDS};
use super::{Failure, print};
use crate::config::{self, Assignment, Refusal};
use crate::core::net::{IfName, UplinkName};
use crate::core::observed::Manager;
use crate::exit;
use crate::sources::nm::{self, Storage};
use crate::status::UplinkStatus;
use crate::world::chain;

pub(super) async fn run(name: &str, assignments: &[String]) -> Result<(), Failure> {
    let assignments = assignments.iter().map(|text| parse(text)).collect::<Result<Vec<_>, _>>()?;
    let client = Client::connect().await?;
    let uplink = client.uplink(name).await?;
    if lacks_day(&assignments, &uplink) {
        return Err(Failure::with(exit::USAGE, config::NO_DAY));
    }
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

/// Whether it would have a quota, and nobody said when that is renewed.
fn lacks_day(assignments: &[Assignment], uplink: &UplinkStatus) -> bool {
    let says = |key| assignments.iter().rfind(|assignment| assignment.key() == key);
    let is_set = |key| says(key).map(|assignment| assignment.value().is_some());
    let quota = is_set("quota").unwrap_or(uplink.quota.is_some());
    quota && !is_set("quota-day").unwrap_or(uplink.quota.is_some())
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
        let is = match assignment.key() {
            "name" => now.name.clone(),
            "weight" => now.weight.to_string(),
            "tier" => now.tier.to_string(),
            "metered" => now.metered.to_string(),
            _ => continue,
        };
        if is != wanted {
            let key = assignment.key();
            print(&format!("but {key} stays {is}: a file under /etc/uplinkd says so, and files win\n"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::quota::{Amount, Day, Ledger, Quota};
    use crate::status::QuotaStatus;

    #[test]
    fn a_quota_needs_its_day() {
        let mut uplink = crate::cli::status::tests::uplink("lte", 1, 1);
        let lacks = |texts: &[&str], uplink: &UplinkStatus| {
            let assignments: Vec<Assignment> = texts.iter().map(|text| text.parse().unwrap()).collect();
            lacks_day(&assignments, uplink)
        };
        assert!(lacks(&["quota=50 GB"], &uplink) && lacks(&["quota=50GB", "quota-day="], &uplink));
        assert!(!lacks(&["quota=50 GB", "quota-day=15"], &uplink) && !lacks(&["weight=2"], &uplink));
        assert!(!lacks(&["quota=50GB", "quota="], &uplink));
        let quota = Quota { limit: Amount(1), day: Day::FIRST, soft: 80 };
        uplink.quota = Some(QuotaStatus::of(&quota, &Ledger::new(Day::FIRST)));
        assert!(!lacks(&["quota=60GB"], &uplink) && lacks(&["quota-day="], &uplink));
        assert!(!lacks(&["quota=", "quota-day="], &uplink));
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
