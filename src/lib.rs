//! uplinkd: several internet uplinks on one Linux host, balanced and failed over by themselves.

pub mod cli;
pub mod config;
pub mod core;
pub mod daemon;
pub mod exit;
pub mod kernel;
pub mod log;
pub mod notify;
pub mod service;
pub mod sources;
pub mod state;
pub mod status;
pub mod world;

pub use cli::main as uplinkctl;
pub use daemon::main as uplinkd;
