//! Where facts come from: the network managers, asked over D-Bus.
//!
//! A source answers "what is?" with one fresh snapshot and calls out when it may be worth asking again. What a fact
//! means is none of its business, and a signal's content is never used: losing a nudge costs time, not correctness.

mod call;
pub mod nm;

pub use call::Error;

/// What is known of a manager once it was asked.
///
/// The third case, a manager that is there but did not answer, is the `Err` beside it: such a round must change nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence<T> {
    /// Nobody owns its bus name: it does not run, and whatever it once said no longer holds.
    Absent,
    /// It runs, and this is what it says.
    Present(T),
}
