//! The fixtures are replies of real NetworkManagers (`busctl --json=short call … GetManagedObjects`), less the
//! properties that nobody here reads.

use serde_json::Value as Json;
use zbus::zvariant::Dict;

use super::*;

const V1_52: &str = include_str!("../../../../tests/data/networkmanager-1.52.json");
const V1_42: &str = include_str!("../../../../tests/data/networkmanager-1.42.json");

fn parsed(text: &str) -> Json {
    serde_json::from_str(text).unwrap()
}

/// As busctl writes it: `{"type": SIGNATURE, "data": …}`.
fn value(json: &Json) -> Value<'_> {
    let data = &json["data"];
    match json["type"].as_str().unwrap() {
        "s" => data.as_str().unwrap().into(),
        "o" => ObjectPath::try_from(data.as_str().unwrap()).unwrap().into(),
        "u" => u32::try_from(data.as_u64().unwrap()).unwrap().into(),
        "b" => data.as_bool().unwrap().into(),
        "a{sv}" => {
            let mut dict = Dict::new(&zbus::zvariant::Signature::Str, &zbus::zvariant::Signature::Variant);
            for (key, inner) in data.as_object().unwrap() {
                dict.append(key.as_str().into(), Value::Value(Box::new(value(inner)))).unwrap();
            }
            dict.into()
        }
        other => panic!("unexpected type {other}"),
    }
}

fn properties(json: &Json) -> Properties<'_> {
    json.as_object().unwrap().iter().map(|(name, json)| (name.as_str(), value(json))).collect()
}

fn objects(json: &Json) -> Objects<'_> {
    let interfaces = json.as_object().unwrap().iter().map(|(path, interfaces)| {
        let interfaces = interfaces.as_object().unwrap();
        let interfaces = interfaces.iter().map(|(name, json)| (name.as_str(), properties(json))).collect();
        (ObjectPath::try_from(path.as_str()).unwrap(), interfaces)
    });
    interfaces.collect()
}

/// All facts, as if each profile had these details.
fn facts_with(json: &Json, details: &Details) -> Vec<LinkFacts> {
    let objects = objects(json);
    let details = profiles_in_use(&objects).into_iter().map(|path| (path, details.clone())).collect();
    link_facts(&objects, &details)
}

fn facts(json: &Json) -> Vec<LinkFacts> {
    facts_with(json, &Details::default())
}

fn of<'a>(facts: &'a [LinkFacts], interface: &str) -> &'a LinkFacts {
    facts.iter().find(|facts| facts.interface.as_str() == interface).unwrap()
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Changes one property of the first device that speaks for an interface.
fn set(json: &mut Json, interface: &str, property: &str, data: impl Into<Json>) {
    let device = "org.freedesktop.NetworkManager.Device";
    let objects = json.as_object_mut().unwrap().values_mut();
    let mut devices = objects.filter_map(|object| object.get_mut(device));
    let found = devices.find(|device| device["Interface"]["data"] == interface).unwrap();
    found[property]["data"] = data.into();
}

#[test]
fn every_managed_interface_is_there_once_and_by_name() {
    let facts = facts(&parsed(V1_52));
    let names: Vec<_> = facts.iter().map(|facts| facts.interface.as_str()).collect();
    // Not wg0: a profile's device that was never made is unmanaged.
    assert_eq!(names, ["lo", "tun8", "w1", "w2", "w3", "w4", "w5"]);
}

#[test]
fn the_default_among_the_classless_routes_is_the_gateway_on_offer() {
    for version in [V1_52, V1_42] {
        let facts = facts(&parsed(version));
        let w1 = of(&facts, "w1");
        assert_eq!(w1.ip.v4.gateway, Some("192.0.2.254".parse().unwrap()));
        assert_eq!(w1.ip.v4.offered, ips(&["192.0.2.254"]));
        assert_eq!(w1.profile.as_ref().unwrap().uuid, "00000001-0000-4000-8000-000000000000");
        assert_eq!(w1.stage, Stage::Active);
        assert_eq!(w1.metered, Some(false));
    }
}

#[test]
fn a_profile_that_is_never_the_default_still_names_its_routers() {
    let facts = facts(&parsed(V1_52));
    let w2 = of(&facts, "w2");
    assert_eq!(w2.ip.v4.gateway, None);
    assert_eq!(w2.ip.v4.offered, ips(&["198.51.100.1", "198.51.100.2"]));
}

#[test]
fn static_and_advertised_gateways_of_both_families() {
    let facts = facts(&parsed(V1_52));
    let (w3, w4) = (of(&facts, "w3"), of(&facts, "w4"));
    assert_eq!(w3.ip.v4.gateway, Some("203.0.113.1".parse().unwrap()));
    assert_eq!(w3.ip.v6.gateway, Some("2001:db8:3::1".parse().unwrap()));
    assert_eq!(w3.metered, Some(true));
    assert_eq!(w4.ip.v4.offered, ips(&["10.4.0.1"]));
    assert!(w4.ip.v6.gateway.is_some_and(|ip| ip.to_string().starts_with("fe80::")));
}

#[test]
fn what_others_set_up_has_no_profile_to_be_known_by() {
    let json = parsed(V1_52);
    let objects = objects(&json);
    assert_eq!(profiles_in_use(&objects).len(), 5);
    let facts = facts(&json);
    assert_eq!(of(&facts, "lo").profile, None);
    assert_eq!(of(&facts, "lo").stage, Stage::Active);
}

#[test]
fn tunnels_are_vpns() {
    let facts = facts(&parsed(V1_52));
    assert!(of(&facts, "tun8").vpn);
    assert!(!of(&facts, "w1").vpn);
}

#[test]
fn details_of_the_profile_reach_its_interface_only() {
    let details = Details { shared: true, settings: [("weight".to_owned(), "2".to_owned())].into() };
    let facts = facts_with(&parsed(V1_42), &details);
    assert!(of(&facts, "w5").shared);
    assert_eq!(of(&facts, "w5").settings[0].pairs["weight"], "2");
    let facts = facts_with(&parsed(V1_52), &details);
    assert!(!of(&facts, "w5").shared, "disconnected: no profile is active on it");
}

#[test]
fn states_and_guesses() {
    let mut json = parsed(V1_52);
    for (state, stage) in
        [(20, Stage::Inactive), (30, Stage::Inactive), (40, Stage::Configuring)].into_iter().chain([
            (90, Stage::Configuring),
            (100, Stage::Active),
            (110, Stage::Inactive),
            (120, Stage::Inactive),
        ])
    {
        set(&mut json, "w1", "State", state);
        assert_eq!(of(&facts(&json), "w1").stage, stage, "{state}");
    }
    for (metered, opinion) in [(0, None), (1, Some(true)), (2, Some(false)), (3, Some(true)), (9, None)] {
        set(&mut json, "w1", "Metered", metered);
        assert_eq!(of(&facts(&json), "w1").metered, opinion, "{metered}");
    }
    set(&mut json, "w1", "State", 10);
    assert!(facts(&json).iter().all(|facts| facts.interface.as_str() != "w1"));
}

#[test]
fn the_port_that_carries_ip_speaks() {
    let mut json = parsed(V1_52);
    set(&mut json, "w1", "IpInterface", "wwan0");
    set(&mut json, "w5", "IpInterface", "wwan0");
    set(&mut json, "w3", "IpInterface", "not an interface; at all");
    let facts = facts(&json);
    let names: Vec<_> = facts.iter().map(|facts| facts.interface.as_str()).collect();
    assert_eq!(names, ["lo", "tun8", "w2", "w4", "wwan0"]);
    assert_eq!(of(&facts, "wwan0").stage, Stage::Active);
}

#[test]
fn wrong_types_and_dangling_paths_are_missing_facts() {
    let mut json = parsed(V1_52);
    set(&mut json, "w1", "Ip4Config", "/nowhere");
    set(&mut json, "w1", "Dhcp4Config", "/");
    set(&mut json, "w1", "ActiveConnection", "/gone");
    for object in json.as_object_mut().unwrap().values_mut() {
        if let Some(config) = object.get_mut("org.freedesktop.NetworkManager.IP4Config") {
            config["Gateway"] = serde_json::json!({"type": "u", "data": 1});
        }
    }
    let facts = facts(&json);
    let w1 = of(&facts, "w1");
    assert_eq!((&w1.profile, &w1.ip.v4), (&None, &IpFacts::default()));
    assert_eq!(of(&facts, "w3").ip.v4.gateway, None);
}
