//! Pure decisions: values in, values out. No clock, no randomness, nothing that the outside can make fail.

pub mod layout;
pub mod net;
pub mod nft;
pub mod observed;
pub mod route;
pub mod rule;
pub mod sysctl;
