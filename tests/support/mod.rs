//! What the tests of the core stand on: a kernel in memory, the world around it, and both written as text.
//!
//! The kernel fakes at the level of [`uplinkd::core::change::Change`], so tests run the same planning and diffing
//! as the daemon, down to the last step.

#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod arbitrary;
mod events;
pub(crate) mod fib;
pub(crate) mod kernel;
pub(crate) mod leak;
pub(crate) mod lookup;
pub(crate) mod promises;
pub(crate) mod quota;
pub(crate) mod round;
pub(crate) mod scenario;
mod show;
pub(crate) mod text;
mod words;
pub(crate) mod world;
