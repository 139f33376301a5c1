//! What a key is: its name, what it allows, what it means, and the words in which it refuses.
//!
//! Files, NetworkManager's user data and `uplinkctl set` all read through it. It refuses to know where a value
//! comes from, and which keys there are.

use std::fmt;
use std::time::Duration;

/// A key, the values that it allows and where they go.
#[derive(Debug)]
pub struct Key<T> {
    /// Its name.
    pub name: &'static str,
    /// What it allows, as error messages say it.
    pub allowed: &'static str,
    /// What it means, in one line.
    pub help: &'static str,
    pub(super) kind: Kind,
    pub(super) put: fn(&mut T, &Value) -> Option<()>,
}

impl<T: Default> Key<T> {
    /// The key of a name.
    pub(super) fn find(keys: &'static [Key<T>], name: &str) -> Option<&'static Key<T>> {
        keys.iter().find(|key| key.name == name)
    }

    /// The names of keys, for error messages.
    pub(super) fn names(keys: &[Key<T>]) -> Vec<&'static str> {
        keys.iter().map(|key| key.name).collect()
    }

    /// What is allowed where a table says by some of these keys what is meant, and an empty one would mean everything.
    pub(super) fn some_of(keys: &[Key<T>]) -> String {
        format!("a table with at least one of {}", Key::names(keys).join(", "))
    }

    /// Puts a value where it belongs; false where it is not allowed.
    pub(super) fn put(&self, to: &mut T, value: &Value) -> bool {
        (self.put)(to, value).is_some()
    }

    /// Puts a value that was written without TOML's quotes, and tells how it was understood.
    pub(super) fn put_text(&self, to: &mut T, text: &str) -> Result<Value, Refusal> {
        let value = self.kind.read(text).filter(|value| self.put(to, value));
        value.ok_or_else(|| self.refusal(self.culprit(text).unwrap_or(text)))
    }

    /// Why it does not allow a value that was written like this.
    pub(super) fn refusal(&self, written: &str) -> Refusal {
        Refusal::value(self.name, written, self.allowed)
    }

    /// The first of several texts with `;` between them that it would not allow alone either; none where each is good, and
    /// only all of them together are not.
    pub(super) fn culprit<'t>(&self, text: &'t str) -> Option<&'t str> {
        let several = self.kind == Kind::Texts && text.contains(';');
        let is_bad = |text: &&str| !self.put(&mut T::default(), &Value::Text((*text).to_owned()));
        text.split(';').map(str::trim).find(is_bad).filter(|_| several)
    }
}

/// How the values of a key are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A text, quoted in TOML.
    Text,
    /// One text or a list of them, each put for itself.
    Texts,
    /// The same with whole numbers among them.
    Several,
    /// A whole number.
    Number,
    /// True or false.
    Flag,
    /// A number, true or false, or else a quoted text.
    Mixed,
}

impl Kind {
    fn read(self, text: &str) -> Option<Value> {
        match self {
            Kind::Text | Kind::Texts | Kind::Several => Some(Value::Text(text.to_owned())),
            Kind::Number => text.parse().ok().map(Value::Number),
            Kind::Flag => text.parse().ok().map(Value::Flag),
            Kind::Mixed => {
                let plain = [Kind::Number, Kind::Flag].into_iter().find_map(|kind| kind.read(text));
                plain.or_else(|| Kind::Text.read(text))
            }
        }
    }
}

/// A value as written, before a key has judged it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A whole number.
    Number(i64),
    /// True or false.
    Flag(bool),
}

impl Value {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn number<N: TryFrom<i64>>(&self) -> Option<N> {
        match *self {
            Value::Number(number) => N::try_from(number).ok(),
            _ => None,
        }
    }

    pub(super) fn flag(&self) -> Option<bool> {
        match *self {
            Value::Flag(flag) => Some(flag),
            _ => None,
        }
    }
}

impl Value {
    /// A number within limits.
    pub(super) fn within(&self, from: u8, to: u8) -> Option<u8> {
        self.number().filter(|number| (from..=to).contains(number))
    }

    /// A time like `500ms`, `2s` or `5m`, within limits.
    pub(super) fn time(&self, from: Duration, to: Duration) -> Option<Duration> {
        let text = self.text()?;
        let digits = text.find(|c: char| !c.is_ascii_digit())?;
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().ok()?;
        let time = match unit {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(number.checked_mul(60)?),
            "h" => Duration::from_secs(number.checked_mul(3600)?),
            _ => return None,
        };
        (from..=to).contains(&time).then_some(time)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) => text.fmt(f),
            Value::Number(number) => number.fmt(f),
            Value::Flag(flag) => flag.fmt(f),
        }
    }
}

/// Why a key or a value was not taken, in the same words wherever it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The key does not allow the value.
    #[error("{key}: {value} is not allowed; {allowed}")]
    Value {
        /// The key.
        key: &'static str,
        /// The value as written.
        value: String,
        /// What the key allows.
        allowed: String,
    },
    /// There is no such key.
    #[error("{key}: no such key here; {}allowed: {allowed}", meant(*.near))]
    Key {
        /// The key as written.
        key: String,
        /// The key that was probably meant.
        near: Option<&'static str>,
        /// The keys that there are.
        allowed: String,
    },
    /// It has no `=`.
    #[error("{0}: not of the form KEY=VALUE")]
    NoValue(String),
}

impl Refusal {
    pub(super) fn value(key: &'static str, value: &str, allowed: impl Into<String>) -> Self {
        Refusal::Value { key, value: cited(value), allowed: allowed.into() }
    }

    pub(super) fn key(key: &str, allowed: &[&'static str]) -> Self {
        let lower = key.to_lowercase();
        // One slip in three letters: `mac` is then not taken for a mistyped `match`.
        let distance = |name: &&str| strsim::osa_distance(&lower, name);
        let near =
            allowed.iter().copied().min_by_key(distance).filter(|name| distance(name) <= name.len() / 3);
        Refusal::Key { key: cited(key), near, allowed: allowed.join(", ") }
    }

    pub(super) fn no_value(text: &str) -> Self {
        Refusal::NoValue(cited(text))
    }
}

fn meant(near: Option<&str>) -> String {
    near.map(|name| format!("did you mean `{name}`? ")).unwrap_or_default()
}

/// A foreign text made safe for one line of a terminal: short, and quoted where it would be misread.
fn cited(text: &str) -> String {
    const LONGEST: usize = 40;
    let mut short: String = text.chars().take(LONGEST).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    let plain = !short.is_empty() && short.trim() == short && !short.contains(char::is_control);
    if plain { short } else { format!("{short:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_understood_and_guesses_are_not_made() {
        let near = |key| match Refusal::key(key, &["match", "name", "weight", "tier", "metered", "ignore"]) {
            Refusal::Key { near, .. } => near,
            other => panic!("{other}"),
        };
        assert_eq!(near("wieght"), Some("weight"));
        assert_eq!(near("Weight"), Some("weight"));
        assert_eq!(near("ignored"), Some("ignore"));
        assert_eq!(near("teir"), Some("tier"));
        for far in ["mac", "type", "metric", "", "x", &"w".repeat(1000)] {
            assert_eq!(near(far), None, "{far}");
        }
    }

    #[test]
    fn foreign_text_cannot_disturb_a_terminal() {
        assert_eq!(cited("0"), "0");
        assert_eq!(cited(""), "\"\"");
        assert_eq!(cited(" 2"), "\" 2\"");
        assert_eq!(cited("a\u{1b}[31m\n"), "\"a\\u{1b}[31m\\n\"");
        assert_eq!(cited(&"x".repeat(1000)), format!("{}…", "x".repeat(40)));
    }
}
