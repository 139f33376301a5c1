//! The kernel's side: reads what is, applies what was decided, and decides nothing itself.

pub mod cgroup;
pub mod conntrack;
pub mod counters;
pub mod element;
pub mod flows;
pub mod nflog;
pub mod nfnl;
pub mod nft;
mod request;
pub mod rouse;
pub mod rtnl;
pub mod sockets;
pub mod sysctl;
pub mod winners;
