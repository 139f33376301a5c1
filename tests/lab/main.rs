//! Tests on the lab: a booted Debian with real managers between ISPs that can be broken at will. See [`kit`].

#[allow(dead_code, reason = "the tests and the demo each use a part of it")]
pub mod kit;

mod balance;
mod both;
mod bus;
mod carrier;
mod change;
mod ctl;
mod desktop;
mod failback;
mod failover;
mod faults;
mod figures;
mod flap;
mod hooks;
mod input;
mod install;
mod manual;
mod metered;
mod observers;
mod odd;
mod portal;
mod quality;
mod repair;
mod restart;
mod settings;
mod smoke;
mod stopped;
mod strange;
mod surroundings;
mod tell;
mod tunnels;
mod vpn;
mod watch;
