//! What a NetworkManager profile says for us.
//!
//! Pure. Decides which of its properties we read. Knows nothing of what those keys mean.

use std::collections::{BTreeMap, HashMap};

use zbus::zvariant::Value;

/// The reply of `Settings.Connection.GetSettings`: properties by setting.
pub(super) type Settings<'m> = HashMap<&'m str, HashMap<&'m str, Value<'m>>>;

/// What our keys begin with. NetworkManager refuses a profile with a key that has no dot (nm-settings(5), "user").
const PREFIX: &str = "uplinkd.";

/// What we read from a profile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Details {
    /// It shares its uplink with others (`ipv4.method` or `ipv6.method` is `shared`).
    pub(super) shared: bool,
    /// Its `uplinkd.*` user data, keys without the prefix.
    pub(super) settings: BTreeMap<String, String>,
}

/// Reads a profile.
pub(super) fn details(settings: &Settings<'_>) -> Details {
    let property = |setting, name| settings.get(setting).and_then(|of| of.get(name));
    let is_shared = |setting| property(setting, "method").is_some_and(|m| *m == Value::from("shared"));
    Details {
        shared: is_shared("ipv4") || is_shared("ipv6"),
        settings: property("user", "data")
            .map(text_map)
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(PREFIX)?.to_owned(), value)))
            .collect(),
    }
}

/// An `a{ss}`; entries of any other type are left out.
fn text_map(map: &Value<'_>) -> BTreeMap<String, String> {
    let Value::Dict(map) = map else { return BTreeMap::new() };
    let text = |value: &Value<'_>| <&str>::try_from(value).ok().map(str::to_owned);
    map.iter().filter_map(|(key, value)| Some((text(key)?, text(value)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(entries: &[(&str, &str)]) -> Value<'static> {
        let map: HashMap<String, String> =
            entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Value::from(map)
    }

    #[test]
    fn only_our_keys_are_read() {
        let entries = [("uplinkd.weight", "2"), ("org.example.note", "x"), ("uplinkd", "y")];
        let user = HashMap::from([("data", data(&entries))]);
        let ipv6 = HashMap::from([("method", Value::from("shared"))]);
        let read = details(&HashMap::from([("user", user), ("ipv6", ipv6)]));
        assert_eq!(read.settings, BTreeMap::from([("weight".to_owned(), "2".to_owned())]));
        assert!(read.shared);
    }

    #[test]
    fn a_value_of_the_wrong_type_says_nothing() {
        let user = HashMap::from([("data", Value::from(7u32))]);
        let ipv4 = HashMap::from([("method", Value::from(7u32))]);
        assert_eq!(details(&HashMap::from([("user", user), ("ipv4", ipv4)])), Details::default());
    }
}
