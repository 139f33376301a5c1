//! A line as words.

use std::iter::Peekable;
use std::net::IpAddr;
use std::vec::IntoIter;

use ipnet::IpNet;

/// The words of a line, of which some mean the next.
pub(crate) struct Words<'a>(Peekable<IntoIter<&'a str>>);

impl<'a> Words<'a> {
    /// Words by blanks; what stands in quotes is one.
    pub(crate) fn of(line: &'a str) -> Self {
        let mut words = Vec::new();
        for (at, part) in line.split('"').enumerate() {
            if at % 2 == 1 { words.push(part) } else { words.extend(part.split_whitespace()) }
        }
        Words(words.into_iter().peekable())
    }

    pub(crate) fn next(&mut self) -> &'a str {
        self.0.next().expect("one more word")
    }

    pub(crate) fn more(&mut self) -> bool {
        self.0.peek().is_some()
    }

    /// Whether the next word ends so.
    pub(crate) fn next_ends_with(&mut self, end: char) -> bool {
        self.0.peek().is_some_and(|word| word.ends_with(end))
    }

    pub(crate) fn taken(&mut self, word: &str) -> bool {
        self.0.next_if_eq(&word).is_some()
    }

    /// A prefix, or an address alone.
    pub(crate) fn net(&mut self) -> IpNet {
        net(self.next())
    }

    pub(crate) fn parsed<T: std::str::FromStr>(&mut self) -> T {
        let word = self.next();
        word.parse().unwrap_or_else(|_| panic!("{word:?} is not what stands here"))
    }
}

/// A prefix, or an address alone.
pub(crate) fn net(text: &str) -> IpNet {
    let host = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse().ok().or_else(|| host().ok()).unwrap_or_else(|| panic!("{text:?} is no prefix"))
}
