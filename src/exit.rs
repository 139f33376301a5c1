//! Exit codes, after sysexits.h where it has a word for it.

/// Something failed.
pub const FAILURE: u8 = 1;
/// The command line is wrong (clap's own code).
pub const USAGE: u8 = 2;
/// The daemon is not there.
pub const UNAVAILABLE: u8 = 69;
/// Not permitted.
pub const PERMISSION: u8 = 77;
/// The configuration is wrong.
pub const CONFIG: u8 = 78;
