//! The daemon in a lab's machine, as its users see it.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::kit::{Install, Lab, Machine, Spec};

/// A firewall that starts or reloads drops probes as well, and an uplink that is given up for it takes a while.
const LIMIT: Duration = Duration::from_secs(60);

/// The package under test.
#[track_caller]
pub(crate) fn package() -> PathBuf {
    match Install::newest() {
        Ok(Install::Deb(path)) => path,
        other => panic!("there is no package to test: {other:?}"),
    }
}

/// A lab with the package installed.
#[track_caller]
pub(crate) fn installed(spec: Spec) -> Spec {
    spec.install(Install::Deb(package()))
}

/// A lab in which no uplink is held back, however often a test takes it away.
pub(crate) fn unheld(spec: Spec) -> Spec {
    spec.file(
        "/etc/uplinkd/conf.d/10-lab.toml",
        "[[uplink]]\nmatch.interface = \"eth*\"\nhold = \"0s\"\n",
        0o644,
    )
}

/// What the tests ask of `uplinkctl`.
pub(crate) trait Ctl {
    /// `uplinkctl status --json`, or null while there is no daemon.
    fn status(&self) -> Value;
    /// Waits until the status is as wanted.
    fn wait_status(&self, what: &str, limit: Duration, wanted: impl Fn(&Value) -> bool) -> Value;
    /// Waits until new IPv4 flows use so many uplinks.
    fn wait_active(&self, count: usize) -> Value;
    /// Waits until new flows of both families use two uplinks.
    fn wait_both_families(&self) -> Value;
}

impl Ctl for Machine {
    fn status(&self) -> Value {
        serde_json::from_str(&self.cmd(&["uplinkctl", "status", "--json"]).stdout).unwrap_or(Value::Null)
    }

    #[track_caller]
    fn wait_status(&self, what: &str, limit: Duration, wanted: impl Fn(&Value) -> bool) -> Value {
        self.wait(what, limit, || Some(self.status()).filter(&wanted))
    }

    #[track_caller]
    fn wait_active(&self, count: usize) -> Value {
        let wanted =
            |status: &Value| status["active"]["ipv4"].as_array().is_some_and(|list| list.len() == count);
        self.wait_status(&format!("{count} active uplinks"), LIMIT, wanted)
    }

    #[track_caller]
    fn wait_both_families(&self) -> Value {
        self.wait_status("two uplinks in both families", LIMIT, |status| {
            ["ipv4", "ipv6"].iter().all(|of| status["active"][of].as_array().map(Vec::len) == Some(2))
        })
    }
}

/// The uplink that a status shows on an interface.
pub(crate) fn on<'a>(status: &'a Value, interface: &str) -> &'a Value {
    let uplinks = status["uplinks"].as_array().map_or(&[][..], Vec::as_slice);
    uplinks.iter().find(|uplink| uplink["interface"] == interface).unwrap_or(&Value::Null)
}

/// Gives the uplink of an ISP a weight, as a user would.
pub(crate) fn set(lab: &Lab, isp: u8, assignment: &str) {
    let status = lab.machine.status();
    let name = on(&status, &lab.isp(isp).device())["name"].as_str().unwrap_or_default().to_owned();
    lab.machine.cmd(&["uplinkctl", "set", &name, assignment]).ok();
}

/// The kernel's objects that are ours, as text.
pub(crate) fn ours(machine: &Machine) -> String {
    let script = "for f in -4 -6; do ip $f rule | grep 'proto \\(177\\|uplinkd\\)'; ip $f route show table all proto 177; done; \
                  nft list tables | grep uplinkd || true";
    machine.cmd(&["sh", "-c", script]).stdout
}
