//! uplinkd: several internet uplinks on one Linux host, balanced and failed over by themselves.
//!
//! This is the map of the code: how it is cut, and the decisions that the cut rests on.
//!
//! ```text
//!  NetworkManager ─┐
//!  networkd ───────┤
//!  rtnetlink ──────┤ nudge         Observed        Desired         [Change]
//!  nftables ───────┼──────▶ observe ──────▶ plan ─────────▶ diff ─────────▶ apply ─▶ Report
//!  dispatcher.d ───┤                        ▲  ▲              ▲               │
//!  the clock ──────┘          Config, slots ┘  │              │               ▼
//!                                              │              └── what is ours in the kernel
//!  probes, counters, ─────▶ health ────────────┘
//!  a manager's own check            verdicts
//! ```
//!
//! Whatever happens is only an occasion to look again. A round takes one snapshot of everything, decides what should
//! be, compares that with what is, and carries out the difference; then it waits for the next occasion. One of these is
//! that a verdict on an uplink's health has changed.
//!
//! | module | what it is for |
//! |---|---|
//! | [`core`] | pure decisions: what is an uplink, what should be in the kernel, which changes lead there |
//! | [`core::health`] | pure as well: from answers, counters and the time to a verdict for each family of an uplink |
//! | [`core::balance`] | pure as well: from rates, capacities and round-trip times to who carries what is new |
//! | [`core::quota`] | pure as well: from counters and the date to what is left of a month's bytes, and what follows |
//! | [`core::probe`] | what can be asked, how it is written, and who is asked by default |
//! | [`config`] | the administrator's settings: how they are written, which link they speak of, what counts |
//! | [`sources`] | what NetworkManager and systemd-networkd know, over D-Bus; what hooks, systemd-networkd's files and systemd-resolved's answers tell |
//! | [`kernel`] | rtnetlink, nftables, conntrack, sockets, sysctls: reads what is, applies what was decided |
//! | [`world`] | both of them as two verbs: observe it all, apply changes |
//! | [`probes`] | questions to the internet, each through one uplink; and who answered |
//! | [`daemon`] | the loop: when to look, how often, whom to ask and to answer |
//! | [`state`] | the daemon's few files: slots, decisions by hand, what was learned and counted, table names, the lock |
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
//! # Health
//!
//! A carrier tells little: most outages lie behind the modem. So each family of each uplink is asked about, by a
//! [`Monitor`](core::health::Monitor) that is a pure machine: answers, counters and the time go in; a verdict, what to
//! ask next and when to wake it come out. It knows no clock and no socket, so that its tests play an hour in a moment.
//! `daemon::probing` keeps one for each, and [`probes`] sends what it asks for.
//!
//! A light round asks one target, by turns. An answer that is missing condemns nobody, as one operator may have an
//! outage and one packet may be lost: it calls for a burst, every target at once and several times. Only a burst
//! condemns. To come back takes more than to go, and who fails again and again is held back, each time for longer.
//!
//! Counters see what probes cannot: that packets go out and nothing comes back, as soon as it happens. But they
//! cannot tell an answer from a stranger's packet, and some traffic is one-way. So they never condemn. Silence only
//! calls for a burst now instead of with the next round. Answers put its verdict off: for a while, and, where only one
//! protocol is asked and so may be filtered, for as long as they come.
//!
//! A verdict changes the plan and nothing else. What is down loses, in the order below, its leg of the balanced default
//! and the rules for its addresses; its own table and its rules by mark and device stay, as probes need them to see it
//! come back. When the new way stands, and only where there is one, what runs over the old is let go: first the sockets
//! of this machine, which could send and so make conntrack entries anew; then forwarded connections, which are named to
//! our nftables table while they still have entries, lose these, and are roused, so that their next packet gets a reset
//! ([`kernel::flows`]). The same is done to what runs over an address that an uplink had and has lost for good, as with a
//! redial: it is remembered from the last round, and let go as soon as there is some way out. That this was done is remembered, as nothing in the kernel tells it; so are failures that are
//! held against an uplink, and since when flows are to leave one. A restart forgets these.
//!
//! A daemon that was started anew knows no verdicts. It takes them from the kernel: an uplink over which the balanced
//! default or a policy leads carried traffic, and is taken for good until a burst says otherwise. So a restart moves nothing. One
//! without such a leg is new, and has to answer before it is used.
//!
//! # Balancing
//!
//! Who can be used, health says; who is used, a [`Method`](core::balance::Method). Most need nothing but tiers, weights and
//! metrics. Others go by figures that change with every second, and what follows from these must not: so a
//! [`Chooser`](core::balance::Chooser) for each family, pure and with the time as an argument, weighs them and changes its
//! mind upon lasting evidence alone. The default route is one who asks for a choice, and each policy is another; those that
//! ask the same of the same uplinks share it ([`Pool`](core::balance::Pool)). `daemon::metering` keeps them.
//! `daemon::sampler` reads the counters of all links, once a second where there is something to choose or to count by them, or
//! somebody asks, and seldom else.
//!
//! A choice is an order, and not a set: the plan takes the first of it that can be used, so that an outage is acted upon in
//! the round that finds it. And it is no verdict: who was not chosen is as good as who was, so what runs over it stays. What is
//! chosen is written down in the runtime directory, so that a restart moves nothing here either.
//!
//! # Quotas
//!
//! A [`Ledger`](core::quota::Ledger) for each uplink with a quota counts what its link carries. The kernel's counters are
//! the truth for as long as a device lives, so what is remembered is where they stood: a daemon that is killed has lost
//! nothing, whenever it last wrote that down. Only the date may be doubtful, and so bytes are moved between periods when
//! the clock is, and never dropped. A plan is told what has been used; what is left decides over tiers and states there,
//! beside health. `daemon::quotas` keeps the book, and has it written where it wears nothing.
//!
//! # Router
//!
//! What is done for hosts behind the machine is the nftables table and a few sysctls, and is decided in `core::plan::router`
//! and its like: who is a LAN, which ports lead where, who may talk to whom, what uplinks let in. Nothing of it is asked for
//! unless somebody configures it, but that a flow stays on its uplink and private sources are masqueraded. The firewall
//! looks only at what comes in by an uplink: what it has not heard of it does not close.
//!
//! Rules of the administrator's own are files, each with the inside of a table that we write around it. What leads out of
//! those braces is refused before nft sees it (`core::nft::fragment`), what nft refuses is told with the file's line, and
//! neither keeps anything else from being in force. `routes` say what lies behind one uplink.
//!
//! # Policies
//!
//! Where the default route balances, a [`Policy`](core::policy::Policy) picks: some traffic, by what its first packet looks
//! like, takes uplinks of its own. Which uplinks can carry it is planned with each round; how the first match of many is
//! found at the cost of a few lookups, [`core::policy::ranges`] tells. All of it is a second nftables table, because it lives
//! otherwise than the first: it is written anew, and never deleted, so that long lists and the memory of who is where stay.
//!
//! Where the method is the fastest response, that table remembers by which uplink a destination has answered first, and copies
//! the first packet to one of which it knows nothing to the daemon, while the flow goes on. What a [`race`](core::race) may cost
//! is decided there; `daemon::racing` has [`probes`] run it, and writes the winner into the table's map.
//!
//! Which uplink is the better one, a policy sees with its own eyes, so the flows of each are called back by themselves. The
//! mark of a flow has room for its uplink alone; whose it is, bits of its conntrack label tell
//! ([`Label`](core::policy::Label)).
//!
//! A packet has no name. Those who are asked for one tell which addresses it has: systemd-resolved tells us, by its monitor
//! ([`sources::answers`]), and dnsmasq writes into the table by itself. What is noted are elements of sets, which live as long as
//! the answers do, but between five minutes and a day; `daemon::naming` does it, and the plan knows nothing of it.
//!
//! What a policy enforces must not leak while nobody is there to prevent it. So a rule behind those by mark, and ahead of
//! those by address, refuses what has the mark of such an uplink and found no way by it. And because routes of main are ahead
//! of marks, whatever is about to leave by another uplink is looked at once more, where it is known that it will.
//!
//! # Ownership
//!
//! The kernel is the database, and the routing protocol number [`core::net::OWNER`] on every route and rule is its
//! primary key. Nothing is compared with memory: what the daemon did before it was killed is read back as everything
//! else is. What is not ours is observed, for decisions, but never enters the comparison, so no change can be made that
//! deletes it. Our nftables table is known by its name, those of fragments by ours in them, and a chain named after a hash of its text tells which text is
//! loaded, and how often its chains are used tells whether a rule of it was taken out. Sysctls have no owner; their first values are remembered in a file and put back.
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
//! Two things are done for tunnels besides. Programs that read main for the default in force may not understand several
//! legs, and OpenVPN then redirects nothing; so before the balanced default stands one of a single leg, for packets of a
//! type of service that nobody sends. And the route that such a program adds to its server ties it to one uplink; so while
//! a tunnel covers everything, a rule ahead of main leads to its server by an uplink that gets through.
//!
//! For the same reason none of our rules takes everything. Each selects a mark, an address or a device of one uplink; the
//! one that selects all, first in the block, looks only at routes of main that are more specific than those with which a
//! tunnel covers everything, so that what is meant for the LAN stays there. Where somebody's rule takes everything, the
//! block stands ahead of it, and that first rule is only for what the others select: all else goes where it would without
//! us. A catch-all ahead of main would take the traffic of every VPN. What comes from a prefix that an uplink delegates is
//! sent there directly ahead of main, behind every VPN; an address that another interface has as well selects nothing. Only
//! where an uplink's own default has metric 0, which leaves no better one, or where nothing is to leave while all uplinks
//! are down, does our default live in a table of its own behind a rule directly ahead of main, and only while main's own
//! best default leads out of an uplink.
//!
//! The same table has a host route to each resolver that one uplink announced, as it answers nobody else: there it is
//! behind all that a VPN adds, where in main it would be ahead. While the uplink leads nowhere the route refuses, so that
//! a program asks the next at once. What is bound to a device goes by the device's rule, as systemd-resolved's questions
//! do; resolved is therefore told whom not to ask, the one thing outside of the kernel that is ever changed for an
//! outage. It is remembered in a file, as sysctls are.
//!
//! # The order of changes
//!
//! Only [`core::diff`] knows it: settings, nftables, marks of running flows, the uplinks' own routes, rules that are
//! added, the balanced defaults, rules that are deleted, routes that are deleted, an nftables table that is not needed
//! any more; then, when the way that they are to take stands, running flows are moved; and last, as it may keep us
//! waiting, systemd-resolved is told. Nothing points at what is
//! not there yet, and what carries traffic is replaced before the old is taken away. A failure does not stop the rest,
//! and there is no rollback: the next round sees what is missing, later and later while it keeps failing ([`daemon`]).
//! So is what others keep taking away, each object for itself.
//!
//! [`Change`](core::change::Change) prints as the command that does the same. That one text is the log, the output of
//! `uplinkctl plan` and the context of an error.
//!
//! # Where the tests are
//!
//! Unit tests stand beside what they test. `tests/netfilter.rs` loads our nftables text into a real kernel, in a
//! namespace, `tests/flows.rs` takes an uplink away there from connections that run, and `tests/probes` asks servers
//! there that answer, lie or say nothing. `tests/scenarios` are machines as text, with the plan for each, and
//! `tests/properties.rs` draws arbitrary ones against a kernel in memory. `tests/lab` boots a Debian with real managers
//! between ISPs that fail on demand, and counts packets. CONTRIBUTING.md tells how to run them.

pub mod cli;
pub mod clock;
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
