//! The lab: real NetworkManager and systemd on a booted Debian, real packets, ISPs that can be broken at will.
//!
//! ```text
//!                    203.0.113.1-48, 2001:db8:ffff::1-48,
//!                    1.1.1.1, 8.8.8.8, … and their like
//!                        ┌──────────────┐
//!                        │   internet   │  tells every client the address that it sees
//!                        └─┬──────────┬─┘
//!            198.51.100.1  │          │  198.51.100.2        each ISP masquerades to its own address
//!                      ┌───┴───┐  ┌───┴───┐
//!                      │ isp 1 │  │ isp 2 │  …               dnsmasq (DHCP, RA, DNS), nftables
//!                      └───┬───┘  └───┬───┘
//!           192.168.1.0/24 │          │ 192.168.2.0/24
//!                      eth1│          │eth2
//!                        ┌─┴──────────┴─┐
//!                        │   machine    │  Debian with systemd, D-Bus and NetworkManager
//!                        └──────┬───────┘
//!                           lan0│ 10.77.0.1/24              only where the machine is a router
//!                          ┌────┴────┐
//!                          │ client  │ 10.77.0.10-29
//!                          └─────────┘
//! ```
//!
//! [`fault`] has the ways in which ISPs fail; [`traffic`], [`fresh`] and [`steady`] what watches how that is felt.
//!
//! Everything lives in namespaces that end with the [`Lab`] value, also when the test panics or is killed. Nothing touches the
//! network of the host. What goes wrong inside the lab itself panics with a message that says what was tried.
//!
//! Needs root, `nft`, `dnsmasq`, `ip`, util-linux and the root that `tests/lab/mkroot` builds; [`lab_or_skip!`] skips without.

pub mod address;
pub mod dns;
pub mod fault;
pub mod fresh;
pub mod internet;
pub mod isp;
pub mod line;
pub mod load;
pub mod machine;
pub mod ns;
pub mod process;
pub mod recovery;
pub mod server;
pub mod socket;
pub mod spec;
pub mod steady;
pub mod traffic;

mod cgroup;
mod delegation;
mod http;
mod lab;
mod relay;
mod report;
mod snapshot;

pub use address::isp_of;
pub use fault::{Filter, Flap};
pub use fresh::{NewFlows, NewTcp};
pub use internet::Internet;
pub use isp::{Isp, IspSpec};
pub use lab::{Client, Lab, available, skipped};
pub use line::Line;
pub use load::Load;
pub use machine::Machine;
pub use ns::Ns;
pub use process::{Output, poll, wait};
pub use recovery::Recovery;
pub use report::{NewFlowsReport, Shares, UdpReport, Way};
pub use server::{Server, Service};
pub use socket::Via;
pub use spec::{Install, Manager, Spec};
pub use steady::{SteadyReport, SteadyTcp};
pub use traffic::{HeldTcp, TcpDownload, UdpFlow, connect_many};

/// Start the lab that the [`Spec`] describes, or leave the test with `SKIPPED: name: reason` where none can run.
///
/// Under `CI` a missing lab is a failure, so that no suite passes by having skipped everything.
macro_rules! lab_or_skip {
    ($spec:expr) => {{
        let spec = $spec;
        if let Err(reason) = $crate::kit::available(&spec) {
            fn here() {}
            $crate::kit::skipped(std::any::type_name_of_val(&here), &reason);
            return;
        }
        $crate::kit::Lab::start(spec)
    }};
}
pub(crate) use lab_or_skip;
