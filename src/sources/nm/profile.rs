//! What a NetworkManager profile says for us, and how our part of it is changed.
//!
//! Pure. Decides which of its properties we read, and that nothing but the `uplinkd.*` keys of `user.data` is ever
//! written. Knows nothing of what those keys mean.

use std::collections::{BTreeMap, HashMap};

use zbus::zvariant::{OwnedValue, Value};

/// The reply of `Settings.Connection.GetSettings`: properties by setting.
pub(super) type Settings<'m> = HashMap<&'m str, HashMap<&'m str, Value<'m>>>;

/// The same, to be sent back.
pub(super) type OwnedSettings = HashMap<String, HashMap<String, OwnedValue>>;

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

/// Takes out what NetworkManager shows twice, in an old and a new form, so that the profile can be sent back whole.
///
/// Given both, it reads the old form alone, and that one holds less (nm-settings-dbus(5), "addresses", "routes", "dns";
/// seen: a route's `mtu` and `onlink` and the server names of DNS over TLS were gone after one round trip).
pub(super) fn drop_old_forms(settings: &mut OwnedSettings) {
    for family in ["ipv4", "ipv6"] {
        let Some(setting) = settings.get_mut(family) else { continue };
        for (old, new) in [("addresses", "address-data"), ("routes", "route-data"), ("dns", "dns-data")] {
            if setting.contains_key(new) {
                setting.remove(old);
            }
        }
    }
}

/// Applies changes, keys without the prefix, `None` removes; says whether anything is different now.
///
/// A `user` setting that is left without data goes, so that setting and removing a key leaves the profile as it was.
pub(super) fn edit(settings: &mut OwnedSettings, changes: &[(String, Option<String>)]) -> bool {
    let before = settings.get("user").and_then(|user| user.get("data")).map(|data| text_map(data));
    let before = before.unwrap_or_default();
    let mut after = before.clone();
    for (key, value) in changes {
        let key = format!("{PREFIX}{key}");
        match value {
            Some(value) => after.insert(key, value.clone()),
            None => after.remove(&key),
        };
    }
    if after == before {
        return false;
    }
    if after.is_empty() {
        settings.remove("user");
    } else {
        let data = after.into_iter().collect::<HashMap<_, _>>().into();
        settings.entry("user".to_owned()).or_default().insert("data".to_owned(), data);
    }
    true
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

    fn profile(entries: &[(&str, &str)]) -> OwnedSettings {
        let user = HashMap::from([("data".to_owned(), data(entries).try_to_owned().unwrap())]);
        let id = OwnedValue::try_from(Value::from("ISP one")).unwrap();
        let connection = HashMap::from([("id".to_owned(), id)]);
        HashMap::from([("user".to_owned(), user), ("connection".to_owned(), connection)])
    }

    fn change(key: &str, value: Option<&str>) -> (String, Option<String>) {
        (key.to_owned(), value.map(str::to_owned))
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

    #[test]
    fn an_edit_leaves_the_rest_alone() {
        let mut settings = profile(&[("uplinkd.weight", "2"), ("org.example.note", "x")]);
        assert!(edit(&mut settings, &[change("weight", Some("3")), change("tier", None)]));
        let expected = profile(&[("uplinkd.weight", "3"), ("org.example.note", "x")]);
        assert_eq!(text_map(&settings["user"]["data"]), text_map(&expected["user"]["data"]));
        assert_eq!(settings["connection"], expected["connection"]);
        assert!(!edit(&mut settings, &[change("weight", Some("3"))]));
    }

    #[test]
    fn the_old_form_goes_where_the_new_one_is_there() {
        let new = || OwnedValue::from(1u32);
        let ipv4 = ["routes", "route-data", "addresses"].map(|name| (name.to_owned(), new()));
        let mut settings = HashMap::from([("ipv4".to_owned(), HashMap::from(ipv4))]);
        drop_old_forms(&mut settings);
        let left = settings["ipv4"].keys().map(String::as_str).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(left, ["addresses", "route-data"].into());
    }

    #[test]
    fn an_empty_user_setting_goes() {
        let mut settings = profile(&[]);
        settings.remove("user");
        assert!(!edit(&mut settings, &[change("weight", None)]));
        assert!(edit(&mut settings, &[change("weight", Some("2"))]));
        assert!(edit(&mut settings, &[change("weight", None)]));
        assert!(!settings.contains_key("user"));
    }
}
