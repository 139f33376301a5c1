//! Units of systemd: which programs of this machine are meant by one, and where the kernel keeps them apart.
//!
//! The programs of a unit are in a control group of its name, below those of its slices (systemd.slice(5)): that path is all
//! there is to know a unit by, and what the group is called inside of the kernel, a number, is another at each start.
//!
//! Refuses to know how the groups are listed.

use std::fmt;

/// A unit as it is configured: of the system, or of a user's own manager.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unit {
    user: Option<u32>,
    name: String,
}

/// A control group that is there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cgroup {
    /// Its path from the root of the hierarchy, without a slash at the beginning: `system.slice/ssh.service`.
    pub path: String,
    /// Its number in the kernel, by which packets are told apart.
    pub id: u64,
}

/// The ending of the names of slices.
const SLICE: &str = ".slice";

/// The endings of units that have programs of their own.
const WITH_PROGRAMS: [&str; 5] = [".service", ".scope", ".socket", ".mount", ".swap"];

impl Unit {
    /// What can be written for a unit, for error messages.
    pub const ALLOWED: &str = "the name of a service, scope, socket, mount or swap unit like nginx.service, with the name or number of a \
                               user and a slash ahead of it where it is that user's own, or a list of them";
    /// What can be written for a slice.
    pub const SLICES_ALLOWED: &str = "the name of a slice like system.slice, with the name or number of a user and a slash ahead of it where it is \
         that user's own, or a list of them";

    /// A unit with programs of its own; a name without an ending is a service's.
    pub fn new(user: Option<u32>, name: &str) -> Option<Self> {
        let ends = WITH_PROGRAMS.iter().any(|ending| name.len() > ending.len() && name.ends_with(ending));
        let other = [SLICE, ".timer", ".path", ".target", ".device", ".automount"];
        let name = match ends {
            true => name.to_owned(),
            false if other.iter().any(|ending| name.ends_with(ending)) => return None,
            false => format!("{name}{}", WITH_PROGRAMS[0]),
        };
        (is_name(&name) && !name.starts_with('.')).then_some(Unit { user, name })
    }

    /// A slice, with or without the ending.
    pub fn slice(user: Option<u32>, name: &str) -> Option<Self> {
        let name = name.strip_suffix(SLICE).unwrap_or(name);
        (!name.is_empty() && is_name(name)).then(|| Unit { user, name: format!("{name}{SLICE}") })
    }

    /// Whether a control group is its own.
    pub fn is(&self, path: &str) -> bool {
        let (folder, last) = path.rsplit_once('/').unwrap_or(("", path));
        unescaped(last) == self.name && self.may_be_in(folder)
    }

    /// Whether its control group may be right in a folder of the hierarchy, the root of which is empty. Those of slices alone
    /// are made by the system's manager; below a service or a scope somebody else may have made what he likes.
    pub fn may_be_in(&self, folder: &str) -> bool {
        let mut rest = folder;
        if let Some(user) = self.user {
            let Some(below) = folder.strip_prefix(&manager(user)) else { return false };
            rest = match below.strip_prefix('/') {
                Some(below) => below,
                None if below.is_empty() => "",
                None => return false,
            };
        }
        rest.is_empty() || rest.split('/').all(is_slice)
    }

    /// Whether its control group may be in a folder, or further below.
    pub fn may_be_below(&self, folder: &str) -> bool {
        let ahead = self.user.is_some_and(|user| {
            let manager = manager(user);
            manager.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
        });
        ahead || self.may_be_in(folder)
    }

    /// Whether it matters to this one that a folder of this name has come or gone.
    pub fn is_concerned(&self, name: &str) -> bool {
        let by_manager = || self.user.is_some_and(|user| name == format!("user@{user}.service"));
        unescaped(name) == self.name || is_slice(name) || by_manager()
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.user {
            Some(user) => write!(f, "{user}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl Cgroup {
    /// How far it is from the root.
    pub fn level(&self) -> usize {
        self.path.split('/').count()
    }

    /// Whether all that is in another is in this one.
    pub fn holds(&self, other: &Cgroup) -> bool {
        other.path.strip_prefix(&self.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// The folder of the manager of a user, in which his units are (user@.service(5)).
fn manager(user: u32) -> String {
    format!("user.slice/user-{user}.slice/user@{user}.service")
}

/// What a unit can be called (systemd.unit(5)). Nothing of it needs quoting in the text of a table.
fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    (1..256).contains(&name.len()) && name.bytes().all(allowed)
}

fn is_slice(name: &str) -> bool {
    is_name(name) && name.ends_with(SLICE)
}

/// The name of the unit that has a control group of this name: one that would be taken for a file of the kernel's has an
/// underscore ahead of it (`cg_escape` of systemd).
fn unescaped(name: &str) -> &str {
    name.strip_prefix('_').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_known_by_its_control_group_and_no_other() {
        let of_system = Unit::new(None, "x").unwrap();
        assert_eq!(of_system.to_string(), "x.service");
        for path in
            ["x.service", "system.slice/x.service", "a.slice/a-b.slice/x.service", "a.slice/_x.service"]
        {
            assert!(of_system.is(path), "{path}");
        }
        let by_others = [
            "system.slice/y.service",
            "system.slice/x.service/below",
            "user.slice/user-1000.slice/user@1000.service/app.slice/x.service",
            "machine.slice/libpod-1.scope/x.service",
            "system.slice/y.service/x.service",
            "a\".slice/x.service",
            "",
        ];
        assert!(!by_others.iter().any(|path| of_system.is(path)), "{by_others:?}");
        let of_user = Unit::new(Some(1000), "x.service").unwrap();
        assert!(of_user.is("user.slice/user-1000.slice/user@1000.service/app.slice/x.service"));
        assert!(of_user.is("user.slice/user-1000.slice/user@1000.service/x.service"));
        for path in [
            "system.slice/x.service",
            "user.slice/user-1001.slice/user@1001.service/app.slice/x.service",
            "user.slice/user-1000.slice/user@1000.serviceapp.slice/x.service",
            "user.slice/user-1000.slice/user@1000.service/y.service/x.service",
        ] {
            assert!(!of_user.is(path), "{path}");
        }
        assert!(Unit::slice(None, "user-1000").unwrap().is("user.slice/user-1000.slice"));
    }

    #[test]
    fn what_is_no_unit_is_refused() {
        assert_eq!(Unit::new(None, "a b"), None);
        for name in ["", "x.slice", "x.timer", "a/b", "\"", ".service", &"x".repeat(260), "é"] {
            assert_eq!(Unit::new(None, name), None, "{name}");
        }
        for name in ["", ".slice", "a/b", "a b.slice"] {
            assert_eq!(Unit::slice(None, name), None, "{name}");
        }
        assert_eq!(Unit::new(None, "x@1.scope").unwrap().to_string(), "x@1.scope");
    }

    #[test]
    fn what_comes_and_goes_concerns_whom_it_may_hold() {
        let unit = Unit::new(Some(1000), "x").unwrap();
        for (name, is) in [
            ("x.service", true),
            ("app.slice", true),
            ("user@1000.service", true),
            ("user@1001.service", false),
            ("y.service", false),
        ] {
            assert_eq!(unit.is_concerned(name), is, "{name}");
        }
        assert!(!Unit::new(None, "x").unwrap().is_concerned("user@1000.service"));
    }

    #[test]
    fn a_slice_holds_what_is_below_it() {
        let group = |path: &str| Cgroup { path: path.into(), id: 1 };
        let slice = group("system.slice");
        assert!(slice.holds(&slice) && slice.holds(&group("system.slice/x.service")));
        assert!(!slice.holds(&group("system.slicex/x.service")));
        assert_eq!((slice.level(), group("system.slice/x.service").level()), (1, 2));
    }
}
