//! Who may talk to whom through the machine, as it is written: `[[group]]`.
//!
//! Refuses to know which LANs and uplinks there are.

use super::Origin;
use super::keys::{Key, Kind};
use super::matcher::Pattern;

/// One `[[group]]`: its members may talk to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    members: Vec<Member>,
    /// Where it stands.
    pub origin: Origin,
}

/// Who belongs to a group.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Member {
    /// All LANs.
    Lans,
    /// All uplinks.
    Uplinks,
    /// A LAN by its interface, or an uplink by its name.
    Named(Pattern),
}

/// What is asked of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party<'a> {
    /// A LAN, by the name of its interface.
    Lan(&'a str),
    /// Another interface behind the machine, by its name.
    Interface(&'a str),
    /// An uplink, by its name.
    Uplink(&'a str),
}

impl Group {
    /// Whether somebody belongs to it.
    pub fn has(&self, party: Party) -> bool {
        self.members.iter().any(|member| member.is(party))
    }

    /// The names that fit none of these.
    pub fn away<'a>(&'a self, present: &[Party]) -> impl Iterator<Item = &'a str> {
        self.members.iter().filter_map(move |member| match member {
            Member::Named(name) if !present.iter().any(|party| member.is(*party)) => Some(name.as_str()),
            _ => None,
        })
    }
}

impl Member {
    fn is(&self, party: Party) -> bool {
        match (self, party) {
            (Member::Lans, Party::Lan(_)) | (Member::Uplinks, Party::Uplink(_)) => true,
            (Member::Named(pattern), Party::Lan(name) | Party::Interface(name) | Party::Uplink(name)) => {
                pattern.fits(name)
            }
            _ => false,
        }
    }
}

/// What was read of one.
#[derive(Debug, Default)]
pub(super) struct Draft {
    members: Vec<Member>,
}

impl Draft {
    /// The group that stands here; none where nobody belongs to it.
    pub(super) fn at(self, origin: Origin) -> Option<Group> {
        (!self.members.is_empty()).then_some(Group { members: self.members, origin })
    }
}

/// The keys of `[[group]]`.
pub(super) static GROUP: [Key<Draft>; 1] = [Key {
    name: "members",
    allowed: "a list of interfaces of LANs, with * and ? for what may vary, names of uplinks, \":lan\" and \":uplink\"",
    help: "who may talk to each other through this machine",
    kind: Kind::Texts,
    put: |draft, value| {
        let member = match value.text()? {
            ":lan" => Some(Member::Lans),
            ":uplink" => Some(Member::Uplinks),
            word if word.starts_with(':') => None,
            // The name of an uplink may be longer than that of an interface.
            name => Pattern::of_uplink(name).or_else(|| Pattern::new(name)).map(Member::Named),
        };
        member.map(|member| draft.members.push(member))
    },
}];
