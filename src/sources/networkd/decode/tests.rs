//! The fixtures are answers of real networkds (`busctl --json=short call … Describe`), less what nobody here reads.

use serde_json::json;

use super::*;

const V257: &str = include_str!("../../../../tests/data/networkd-257.json");
const V252: &str = include_str!("../../../../tests/data/networkd-252.json");

/// What `/run/systemd/netif/leases/3` held then.
const LEASE: &str = "# This is private data. Do not parse.\nADDRESS=192.168.2.10\nNETMASK=255.255.255.0\n\
                     ROUTER=192.168.2.254\nSERVER_ADDRESS=192.168.2.254\nT1=30min\nDNS=192.168.2.254\n";

fn parsed(text: &str) -> Json {
    serde_json::from_str(text).unwrap()
}

/// The facts of a link, with its .network file and its lease; none where it is not managed.
fn facts(document: &Json, interface: &str, network: &str, lease: Option<&str>) -> Option<LinkFacts> {
    let files = [("/etc/systemd/network/x.network".to_owned(), network.to_owned())];
    let links = links(document).unwrap().into_iter();
    let link = { links }.find(|link| link.facts.interface.as_str() == interface)?;
    Some(link.with(&Network::of(&files), Vec::new(), lease))
}

fn plain(document: &Json, interface: &str) -> LinkFacts {
    facts(document, interface, "", None).unwrap()
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// The description of a link, to be changed.
fn link<'j>(document: &'j mut Json, interface: &str) -> &'j mut Json {
    let links = document["Interfaces"].as_array_mut().unwrap();
    links.iter_mut().find(|link| link["Name"] == interface).unwrap()
}

#[test]
fn managed_links_are_there_with_their_file_and_others_are_not() {
    for version in [V257, V252] {
        let document = parsed(version);
        assert_eq!(facts(&document, "lo", "", None), None, "unmanaged");
        let eth1 = plain(&document, "eth1");
        assert_eq!((eth1.manager, eth1.stage, eth1.metered), (Manager::Networkd, Stage::Active, None));
        let profile = eth1.profile.unwrap();
        assert_eq!(profile.id, "/etc/systemd/network/eth1.network");
        assert_eq!((profile.uuid.as_str(), profile.kind.as_str()), ("eth1.network@eth1", "ether"));
        let lan = facts(&document, "lan0", "[Network]\nDHCPServer=yes\n", None).unwrap();
        assert!(lan.shared && !eth1.shared);
    }
}

#[test]
fn gateways_and_resolvers_by_family() {
    for version in [V257, V252] {
        let eth1 = plain(&parsed(version), "eth1");
        assert_eq!(eth1.ip.v4.gateway, Some("192.168.1.254".parse().unwrap()));
        assert_eq!(eth1.ip.v4.resolvers, ips(&["192.168.1.254"]));
        assert_eq!(eth1.ip.v6.resolvers, ips(&["2001:db8:1::fe"]));
        assert_eq!((eth1.ip.v6.offered, eth1.ip.v4.connectivity), (Vec::new(), None));
    }
    assert!(plain(&parsed(V257), "lan0").shared, "257 tells of its DHCP server");
    // 257 keeps this route behind a nexthop object, and hides it.
    assert_eq!(plain(&parsed(V257), "eth1").ip.v6.gateway, None);
    assert_eq!(
        plain(&parsed(V252), "eth1").ip.v6.gateway,
        Some("fe80::30a5:35ff:fe94:a468".parse().unwrap())
    );
}

#[test]
fn a_lease_names_the_router_that_networkd_was_told_not_to_use() {
    for version in [V257, V252] {
        let document = parsed(version);
        let eth2 = |lease| facts(&document, "eth2", "", lease).unwrap().ip.v4;
        assert_eq!((eth2(Some(LEASE)).gateway, eth2(Some(LEASE)).offered), (None, ips(&["192.168.2.254"])));
        let classless = format!("{LEASE}CLASSLESS_ROUTES=10.0.0.0/8,192.168.2.7 0.0.0.0/0,192.168.2.253\n");
        assert_eq!(eth2(Some(&classless)).offered, ips(&["192.168.2.253"]));
        for nothing in
            [None, Some(""), Some("ROUTER=\n"), Some("ROUTER=$(reboot) 224.0.0.1\0\nROUTERS=192.0.2.1")]
        {
            assert_eq!(eth2(nothing).offered, ips(&[]), "{nothing:?}");
        }
    }
}

#[test]
fn a_router_that_networkd_was_told_not_to_use_counts_and_others_do_not() {
    for version in [V257, V252] {
        let interface = if version == V257 { "eth3" } else { "eth2" };
        let document = parsed(version);
        let v6 = |network| facts(&document, interface, network, None).unwrap().ip.v6;
        let told = v6("[IPv6AcceptRA]\nUseGateway=no\n");
        assert_eq!((told.gateway, told.offered.len()), (None, 1));
        assert!(told.offered[0].to_string().starts_with("fe80::"));
        assert_eq!(v6("").offered, ips(&[]), "it may be the router of a LAN without a way out");
    }
}

#[test]
fn how_far_networkd_is() {
    let mut document = parsed(V257);
    for (administrative, operational, expected) in [
        ("configured", "routable", Some(Stage::Active)),
        ("configured", "no-carrier", Some(Stage::Inactive)),
        ("configuring", "degraded", Some(Stage::Configuring)),
        ("configuring", "no-carrier", Some(Stage::Inactive)),
        ("pending", "carrier", Some(Stage::Inactive)),
        ("failed", "degraded", Some(Stage::Inactive)),
        ("linger", "", Some(Stage::Inactive)),
        ("unmanaged", "routable", None),
    ] {
        link(&mut document, "eth1")["AdministrativeState"] = administrative.into();
        link(&mut document, "eth1")["OperationalState"] = operational.into();
        assert_eq!(
            facts(&document, "eth1", "", None).map(|f| f.stage),
            expected,
            "{administrative} {operational}"
        );
    }
}

#[test]
fn the_best_route_of_its_own_is_the_gateway() {
    let mut document = parsed(V257);
    let route = |gateway: Json, metric: u32, source: &str| json!({"Family": 2, "DestinationPrefixLength": 0, "Gateway": gateway, "Priority": metric, "ConfigSource": source});
    link(&mut document, "eth1")["Routes"] = json!([
        route(json!([192, 0, 2, 1]), 5, "foreign"),
        route(json!([192, 0, 2, 2]), 300, "static"),
        route(json!([192, 0, 2, 3]), 200, "DHCPv4"),
        route(json!([224, 0, 0, 1]), 10, "static"),
        route(json!([192, 0, 2]), 10, "static"),
        route(json!([192, 0, 2, 256]), 10, "static"),
        route(json!("192.0.2.9"), 10, "static"),
        {"DestinationPrefixLength": 0, "SourcePrefixLength": 64, "Gateway": [192, 0, 2, 4], "ConfigSource": "static"},
    ]);
    assert_eq!(plain(&document, "eth1").ip.v4.gateway, Some("192.0.2.3".parse().unwrap()));
}

#[test]
fn what_is_of_another_type_is_a_missing_fact_and_hurts_no_other_link() {
    for member in ["Routes", "Addresses", "DNS", "NetworkFile", "DHCPServer", "Type", "OperationalState"] {
        for odd in [json!(null), json!(7), json!("x"), json!([1, [2], {"Address": {}}]), json!({"a": []})] {
            let mut document = parsed(V257);
            link(&mut document, "eth1")[member] = odd.clone();
            assert!(facts(&document, "eth1", "", None).is_some(), "{member} {odd}");
        }
    }
    for (member, odd) in [
        ("Name", json!("a/b; c")),
        ("Name", json!(1)),
        ("Index", json!(-1)),
        ("AdministrativeState", json!(1)),
    ] {
        let mut document = parsed(V257);
        link(&mut document, "eth1")[member] = odd;
        assert_eq!(links(&document).unwrap().len(), links(&parsed(V257)).unwrap().len() - 1);
    }
    assert!(links(&json!({"Interfaces": [1, null, [], {}]})).unwrap().is_empty());
    assert!(links(&json!({"Interfaces": {}})).is_none() && links(&json!([])).is_none());
}

#[test]
fn what_is_delegated_over_a_link() {
    // What systemd 257.13 said of a lease of wide-dhcpv6-server 20080615, less what nobody here reads.
    let link = |prefixes: &str| {
        serde_json::from_str(&format!(r#"{{"DHCPv6Client":{{"Prefixes":[{prefixes}]}}}}"#)).unwrap()
    };
    let good = r#"{"Prefix":[32,1,13,184,0,1,10,0,0,0,0,0,0,0,0,0],"PrefixLength":56,
        "PreferredLifetimeUSec":18300744389,"ValidLifetimeUSec":18300744389}"#;
    assert_eq!(delegated(&link(good)), ["2001:db8:1:a00::/56".parse().unwrap()]);
    let too_long = good.replace("56", "129");
    let no_byte = good.replace("32,", "256,");
    for bad in [r#"{"Prefix":[32,1],"PrefixLength":56}"#, r#"{"Prefix":"x"}"#, "7", &too_long, &no_byte] {
        assert_eq!(delegated(&link(bad)), [], "{bad}");
    }
    assert_eq!(delegated(&serde_json::from_str(r#"{"DHCPv6Client":{"DUID":[0,3]}}"#).unwrap()), []);
}
