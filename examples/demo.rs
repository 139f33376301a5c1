//! `make demo`: a router between two ISPs, from the installation of the package to its removal, in front of your eyes.
//!
//! Everything happens in the lab, in namespaces of its own that are gone at the end: the network of this host is never
//! touched. Ends with 0 only if every step did what it says.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

use ctl::{Ctl, on, ours};
use kit::address::{ECHO, echoes4, internet4};
use kit::spec::profile_auto;
use kit::{Install, Lab, NewFlows, Spec, UdpFlow, UdpReport, Via, available, connect_many, isp_of, poll};
use left::Traces;
use show::{Show, seconds};

#[path = "../tests/lab/ctl.rs"]
#[allow(dead_code, reason = "the tests and the demo each use a part of it")]
mod ctl;
#[path = "../tests/lab/kit/mod.rs"]
#[allow(dead_code, unused_imports, unused_macros, reason = "the tests and the demo each use a part of it")]
pub mod kit;
#[path = "demo/left.rs"]
mod left;
#[path = "demo/show.rs"]
mod show;

const SOON: Duration = Duration::from_secs(10);
const NAMES: [&str; 2] = ["fibre", "cable"];
const CONNECTIONS: usize = 300;
/// What a busy host is allowed until flows have left a provider that is silent; an idle one takes some 0.7 s.
const MOVED: Duration = Duration::from_secs(2);
/// What a busy host is allowed; an idle one shows some 20 ms.
const GO_ON: Duration = Duration::from_millis(250);

/// Ctrl-C was pressed.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let spec = NAMES.iter().zip(1..).fold(Spec::router(), |spec, (name, isp)| {
        spec.profile(name, &profile_auto(name, &format!("eth{isp}"), ""))
    });
    let package = match (available(&spec), Install::newest()) {
        (Ok(()), Ok(Install::Deb(package))) => package,
        (Err(reason), _) | (_, Err(reason)) => {
            eprintln!("demo: cannot run here: {reason}; \"make demo\" sees to what can be seen to");
            return ExitCode::FAILURE;
        }
        (Ok(()), Ok(Install::None)) => return ExitCode::FAILURE,
    };
    take_interrupts();
    let mut show = Show::new();
    let outcome = catch_unwind(AssertUnwindSafe(|| story(&mut show, spec, &package)));
    if INTERRUPTED.load(Ordering::Relaxed) {
        eprintln!("\ndemo: interrupted; everything is taken away");
        return ExitCode::from(130);
    }
    if matches!(outcome, Ok(Some(()))) && show.wrong() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Have Ctrl-C end the demo at its next pause, so that the lab is taken apart and nothing stays.
fn take_interrupts() {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
    // Threads that are started later, which is all of them, inherit this; commands do not.
    if signals.thread_block().is_err() {
        return;
    }
    thread::spawn(move || {
        if signals.wait().is_ok() {
            INTERRUPTED.store(true, Ordering::Relaxed);
            // What breaks from here on broke because of this.
            std::panic::set_hook(Box::new(|_| ()));
        }
    });
}

/// Waits; nothing when somebody wants the demo to end.
fn pause(milliseconds: u64) -> Option<()> {
    sleep(Duration::from_millis(milliseconds));
    (!INTERRUPTED.load(Ordering::Relaxed)).then_some(())
}

fn story(show: &mut Show, spec: Spec, package: &Path) -> Option<()> {
    let start = Instant::now();
    show.step("Boot a Debian router with two ISPs and a LAN, in namespaces of their own", "");
    let lab = Lab::start(spec);
    let traces = Traces::of(&lab);
    let before = lab.machine.foreign_snapshot();

    install(show, &lab, package)?;
    balance(show, &lab)?;
    unplug(show, &lab)?;
    plug_in(show, &lab)?;
    kill(show, &lab)?;
    silence(show, &lab)?;
    remove(show, &lab, &before);

    show.step("Take the lab apart", "");
    drop(lab);
    let left = poll(SOON, || traces.left().is_empty().then_some(()));
    show.claim(left.is_some(), &format!("no process, namespace or mount is left {}", traces.left()));
    show.end(start.elapsed());
    Some(())
}

fn install(show: &mut Show, lab: &Lab, package: &Path) -> Option<()> {
    let file = package.file_name().unwrap_or_default().to_string_lossy();
    show.step("Install the package; there is nothing to configure", &format!("# apt install ./{file}"));
    let took = lab.machine.install_deb(package);
    let start = Instant::now();
    lab.machine.wait_active(2);
    show.say(&format!("apt took {}; both uplinks active {} later", seconds(took), seconds(start.elapsed())));
    pause(0)?;
    show.command("See what it found", &lab.machine, "uplinkctl");
    show.command(
        "See the default route that it made, ahead of NetworkManager's",
        &lab.machine,
        "ip route show default",
    );
    Some(())
}

fn balance(show: &mut Show, lab: &Lab) -> Option<()> {
    let count = format!("client$ nc 203.0.113.N {ECHO}    # {CONNECTIONS} times, N from 1 to 48");
    show.step(
        &format!("Open {CONNECTIONS} connections from the LAN and see by which ISP they arrive"),
        &count,
    );
    split(show, lab, 36..=64)?;

    show.command("Give the fibre twice the share", &lab.machine, "uplinkctl set fibre weight=2");
    lab.machine.wait_status("weight 2", SOON, |status| on(status, "eth1")["weight"] == 2);
    show.step("The same again", &count);
    split(show, lab, 54..=79)
}

/// Connects and shows the shares; the first ISP's, in percent, must be as `wanted`.
fn split(show: &mut Show, lab: &Lab, wanted: RangeInclusive<usize>) -> Option<()> {
    pause(0)?;
    let shares = connect_many(&lab.client().ns, &Via::any(), CONNECTIONS, &echoes4());
    for (name, isp) in NAMES.iter().zip(1..) {
        show.bar(name, shares.of(isp), CONNECTIONS);
    }
    let share = shares.of(1) * 100 / CONNECTIONS;
    show.must(shares.answered() == CONNECTIONS, "every connection is answered");
    show.must(wanted.contains(&share), &format!("the fibre has {wanted:?} percent"));
    Some(())
}

/// What the client does meanwhile: 16 flows of 100 datagrams a second, and 200 new flows a second.
struct Traffic {
    start: Instant,
    running: Vec<UdpFlow>,
    fresh: NewFlows,
}

impl Traffic {
    fn start(lab: &Lab) -> Traffic {
        let ns = &lab.client().ns;
        let flow = |n| {
            let to = SocketAddr::from((internet4(n), ECHO));
            UdpFlow::start(ns, &Via::any(), to, Duration::from_millis(10))
        };
        let running = (1..=16).map(flow).collect();
        let fresh = NewFlows::start(ns, &Via::any(), &echoes4(), 200);
        Traffic { start: Instant::now(), running, fresh }
    }

    fn stop(self) -> (Vec<UdpReport>, UdpReport) {
        (self.running.into_iter().map(UdpFlow::stop).collect(), self.fresh.stop())
    }
}

fn unplug(show: &mut Show, lab: &Lab) -> Option<()> {
    show.step(
        "Pull the fibre's cable while the client has 16 flows running and opens 200 new ones a second",
        "isp-1# ip link set lan down",
    );
    let traffic = Traffic::start(lab);
    pause(1000)?;
    let cut = traffic.start.elapsed();
    lab.isp(1).carrier(false);
    lab.machine.wait_active(1);
    pause(1500)?;
    let (running, fresh) = traffic.stop();
    let began_on = |report: &UdpReport| report.seen().first().and_then(|(seen, _)| isp_of(*seen));
    for (name, isp) in NAMES.iter().zip(1..) {
        let flows: Vec<_> = running.iter().filter(|report| began_on(report) == Some(isp)).collect();
        let lost = flows.iter().map(|report| report.lost()).max().unwrap_or(0);
        let silence = flows.iter().map(|report| report.longest_silence()).max().unwrap_or_default();
        let (what, count, silence_ms) = (format!("running, on the {name}"), flows.len(), silence.as_millis());
        show.say(&format!("{what:22}  {count:3}   lost by any {lost:2}   longest silence {silence_ms} ms"));
        show.must(silence < GO_ON, "running flows go on");
        show.must(isp == 1 || lost == 0, "flows on the cable notice nothing");
    }
    let (lost, sent) = fresh.lost_between(cut, cut + Duration::from_secs(1));
    show.say(&format!("{:22}  {sent:3}   lost        {lost:2}", "new, the second after"));
    show.must(lost * 50 <= sent, "new flows go on");
    show.command("See what it made of that", &lab.machine, "uplinkctl");
    Some(())
}

fn plug_in(show: &mut Show, lab: &Lab) -> Option<()> {
    show.step("Plug the cable in again", "isp-1# ip link set lan up");
    let start = Instant::now();
    lab.isp(1).carrier(true);
    lab.machine.wait_active(2);
    show.say(&format!("both uplinks active again after {}", seconds(start.elapsed())));
    split(show, lab, 54..=79)
}

fn kill(show: &mut Show, lab: &Lab) -> Option<()> {
    let daemon = || lab.machine.cmd(&["systemctl", "show", "-P", "MainPID", "uplinkd"]).ok();
    let command = "systemctl kill --signal=KILL uplinkd";
    show.step("Kill the daemon under the same traffic", &format!("# {command}"));
    let old = daemon();
    let traffic = Traffic::start(lab);
    pause(500)?;
    lab.machine.sh(command).ok();
    lab.machine
        .wait("another daemon", SOON, || (!["0", old.trim()].contains(&daemon().trim())).then_some(()));
    lab.machine.wait_active(2);
    pause(500)?;
    let (running, fresh) = traffic.stop();
    let sent = fresh.sent() + running.iter().map(UdpReport::sent).sum::<usize>();
    let lost = fresh.lost() + running.iter().map(UdpReport::lost).sum::<usize>();
    show.claim(lost == 0, &format!("{lost} of {sent} packets were lost, and systemd has started another"));
    Some(())
}

fn silence(show: &mut Show, lab: &Lab) -> Option<()> {
    show.step(
        "Cut the fibre's provider off behind its modem, so that the link looks well, under the same traffic",
        "isp-1# nft add rule inet isp forward drop",
    );
    let traffic = Traffic::start(lab);
    pause(1500)?;
    let fault = Instant::now();
    lab.isp(1).silent(true);
    lab.machine.wait_active(1);
    pause(1500)?;
    let (running, fresh) = traffic.stop();
    let recovered: Option<Vec<Duration>> = running.iter().map(|flow| flow.recovered_after(fault)).collect();
    let slowest = recovered.and_then(|all| all.into_iter().max());
    let words = slowest.map_or("never".to_owned(), seconds);
    show.claim(
        slowest.is_some_and(|time| time < MOVED),
        &format!("running flows go on over the cable after {words}"),
    );
    let failed = fresh.failed_until(fault);
    show.claim(failed < MOVED, &format!("new ones are answered again after {}", seconds(failed)));
    show.command("See what it made of that", &lab.machine, "uplinkctl; uplinkctl events | tail -n 3");
    Some(())
}

fn remove(show: &mut Show, lab: &Lab, before: &str) {
    let command = "apt-get -q -y remove uplinkd";
    show.step("Remove the package", "# apt remove uplinkd");
    lab.machine.sh(command).ok();
    let ours = ours(&lab.machine);
    show.claim(ours.is_empty(), &format!("nothing of it is left in the kernel {}", ours.trim()));
    let after = lab.machine.foreign_snapshot();
    let differs = left::difference(before, &after);
    show.claim(differs.is_empty(), &format!("all other routes, rules and settings are as before {differs}"));
}
