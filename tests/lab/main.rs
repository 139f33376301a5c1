//! Tests on the lab: a booted Debian with real managers between ISPs that can be broken at will. See [`kit`].

#[allow(dead_code, reason = "the tests and the demo each use a part of it")]
pub mod kit;

mod balance;
mod both;
mod bus;
mod carrier;
mod change;
mod containers;
mod ctl;
mod desktop;
mod dns;
mod failback;
mod failover;
mod faults;
mod figures;
mod firewalls;
mod flap;
mod hooks;
mod ifupdown;
mod input;
mod install;
mod ipv6;
mod manual;
mod metered;
mod methods;
mod netplan;
mod networkd;
mod networkd_dispatcher;
mod networkd_takes;
mod observers;
mod odd;
mod overlap;
mod portal;
mod ppp;
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
