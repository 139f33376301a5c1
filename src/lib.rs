//! uplinkd: several internet uplinks on one Linux host, balanced and failed over by themselves.
//!
//! This is the map of the code: how it is cut, and the decisions that the cut rests on.
//!
//! ```text
//!  NetworkManager ─┐
//!  rtnetlink ──────┤ nudge         Observed        Desired         [Change]
//!  nftables ───────┼──────▶ observe ──────▶ plan ─────────▶ diff ─────────▶ apply ─▶ Report
//!  dispatcher.d ───┤                          ▲               ▲
//!  the clock ──────┘          Config, slots ──┘               └── what is ours in the kernel
//! ```
//!
//! Whatever happens is only an occasion to look again. A round takes one snapshot of everything, decides what should
//! be, compares that with what is, and carries out the difference; then it waits for the next occasion.
//!
//! | module | what it is for |
//! |---|---|
//! | [`core`] | pure decisions: what is an uplink, what should be in the kernel, which changes lead there |
//! | [`config`] | the administrator's settings: how they are written, which link they speak of, what counts |
//! | [`sources`] | what the network managers know, over D-Bus |
//! | [`kernel`] | rtnetlink, nftables, conntrack, sysctls: reads what is, applies what was decided |
//! | [`world`] | both of them as two verbs: observe it all, apply changes |
//! | [`probes`] | questions to the internet, each through one uplink; and who answered |
//! | [`daemon`] | the loop: when to look, how often, whom to answer |
//! | [`state`] | the daemon's few files: slots, table names, the lock |
//! | [`service`], [`status`] | the D-Bus interface and the one document that it shows |
//! | [`cli`] | `uplinkctl`, a file for each subcommand |
//! | [`log`], [`notify`], [`exit`] | the journal, systemd, exit codes |
//!
//! # The border
//!
//! *What can be decided from values is pure; what the outside can make fail is not.* [`core::plan`] and [`core::diff`]
//! take values and return values. They know no clock, no files, no sockets, no async, and they are total: what cannot
//! be done becomes a note that `uplinkctl status` shows, never an error or an early return. Everything else is kept so
//! plain that there is little in it to decide.
//!
//! # Events are nudges
//!
//! The content of an event is never used, because it would have to be complete to be trusted, and it is not. When the
//! last IPv4 address of a device goes, the kernel removes its IPv4 routes in every table and tells nobody; when a
//! device is deleted, the whole multipath route that had a leg on it goes as silently; a socket that overruns has lost
//! events; a manager that restarts sends none. So an event only says "look", a lost one costs time and not
//! correctness, and a slow resync finds what nobody told.
//!
//! # Ownership
//!
//! The kernel is the database, and the routing protocol number [`core::net::OWNER`] on every route and rule is its
//! primary key. Nothing is compared with memory: what the daemon did before it was killed is read back as everything
//! else is. What is not ours is observed, for decisions, but never enters the comparison, so no change can be made that
//! deletes it. Our nftables table is known by its name, and a chain named after a hash of its text tells which text is
//! loaded. Sysctls have no owner; their first values are remembered in a file and put back.
//!
//! Stopping is not teardown. A restart, an upgrade or `kill -9` leaves everything in the kernel, which goes on without
//! us; only `uplinkctl flush` and the removal of the package take it out. The numbers are in [`core::layout`].
//!
//! # The default route sits in main
//!
//! The balanced default is an ordinary multipath route in table main, one metric better than the best of the uplinks'
//! own, which stay. So main remains the arbiter: a VPN that adds a better default, the two /1 routes of OpenVPN, the
//! rules of wg-quick or Tailscale win by the kernel's own rules, whoever started first, and no tunnel leaks.
//!
//! For the same reason none of our rules takes everything. Each selects a mark, a source address or a device of one
//! uplink; the one that selects all, first in the block, looks only at routes of main that are more specific than a /1,
//! so that what is meant for the LAN stays there. A catch-all ahead of main would take the traffic of every VPN. Only
//! where an uplink's own default has metric 0, which leaves no better one, does the balanced route live in a table of
//! its own behind a rule directly ahead of main, and only while main's own best default leads out of an uplink. There is
//! also where nothing is let out while all are down: a dead end in main would be met by the first of our rules already.
//!
//! # The order of changes
//!
//! Only [`core::diff`] knows it: settings, nftables, running flows, the uplinks' own routes, rules that are added, the
//! balanced defaults, rules that are deleted, routes that are deleted. Nothing points at what is not there yet, and what carries traffic is
//! replaced before the old is taken away. A failure does not stop the rest, and there is no rollback: the next round
//! sees what is missing, later and later while it keeps failing ([`daemon`]).
//!
//! [`Change`](core::change::Change) prints as the command that does the same. That one text is the log, the output of
//! `uplinkctl plan` and the context of an error.
//!
//! # Where the tests are
//!
//! Unit tests stand beside what they test. `tests/netfilter.rs` loads our nftables text into a real kernel, in a
//! namespace, and `tests/flows.rs` takes an uplink away there from connections that run. `tests/scenarios` are machines as text, with the plan for each, and `tests/properties.rs` draws arbitrary
//! ones against a kernel in memory. `tests/lab` boots a Debian with real managers between ISPs that fail on demand, and
//! counts packets. CONTRIBUTING.md tells how to run them.

pub mod cli;
pub mod config;
pub mod core;
pub mod daemon;
pub mod exit;
pub mod kernel;
pub mod log;
pub mod notify;
pub mod probes;
pub mod service;
pub mod sources;
pub mod state;
pub mod status;
pub mod world;

pub use cli::main as uplinkctl;
pub use daemon::main as uplinkd;
