//! uplinkd: several internet uplinks on one Linux host, balanced and failed over by themselves.

pub mod core;
pub mod sources;
