//! `make lab-shell`: a shell in the lab's router, with the package installed and a LAN behind it.
//!
//! `lab-shell COMMAND…` runs that instead of the shell. The lab ends with it.

use std::process::ExitCode;

use ctl::{Ctl, installed};
use kit::{Lab, Spec, available};

#[path = "../tests/lab/ctl.rs"]
#[allow(dead_code, reason = "the tests and this each use a part of it")]
mod ctl;
#[path = "../tests/lab/kit/mod.rs"]
#[allow(dead_code, unused_imports, unused_macros, reason = "the tests and this each use a part of it")]
pub mod kit;

fn main() -> ExitCode {
    let spec = Spec::router().ipv6();
    if let Err(reason) = available(&spec) {
        eprintln!("lab-shell: cannot run here: {reason}");
        return ExitCode::FAILURE;
    }
    let lab = Lab::start(installed(spec));
    lab.machine.wait_active(2);
    for isp in lab.isps() {
        println!("{}: ISP {}, in namespace {}", isp.device(), isp.number(), isp.ns.path());
    }
    println!("lan0: the client, in namespace {}", lab.client().ns.path());
    println!("From another terminal: nsenter --net=NAMESPACE; an ISP's cable is its device \"lan\".");
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    if words.is_empty() {
        words = ["script", "-q", "-c", "bash -i", "/dev/null"].map(String::from).into();
    }
    // Ctrl-C is for what runs in there: it gets a session of its own.
    let status = lab.machine.command(&words).env("TERM", term()).env("HOME", "/root").status();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => u8::try_from(status.code().unwrap_or(1)).map_or(ExitCode::FAILURE, ExitCode::from),
        Err(error) => {
            eprintln!("lab-shell: {error}");
            ExitCode::FAILURE
        }
    }
}

fn term() -> String {
    std::env::var("TERM").unwrap_or_else(|_| "dumb".to_owned())
}
