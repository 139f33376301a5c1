//! What the tests of failover share: traffic of every kind, what a fault did to it, and figures over many runs.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::ctl::{Ctl, on};
use crate::kit::address::{BULK, ECHO, echoes4, echoes6, internet4, internet6};
use crate::kit::process::{Daemon, command};
use crate::kit::{Lab, NewFlows, NewTcp, Ns, Recovery, SteadyTcp, UdpFlow, UdpReport, Via, isp_of};

/// Shorter pauses are a busy machine's.
const GAP: Duration = Duration::from_millis(500);
/// Between two looks at the status, which is asked by a process that competes with what is measured.
const LOOK: Duration = Duration::from_millis(50);

pub(crate) fn rest(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn to(n: u8, port: u16) -> SocketAddr {
    (internet4(n), port).into()
}

/// A family of the uplink of an ISP, as the status shows it.
pub(crate) fn leg<'a>(status: &'a Value, isp: u8, family: &str) -> &'a Value {
    &on(status, &format!("eth{isp}"))[family]
}

pub(crate) fn state(status: &Value, isp: u8) -> &str {
    leg(status, isp, "ipv4")["state"].as_str().unwrap_or_default()
}

/// The ISPs that new flows of a family use.
pub(crate) fn in_use(lab: &Lab, status: &Value, family: &str) -> Vec<u8> {
    let numbers = lab.isps().iter().map(|isp| isp.number());
    numbers.filter(|&isp| leg(status, isp, family)["active"] == true).collect()
}

/// Waits until the status is as wanted, without asking all the time; returns how long that took, and the status.
#[track_caller]
pub(crate) fn until(
    lab: &Lab,
    what: &str,
    limit: Duration,
    wanted: impl Fn(&Value) -> bool,
) -> (Duration, Value) {
    let start = Instant::now();
    let status = lab.machine.wait_status(what, limit, |status| {
        let found = wanted(status);
        if !found {
            thread::sleep(LOOK);
        }
        found
    });
    (start.elapsed(), status)
}

/// Waits until new IPv4 flows use these ISPs.
#[track_caller]
pub(crate) fn until_used(lab: &Lab, isps: &[u8]) -> Duration {
    until(lab, &format!("ISPs {isps:?} in use"), seconds(40), |status| in_use(lab, status, "ipv4") == isps).0
}

#[track_caller]
pub(crate) fn until_state(lab: &Lab, isp: u8, wanted: &str) -> Duration {
    let what = format!("ISP {isp} {wanted}");
    until(lab, &what, seconds(60), |status| state(status, isp) == wanted).0
}

/// What has become of the uplink of an ISP in IPv4, oldest first: the state that it came to, and why.
pub(crate) fn transitions(lab: &Lab, isp: u8) -> Vec<(String, String)> {
    let name = on(&lab.machine.status(), &lab.isp(isp).device())["name"].clone();
    let text = lab.machine.cmd(&["uplinkctl", "events", "--json"]).ok();
    let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of_it = events.filter(|event| event["uplink"] == name && event["family"] == "ipv4");
    let words = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    of_it.map(|event| (words(&event["to"]), words(&event["why"]))).collect()
}

/// What a fault did to one flow, or to all new ones.
#[derive(Debug)]
pub(crate) struct Felt {
    /// By which ISP it went before.
    pub(crate) before: Option<u8>,
    /// How long nothing came; none where it never came again.
    pub(crate) outage: Option<Duration>,
    /// What the program was told.
    pub(crate) errors: Vec<String>,
}

impl Felt {
    fn new(before: Option<u8>, recovery: Recovery, errors: Vec<String>) -> Felt {
        let Recovery { silent_for, recovered, .. } = recovery;
        let outage = recovered.map(|recovered| if silent_for > GAP { recovered } else { silent_for });
        Felt { before, outage, errors }
    }
}

/// Something that runs while a fault comes.
#[derive(Debug)]
pub(crate) enum Flow {
    Running(UdpFlow),
    Fresh(NewFlows),
    Connections(NewTcp),
    Steady(SteadyTcp),
}

impl Flow {
    pub(crate) fn stop(self, fault: Instant) -> Felt {
        match self {
            Flow::Running(flow) => {
                let report = flow.stop();
                Felt::new(way_before(&report, fault), report.recovery(fault), Vec::new())
            }
            Flow::Fresh(flows) => fresh(&flows.stop(), fault),
            Flow::Connections(connections) => fresh(&connections.stop(), fault),
            Flow::Steady(steady) => {
                let report = steady.stop();
                let at = fault.saturating_duration_since(report.start);
                let before = report.connections.iter().rfind(|(made, _)| *made <= at);
                let errors = report.errors.iter().map(|(at, why)| format!("{why} at {at:.1?}")).collect();
                Felt::new(before.and_then(|(_, seen)| isp_of(*seen)), report.recovery(fault), errors)
            }
        }
    }
}

/// Of those that are new all the time, some may go well all along: what counts is how long any failed.
fn fresh(report: &UdpReport, fault: Instant) -> Felt {
    let failed = report.failed_until(fault);
    let ended = report.answers().last().is_some_and(|(at, _)| *at + GAP > report.ran);
    let before = way_before(report, fault);
    Felt { before, outage: ended.then_some(failed), errors: Vec::new() }
}

fn way_before(report: &UdpReport, fault: Instant) -> Option<u8> {
    let at = fault.saturating_duration_since(report.start);
    report.answers().iter().rfind(|(arrived, _)| *arrived <= at).and_then(|(_, by)| *by)
}

/// Traffic of the LAN client and of the router itself, with what each is called.
#[derive(Debug)]
pub(crate) struct Mix(Vec<(&'static str, Flow)>);

impl Mix {
    /// So many of everything that runs on, over IPv4.
    pub(crate) fn start(lab: &Lab, copies: u8) -> Mix {
        Mix::over(lab, copies, &echoes4(), to)
    }

    /// The same over IPv6.
    pub(crate) fn start6(lab: &Lab, copies: u8) -> Mix {
        Mix::over(lab, copies, &echoes6(), |n, port| (internet6(n), port).into())
    }

    fn over(lab: &Lab, copies: u8, echoes: &[SocketAddr], to: fn(u8, u16) -> SocketAddr) -> Mix {
        let (client, router) = (&lab.client().ns, lab.machine.netns());
        let (any, tick) = (Via::any(), Duration::from_millis(20));
        let mut flows = vec![
            ("client: new UDP flows", Flow::Fresh(NewFlows::start(client, &any, echoes, 50))),
            ("client: new connections", Flow::Connections(NewTcp::start(client, &any, echoes, 25, GAP))),
            ("router: new UDP flows", Flow::Fresh(NewFlows::start(router, &any, echoes, 25))),
        ];
        for n in 1..=copies {
            flows.extend([
                ("client: running UDP", Flow::Running(UdpFlow::start(client, &any, to(n, ECHO), tick))),
                ("router: running UDP", Flow::Running(UdpFlow::start(router, &any, to(n, ECHO), tick))),
                ("client: download", Flow::Steady(SteadyTcp::download(client, &any, to(n, BULK), None))),
                ("router: dialogue", Flow::Steady(dialogue(router, to(n, ECHO)))),
            ]);
        }
        Mix(flows)
    }

    /// Stops it all, and adds what it felt to the figures; `lost` is the ISP that failed.
    #[track_caller]
    pub(crate) fn stop(self, fault: Instant, lost: u8, figures: &mut Figures) {
        for (name, flow) in self.0 {
            let felt = flow.stop(fault);
            if !felt.errors.is_empty() {
                println!("  {name}: {:?}", felt.errors);
            }
            // Who was elsewhere felt nothing of it.
            if felt.before == Some(lost) || name.contains("new") {
                let outage = felt.outage.unwrap_or_else(|| panic!("{name} never came back: {felt:?}"));
                figures.add(name, outage);
            }
        }
    }
}

/// A dialogue that nobody but the kernel tells of its end.
fn dialogue(ns: &Ns, dest: SocketAddr) -> SteadyTcp {
    SteadyTcp::dialogue(ns, &Via::any(), dest, Duration::from_millis(100), None)
}

/// How long each took, over many runs.
#[derive(Debug, Default)]
pub(crate) struct Figures(BTreeMap<String, Vec<Duration>>);

impl Figures {
    pub(crate) fn add(&mut self, what: &str, time: Duration) {
        self.0.entry(what.to_owned()).or_default().push(time);
    }

    /// Takes out those of one thing.
    pub(crate) fn take(&mut self, what: &str) -> Vec<Duration> {
        self.0.remove(what).unwrap_or_default()
    }

    /// Prints them, and demands that none took longer than the limit.
    #[track_caller]
    pub(crate) fn judge(&self, title: &str, limit: Duration) {
        println!("{title}\n{self}");
        for (what, times) in &self.0 {
            assert!(times.iter().all(|time| *time < limit), "{title}: {what}: {times:?}");
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, times) in &self.0 {
            let mut times = times.clone();
            times.sort_unstable();
            let (median, most) = (times[times.len() / 2].as_secs_f64(), times[times.len() - 1].as_secs_f64());
            writeln!(f, "  FIGURE {what}: median {median:.2} s, most {most:.2} s of {}", times.len())?;
        }
        Ok(())
    }
}

/// Records what the kernel says of the default routes in main.
#[derive(Debug)]
pub(crate) struct RouteWatch {
    file: PathBuf,
    _monitor: Daemon,
}

impl RouteWatch {
    pub(crate) fn start(lab: &Lab) -> RouteWatch {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let file = std::env::temp_dir().join(format!("uplinkd-routes-{}-{number}", std::process::id()));
        let log = File::create(&file).expect("the temporary directory is writable");
        let words = command(&["ip", "-4", "-o", "monitor", "route"]);
        let watch = RouteWatch { _monitor: Daemon::start_logged(lab.machine.netns(), &words, log), file };
        // Nothing is to be missed before it listens: it has begun when it tells of a route that comes.
        lab.machine.wait("a monitor that listens", seconds(5), || {
            lab.machine.netns().ip("route add 192.0.2.77 dev lo\nroute del 192.0.2.77 dev lo");
            fs::read_to_string(&watch.file).is_ok_and(|text| text.contains("192.0.2.77")).then_some(())
        });
        watch
    }

    /// What became of default routes in main so far, but for the one that is for packets that nobody sends.
    pub(crate) fn defaults(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        let in_main = text
            .lines()
            .filter(|line| line.contains("default") && !line.contains(" table ") && !line.contains(" tos "));
        in_main.map(str::to_owned).collect()
    }
}

impl Drop for RouteWatch {
    fn drop(&mut self) {
        fs::remove_file(&self.file).ok();
    }
}
