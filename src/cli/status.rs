//! `uplinkctl status`: the document, or a table that a person reads at a glance.

use std::fmt::Write;

use super::client::Client;
use super::{Failure, print};
use crate::status::{LegStatus, Status, UplinkStatus};

pub(super) async fn run(json: bool) -> Result<(), Failure> {
    let answer: String = Client::connect().await?.ask("Status").await?;
    if json {
        return print(&format!("{answer}\n"));
    }
    let status: Status = serde_json::from_str(&answer).map_err(Failure::new)?;
    print(&render(&status))
}

/// The table.
pub(super) fn render(status: &Status) -> String {
    let mut text = String::new();
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
    let _ = writeln!(text, "uplinkd {}: {count}; this machine {forwards}\n", status.version);
    if !status.uplinks.is_empty() {
        let mut rows = vec![["", "UPLINK", "DEVICE", "TIER", "WEIGHT", "IPV4", "IPV6"].map(String::from)];
        rows.extend(status.uplinks.iter().map(row));
        table(&mut text, &rows);
        text.push('\n');
    }
    share(&mut text, "ipv4", status, &status.active.ipv4);
    share(&mut text, "ipv6", status, &status.active.ipv6);
    if !status.notes.is_empty() {
        text.push_str("\nNotes:\n");
        for note in &status.notes {
            let _ = writeln!(text, "  - {}", note.replace('\n', "\n    "));
        }
    }
    text
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

fn share(text: &mut String, family: &str, status: &Status, names: &[String]) {
    let weight =
        |name: &String| status.uplinks.iter().find(|u| u.name == *name).map_or(1, |u| u32::from(u.weight));
    let total: u32 = names.iter().map(weight).sum();
    let part = |name: &String| format!("{name} {} %", (weight(name) * 100 + total / 2) / total.max(1));
    let parts: Vec<_> = names.iter().map(part).collect();
    let parts = if parts.is_empty() { "no uplink".to_owned() } else { parts.join(", ") };
    let _ = writeln!(text, "New {family} flows: {parts}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{Active, Forwarding};

    fn uplink(name: &str, slot: u8, weight: u16) -> UplinkStatus {
        UplinkStatus {
            name: name.into(),
            interface: format!("eth{slot}"),
            profile: None,
            slot,
            table: 7000 + u32::from(slot),
            mark: String::new(),
            tier: 1,
            weight,
            metered: false,
            active: true,
            ipv4: LegStatus {
                state: "up".into(),
                active: true,
                gateway: Some(format!("192.168.{slot}.254")),
                addresses: vec![format!("192.168.{slot}.10/24")],
                metric: Some(100),
            },
            ipv6: LegStatus { state: "absent".into(), ..LegStatus::default() },
        }
    }

    #[test]
    fn a_person_sees_uplinks_shares_and_notes() {
        let status = Status {
            version: "1.2.3".into(),
            uplinks: vec![uplink("dsl", 1, 2), uplink("cable", 2, 1)],
            active: Active { ipv4: vec!["dsl".into(), "cable".into()], ipv6: vec![] },
            forwarding: Forwarding { ipv4: true, ipv6: false },
            notes: vec!["something".into()],
        };
        let expected = "\
uplinkd 1.2.3: 2 uplinks; this machine forwards ipv4

   UPLINK  DEVICE  TIER  WEIGHT  IPV4                                IPV6
*  dsl     eth1    1     2       up 192.168.1.10 via 192.168.1.254  absent
*  cable   eth2    1     1       up 192.168.2.10 via 192.168.2.254  absent

New ipv4 flows: dsl 67 %, cable 33 %
New ipv6 flows: no uplink

Notes:
  - something
";
        assert_eq!(
            render(&status),
            expected.replace(
                "IPV4                                IPV6",
                "IPV4                               IPV6"
            )
        );
    }
}
