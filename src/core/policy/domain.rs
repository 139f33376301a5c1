//! Names of hosts that a policy is for, and what is taken from an answer to a question for one.
//!
//! A packet has no name. What is known is who has asked for which, and which addresses were the answer; these are noted in a
//! set of our table for as long as the answer holds, and a packet to one of them is taken for one to the name. So a server
//! with many names is for the first policy that names any of them.

use std::fmt;
use std::time::Duration;

use crate::core::net::Family;
use crate::core::text::hash;

/// A name, with all below it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain(String);

impl Domain {
    /// What can be said, as error messages say it.
    pub const ALLOWED: &str = "a domain like example.com, which is itself and all below it, as *.example.com is, or a list of \
                               them; one with other letters as it is asked for, like xn--bcher-kva.example";

    /// A domain by its name (RFC 1035, 2.3.1, and underscores, which are in use); none for a text that is none.
    pub fn new(text: &str) -> Option<Self> {
        let name = text.strip_prefix("*.").unwrap_or(text);
        let name = name.strip_suffix('.').unwrap_or(name);
        let of_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let is_label = |label: &str| {
            (1..=63).contains(&label.len()) && label.chars().all(of_name) && !label.starts_with('-')
        };
        // A number alone would be part of an address.
        let is_name = name.len() <= 253
            && name.split('.').all(is_label)
            && !name.rsplit('.').next().is_some_and(|top| top.bytes().all(|b| b.is_ascii_digit()));
        is_name.then(|| Domain(name.to_ascii_lowercase()))
    }

    /// Whether a name, in the form of master files (RFC 1035, 5.1), is it, or below it.
    pub fn has(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name);
        let Some(above) = name.len().checked_sub(self.0.len()) else { return false };
        let (sub, rest) = (name.get(..above), name.get(above..));
        rest.is_some_and(|rest| rest.eq_ignore_ascii_case(&self.0))
            && sub.is_some_and(|sub| sub.is_empty() || (sub.ends_with('.') && !sub.ends_with("\\.")))
    }

    /// As it is asked for.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The addresses of a policy's names, as the objects of our table are called that know them.
///
/// By the policy's name alone, so that what others are told to fill is called the same for as long as the policy is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Names(u64);

impl Names {
    /// Those of a policy.
    pub fn of(policy: &str) -> Self {
        Names(hash(policy))
    }

    /// Those that are meant by a text which [`fmt::Display`] has made.
    pub fn named(text: &str) -> Option<Self> {
        (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok().map(Names))?
    }

    /// The set of addresses of a family.
    pub fn set(&self, family: Family) -> String {
        format!("names_{self}_{}", family.version())
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Addresses that each set has room for; what does not fit goes as if it had no name.
pub const ROOM: u32 = 65_536;

/// So long an address is known at least: programs go on with an answer for longer than it holds.
const LEAST: Duration = Duration::from_secs(300);
/// And at most, whatever is said.
const MOST: Duration = Duration::from_secs(24 * 3600);
/// So long where nobody says it, as with what dnsmasq notes: it notes nothing when it answers from its memory, which it keeps
/// for no longer (`max-cache-ttl` aside).
pub const USUAL: Duration = MOST;

/// How long an address is known of which an answer says that it holds for so long.
pub fn lasts(ttl: Duration) -> Duration {
    ttl.clamp(LEAST, MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(text: &str) -> Domain {
        Domain::new(text).unwrap_or_else(|| panic!("{text}"))
    }

    #[test]
    fn a_domain_has_itself_and_all_below_it() {
        for text in ["example.com", "*.example.com", "Example.COM.", "*.EXAMPLE.com."] {
            let domain = domain(text);
            for name in ["example.com", "www.example.com", "a.b.Example.Com.", "_x.example.com"] {
                assert!(domain.has(name), "{text} {name}");
            }
            for name in ["badexample.com", "example.com.evil.org", "com", "", ".", "xample.com"] {
                assert!(!domain.has(name), "{text} {name}");
            }
        }
        assert!(domain("com").has("example.com"), "a top-level domain is one");
        assert!(!domain("bücher.example".replace("ü", "u").as_str()).has("bücher.example"));
    }

    #[test]
    fn what_is_no_domain_is_refused() {
        let long = "a".repeat(64);
        let many = ["a.".repeat(126), "bcd".into()].concat();
        for text in [
            "",
            ".",
            "*",
            "*.",
            "a..b",
            "-a.com",
            "a b",
            "bücher.example",
            "192.0.2.1",
            "a*.com",
            &long,
            &many,
        ] {
            assert_eq!(Domain::new(text), None, "{text}");
        }
    }

    #[test]
    fn an_address_is_known_for_as_long_as_is_said_within_limits() {
        let seconds = Duration::from_secs;
        assert_eq!(lasts(seconds(0)), LEAST);
        assert_eq!(lasts(seconds(3600)), seconds(3600));
        assert_eq!(lasts(seconds(u64::from(u32::MAX))), MOST);
    }

    #[test]
    fn names_are_known_again() {
        let names = Names::of("video");
        assert_eq!(Names::named(&names.to_string()), Some(names.clone()));
        assert_ne!(names.set(Family::V4), names.set(Family::V6));
        assert_eq!(Names::named("video"), None);
    }
}
