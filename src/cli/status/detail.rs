//! All that is known of one uplink, each figure beside the limit that it is held against.

use std::fmt::Write;

use time::OffsetDateTime;

use super::{milliseconds, since};
use crate::core::observed::Manager;
use crate::status::{HealthStatus, LegStatus, TrafficStatus, UplinkStatus};

/// A page about one uplink.
pub(super) fn render(uplink: &UplinkStatus, now: OffsetDateTime) -> String {
    let mut text = format!(
        "{} on {}: slot {}, table {}, mark {}\n  tier {}, weight {}{}, failback {}{}{}\n",
        uplink.name,
        uplink.interface,
        uplink.slot,
        uplink.table,
        uplink.mark,
        uplink.tier,
        uplink.weight,
        if uplink.metered { ", metered" } else { "" },
        uplink.failback,
        if uplink.drained { ", drained by hand" } else { "" },
        uplink.manual.map_or(String::new(), |manual| format!(", held {} by hand", manual.as_str())),
    );
    manager(&mut text, uplink);
    traffic(&mut text, uplink);
    if let Some(quota) = &uplink.quota {
        let _ = writeln!(text, "  {quota}");
    }
    for (family, leg) in uplink.legs() {
        let _ = writeln!(text, "\n{family}: {} for {} ({})", leg.state, since(leg, now), leg.why);
        addresses(&mut text, leg);
        resolvers(&mut text, leg);
        if let Some(health) = &leg.health {
            figures(&mut text, health);
        }
    }
    text
}

fn manager(text: &mut String, uplink: &UplinkStatus) {
    let Some(manager) = uplink.manager else { return };
    let profile = uplink.profile.as_ref().map(|profile| match manager {
        Manager::NetworkManager => format!(", profile {:?} ({})", profile.id, profile.uuid),
        Manager::Networkd => format!(", {}", profile.id),
    });
    let _ = writeln!(text, "  by {manager}{}", profile.unwrap_or_default());
}

fn traffic(text: &mut String, uplink: &UplinkStatus) {
    if let Some(TrafficStatus { down, up }) = &uplink.traffic {
        let _ = writeln!(text, "  down {down}, up {up}");
    }
}

fn addresses(text: &mut String, leg: &LegStatus) {
    if let Some(gateway) = &leg.gateway {
        let _ = writeln!(text, "  {} via {gateway}", leg.addresses.join(", "));
    }
}

fn resolvers(text: &mut String, leg: &LegStatus) {
    if !leg.resolvers.is_empty() {
        let use_of_them = if leg.resolvers_in_use { "" } else { ", not to be asked now" };
        let _ = writeln!(text, "  resolvers {}{use_of_them}", leg.resolvers.join(", "));
    }
}

fn figures(text: &mut String, health: &HealthStatus) {
    let time = |us: Option<u64>| us.map_or("-".to_owned(), milliseconds);
    let mut line = |name: &str, value: String, limit: String| {
        let _ = writeln!(text, "  {name:<12} {value:<12} {limit}");
    };
    line(
        "loss",
        format!("{} %", health.loss_percent),
        format!("degraded above {} %", health.max_loss_percent),
    );
    line("latency", time(health.rtt_us), format!("degraded above {}", milliseconds(health.max_rtt_us)));
    line("jitter", time(health.jitter_us), format!("degraded above {}", milliseconds(health.max_jitter_us)));
    line("measured by", format!("{} probes", health.samples), format!("over {} s", health.window_s));
    line("good rounds", health.good_rounds.to_string(), format!("up after {}", health.up_after));
    let answers = match health.quorum {
        1 => "1 target has to answer".to_owned(),
        n => format!("{n} targets have to answer"),
    };
    let volleys = format!("down after {} unanswered volleys; {answers}", health.down_after);
    line("failures", health.failures.to_string(), volleys);
    if let Some(held) = health.held_for_s {
        line("held", format!("{held} s more"), "before it is used beside better ones".to_owned());
    }
    let pace = format!("a round each {} ms, answers within {} ms", health.interval_ms, health.timeout_ms);
    line("probes", format!("{} bytes", health.probe_bytes), pace);
    if let Some(doubt) = &health.doubt {
        let _ = writeln!(text, "  not condemned: {doubt}");
    }
    for target in &health.targets {
        let said = target.said.as_deref().unwrap_or("not asked yet");
        let _ = writeln!(text, "    {:<28} {said}", target.probe);
    }
}
