//! Secrets of a profile on their way through us.
//!
//! NetworkManager leaves secrets out of what it shows, and takes a profile that is written back as it stands. Measured
//! with 1.42 and 1.52: an update without secrets keeps them once (but not those of WireGuard peers), and the next one
//! wipes them from the file. So whoever writes a profile reads the secrets first and sends them along. Pure.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use zbus::zvariant::{OwnedValue, Value};

use super::profile::OwnedSettings;

/// Settings that have no secrets; any other, one from the future included, is asked for them. (`ethtool` must be here:
/// NetworkManager takes its options for secrets and answers the question with an error.)
const PLAIN: [&str; 7] = ["connection", "ipv4", "ipv6", "proxy", "user", "802-3-ethernet", "ethtool"];

/// The settings of a profile that may have secrets.
pub(super) fn settings_to_ask(settings: &OwnedSettings) -> Vec<String> {
    settings.keys().filter(|name| !PLAIN.contains(&name.as_str())).cloned().collect()
}

/// Puts what `GetSecrets` answered where it belongs; whatever the profile shows openly stays as it is.
pub(super) fn merge(settings: &mut OwnedSettings, secrets: OwnedSettings) {
    for (name, properties) in secrets {
        let Some(setting) = settings.get_mut(&name) else { continue };
        for (property, secret) in properties {
            match setting.entry(property) {
                Entry::Vacant(place) => {
                    place.insert(secret);
                }
                Entry::Occupied(mut open) if open.key() == "peers" => {
                    if let Some(peers) = merged_peers(open.get(), &secret) {
                        open.insert(peers);
                    }
                }
                Entry::Occupied(_) => {}
            }
        }
    }
}

type Peer = HashMap<String, OwnedValue>;

/// WireGuard's peers are shown without their preshared keys, and once more with little else, told apart by public key.
fn merged_peers(open: &OwnedValue, secret: &OwnedValue) -> Option<OwnedValue> {
    let (mut open, secret) = (peers(open)?, peers(secret)?);
    for peer in &mut open {
        let same = secret.iter().find(|other| other.get("public-key") == peer.get("public-key"));
        for (property, value) in same.into_iter().flatten() {
            peer.entry(property.clone()).or_insert_with(|| value.clone());
        }
    }
    Value::from(open).try_into().ok()
}

fn peers(value: &OwnedValue) -> Option<Vec<Peer>> {
    Vec::try_from(value.clone()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> OwnedValue {
        Value::from(value).try_into().unwrap()
    }

    fn one(setting: &str, property: &str, value: OwnedValue) -> OwnedSettings {
        HashMap::from([(setting.to_owned(), HashMap::from([(property.to_owned(), value)]))])
    }

    fn peer(properties: &[(&str, &str)]) -> Peer {
        properties.iter().map(|(name, value)| ((*name).to_owned(), text(value))).collect()
    }

    fn list(peers: Vec<Peer>) -> OwnedValue {
        Value::from(peers).try_into().unwrap()
    }

    #[test]
    fn secrets_join_their_setting() {
        let mut settings = one("gsm", "apn", text("internet"));
        merge(&mut settings, one("gsm", "password", text("secret")));
        merge(&mut settings, one("gsm", "apn", text("other")));
        merge(&mut settings, one("vpn", "secrets", text("of another profile")));
        assert_eq!(settings["gsm"]["password"], text("secret"));
        assert_eq!(settings["gsm"]["apn"], text("internet"));
        assert!(!settings.contains_key("vpn"));
    }

    #[test]
    fn preshared_keys_find_their_peer() {
        let open = vec![peer(&[("public-key", "A"), ("endpoint", "a:1")]), peer(&[("public-key", "B")])];
        let mut settings = one("wireguard", "peers", list(open));
        let secret = vec![peer(&[("public-key", "B"), ("preshared-key", "psk")])];
        merge(&mut settings, one("wireguard", "peers", list(secret)));
        let merged = peers(&settings["wireguard"]["peers"]).unwrap();
        assert_eq!(merged[0], peer(&[("public-key", "A"), ("endpoint", "a:1")]));
        assert_eq!(merged[1], peer(&[("public-key", "B"), ("preshared-key", "psk")]));
    }

    #[test]
    fn only_settings_without_secrets_are_spared_the_question() {
        let mut settings = one("connection", "id", text("x"));
        settings.extend(one("ipv4", "method", text("auto")));
        settings.extend(one("802-1x", "identity", text("joe")));
        assert_eq!(settings_to_ask(&settings), ["802-1x"]);
    }
}
