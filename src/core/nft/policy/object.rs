//! What stays in the table while its chains are written anew: the memory of who is where, and what others tell of addresses.
//!
//! Each such object belongs to a chain, and is there for as long as that one: which are there is told by the names of chains.

use std::fmt::Write;

use super::{POLICY_TABLE, fastest, lookups, names, sticky};

/// A set, a map or a counter.
pub(super) struct Object {
    pub(super) kind: &'static str,
    pub(super) name: String,
    /// What stands between its braces.
    pub(super) body: String,
}

/// Those that belong to a chain.
fn of_chain(chain: &str) -> impl Iterator<Item = Object> {
    sticky::objects_of(chain).into_iter().chain(fastest::objects_of(chain)).chain(names::objects_of(chain))
}

/// The declarations of all that belong to the chains of a text.
pub(super) fn declared(body: &str) -> String {
    let chains = body.lines().filter_map(|line| line.strip_prefix("\tchain ")?.strip_suffix(" {"));
    let mut text = String::new();
    for Object { kind, name, body } in chains.flat_map(of_chain) {
        let _ = write!(text, "\t{kind} {name} {{\n{body}\t}}\n");
    }
    text
}

/// The commands that take out what belongs to a chain.
pub(super) fn deleted(chain: &str) -> String {
    let delete = |kind: &str, name: &str| format!("delete {kind} inet {POLICY_TABLE} {name}\n");
    let lookup = lookups::of_chain(chain).map(|kind| delete(kind, chain));
    of_chain(chain).map(|object| delete(object.kind, &object.name)).chain(lookup).collect()
}
