//! Pure decisions: values in, values out. No clock, no randomness, nothing that the outside can make fail.
//!
//! The words are those of the picture in the crate's documentation: [`observed`] is what is, [`plan`] says what
//! should be, [`diff`] tells them apart, a [`change`] is one step.

pub mod balance;
pub mod change;
pub mod decimal;
pub mod diff;
pub mod discover;
pub mod extra;
pub mod forward;
pub mod health;
pub mod layout;
pub mod nat6;
pub mod net;
pub mod nft;
pub mod noted;
pub mod observed;
pub mod opening;
pub mod plan;
pub mod policy;
pub mod probe;
pub mod quota;
pub mod race;
pub mod recall;
pub mod route;
pub mod rule;
pub mod scope;
pub mod slots;
pub mod stream;
pub mod sysctl;
pub mod systemd;
pub mod tending;
pub mod text;
pub mod uplink;
