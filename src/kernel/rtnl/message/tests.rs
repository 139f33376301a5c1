use netlink_packet_core::{NLM_F_DUMP, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::core::layout::Slot;

/// A message as it arrives: written and read again.
fn travelled(message: RouteNetlinkMessage) -> RouteNetlinkMessage {
    let mut message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::from(message));
    message.header.flags = NLM_F_DUMP;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    match NetlinkMessage::deserialize(&bytes).unwrap().payload {
        NetlinkPayload::InnerMessage(message) => message,
        other => panic!("{other:?}"),
    }
}

/// The payload of a kernel's answer, of a type of rtnetlink.
fn captured(kind: u16, hex: &str) -> RouteNetlinkMessage {
    let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    let payload: Vec<u8> = digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
    let length = u32::try_from(16 + payload.len()).unwrap().to_ne_bytes();
    let bytes = [&length, kind.to_ne_bytes().as_slice(), &[0; 10], &payload].concat();
    match NetlinkMessage::deserialize(&bytes).unwrap().payload {
        NetlinkPayload::InnerMessage(message) => message,
        other => panic!("{other:?}"),
    }
}

const RTM_NEWROUTE: u16 = 24;
const RTM_NEWRULE: u16 = 32;

fn captured_rule(family: Family, hex: &str) -> Result<Rule, ForeignRule> {
    match captured(RTM_NEWRULE, hex) {
        RouteNetlinkMessage::NewRule(message) => parse_rule(family, &message),
        other => panic!("{other:?}"),
    }
}

fn captured_route(family: Family, hex: &str) -> RouteFields {
    match captured(RTM_NEWROUTE, hex) {
        RouteNetlinkMessage::NewRoute(message) => RouteFields::of(family, &message).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn device(index: IfIndex) -> Option<Device> {
    Some(Device { index, name: IfName::new(&format!("e{}", index.0))? })
}

fn ip(family: Family) -> BoxedStrategy<IpAddr> {
    match family {
        Family::V4 => any::<[u8; 4]>().prop_map(IpAddr::from).boxed(),
        Family::V6 => any::<[u8; 16]>().prop_map(IpAddr::from).boxed(),
    }
}

/// A destination as the kernel stores it: no bit beyond the prefix, and nothing where all is meant.
fn net(family: Family) -> impl Strategy<Value = IpNet> {
    let longest = family.default_prefix().max_prefix_len();
    (ip(family), 0..=longest).prop_map(move |(ip, len)| IpNet::new_assert(ip, len).trunc())
}

fn family() -> impl Strategy<Value = Family> {
    select(&Family::BOTH[..])
}

fn table() -> impl Strategy<Value = TableId> {
    prop_oneof![Just(TableId::MAIN), (7000..=7063u32).prop_map(TableId), (1..=u32::MAX).prop_map(TableId)]
}

fn any_rule() -> impl Strategy<Value = Rule> {
    family().prop_flat_map(|family| {
        let selector = prop_oneof![
            Just(Selector::All),
            (1..=63u8).prop_map(|slot| Selector::Mark(Slot::new(slot).unwrap().mark())),
            ip(family).prop_map(|ip| Selector::From(ip.into())),
            net(family).prop_map(Selector::From),
            net(family).prop_map(Selector::To),
            "[a-z][a-z0-9.@:-]{0,14}".prop_map(|name| Selector::Oif(IfName::new(&name).unwrap())),
        ];
        let suppress = prop::option::of(0..=128u32);
        (any::<u32>(), selector, table(), suppress).prop_map(move |(pref, selector, table, suppress)| Rule {
            family,
            pref: Pref(pref),
            selector,
            table,
            suppress_prefixlen: suppress,
        })
    })
}

fn any_route() -> impl Strategy<Value = Route> {
    family().prop_flat_map(|family| {
        let via = match family {
            Family::V4 => prop_oneof![3 => ip(Family::V4), 1 => ip(Family::V6)].boxed(),
            Family::V6 => ip(Family::V6),
        };
        let hop = (1..=u32::MAX, prop::option::of(via), any::<bool>(), 1..=256u16).prop_map(
            |(index, via, onlink, weight)| NextHop {
                dev: device(IfIndex(index)).unwrap(),
                via,
                onlink,
                weight: Weight::new(weight).unwrap(),
            },
        );
        let key = (table(), net(family), any::<u32>());
        let hops = prop::collection::vec(hop, 0..5);
        (key, prop::option::of(ip(family)), hops).prop_map(|((table, dest, metric), src, mut hops)| {
            if let [only] = hops.as_mut_slice() {
                only.weight = Weight::default();
            }
            Route { key: RouteKey::new(table, dest, Metric(metric)), src, hops }
        })
    })
}

proptest! {
    #[test]
    fn rules_come_back_as_they_went(rule in any_rule()) {
        let message = travelled(RouteNetlinkMessage::NewRule(super::rule(&rule)));
        let RouteNetlinkMessage::NewRule(message) = message else { panic!("{message:?}") };
        prop_assert_eq!(parse_rule(rule.family, &message), Ok(rule));
    }

    #[test]
    fn routes_come_back_as_they_went(route in any_route()) {
        let message = travelled(RouteNetlinkMessage::NewRoute(super::route(&route)));
        let RouteNetlinkMessage::NewRoute(message) = message else { panic!("{message:?}") };
        let fields = RouteFields::of(route.family(), &message).unwrap();
        prop_assert_eq!(fields.protocol, OWNER);
        prop_assert_eq!(fields.into_route(device), Some(route));
    }
}

/// As Linux 6.18 dumps them; the command that made each stands above it.
#[test]
fn rules_of_ours_are_read_from_a_kernel() {
    for (family, spec, hex) in [
        // ip -4 rule add …
        (
            Family::V4,
            "pref 7000 lookup main suppress_prefixlength 1 protocol 177",
            "02000000fe0000010000000008000f00fe00000008000e000100000005001500b100000008000600581b0000",
        ),
        (
            Family::V4,
            "pref 7101 fwmark 0x1000000/0x3f000000 lookup 7001 protocol 177",
            "02000000fc0000010000000008000f00591b000008000e00ffffffff05001500b100000008000600bd1b000008000a0000000001\
             080010000000003f",
        ),
        (
            Family::V6,
            "pref 7201 from 2001:db8::1 lookup 7001 protocol 177",
            "0a008000fc0000010000000008000f00591b000008000e00ffffffff05001500b100000008000600211c00001400020020010db8\
             000000000000000000000001",
        ),
        (
            Family::V4,
            "pref 32764 to 128.0.0.0/1 lookup main suppress_prefixlength 0 protocol 177",
            "02010000fe0000010000000008000f00fe00000008000e000000000005001500b100000008000600fc7f00000800010080000000",
        ),
        (
            Family::V4,
            "pref 7301 oif e0 lookup 7001 protocol 177",
            "02000000fc0000010000000008000f00591b000008000e00ffffffff05001500b1000000070011006530000008000600851c0000",
        ),
    ] {
        let rule = captured_rule(family, hex).unwrap_or_else(|foreign| panic!("{foreign:?}"));
        assert_eq!(rule.spec().to_string(), spec);
    }
}

#[test]
fn foreign_rules_are_told_as_they_are() {
    for (hex, text, catch_all, fwmark, table) in [
        // ip rule add pref 6999 not fwmark 0xca6c lookup 51820
        (
            "02000000fc0000010200000008000f006cca000008000e00ffffffff050015000000000008000600571b000008000a006cca0000\
             08001000ffffffff",
            "6999: not from all fwmark 0xca6c/0xffffffff lookup 51820",
            true,
            Some((0xca6c, u32::MAX)),
            Some(51820),
        ),
        // ip rule add pref 5250 fwmark 0x80000/0xff0000 unreachable
        (
            "02000000000000070000000008000f000000000008000e00ffffffff0500150000000000080006008214000008000a0000000800\
             080010000000ff00",
            "5250: from all fwmark 0x80000/0xff0000 unreachable",
            false,
            Some((0x80000, 0xff_0000)),
            None,
        ),
        // ip rule add pref 1000 l3mdev
        (
            "02000000000000010000000008000f000000000008000e00ffffffff050015000000000008000600e80300000500130001000000",
            "1000: from all l3mdev lookup 0",
            false,
            None,
            Some(0),
        ),
        // ip rule add pref 900 uidrange 1000-1000 lookup 100
        (
            "02000000640000010000000008000f006400000008000e00ffffffff050015000000000008000600840300000c001400e8030000\
             e8030000",
            "900: from all uidrange 1000-1000 lookup 100",
            false,
            None,
            Some(100),
        ),
        // ip rule add pref 500 lookup 100 realms 5
        (
            "02000000640000010000000008000f006400000008000e00ffffffff050015000000000008000600f401000008000b0005000000",
            "500: from all lookup 100",
            true,
            None,
            Some(100),
        ),
        // ip rule add pref 400 from 10.0.0.0/8 iif e0 lookup 100 protocol 177
        (
            "02000800640000010000000008000f006400000008000e00ffffffff05001500b1000000070003006530000008000600900100000\
             80002000a000000",
            "400: from 10.0.0.0/8 iif e0 lookup 100",
            false,
            None,
            Some(100),
        ),
    ] {
        let foreign = captured_rule(Family::V4, hex).unwrap_err();
        let found = (foreign.text.as_str(), foreign.catch_all, foreign.fwmark, foreign.table.map(|t| t.0));
        assert_eq!(found, (text, catch_all, fwmark, table));
        assert_eq!(foreign.iif.is_some_and(|name| name.as_str() == "e0"), text.contains("iif e0"));
    }
}

#[test]
fn routes_of_ours_are_read_from_a_kernel() {
    for (family, spec, hex) in [
        (
            Family::V4,
            "default table 7000 proto 177 metric 0 nexthop via 192.0.2.1 dev e3 weight 256 nexthop via 198.51.100.1 \
             dev e5 weight 1",
            "02000000fcb100010000000008000f00581b000024000900100000ff0300000008000500c0000201100000000500000008000500\
             c6336401",
        ),
        (
            Family::V4,
            "default via 172.31.1.1 dev e3 onlink table 7001 proto 177 metric 0 src 192.0.2.10",
            "02000000fcb100010400000008000f00591b000008000700c000020a08000500ac1f01010800040003000000",
        ),
        (
            Family::V6,
            "default table main proto 177 metric 1023 nexthop via fe80::1 dev e3 weight 2 nexthop via fe80::1 dev e5 \
             weight 1",
            "0a000000feb100010000000008000f00fe00000008000600ff0300003c0009001c0000010300000014000500fe80000000000000\
             00000000000000011c0000000500000014000500fe80000000000000000000000000000124000c00000000000000000000000000\
             00000000000000000000000000000000000000000500140000000000",
        ),
    ] {
        let fields = captured_route(family, hex);
        assert_eq!(fields.protocol, OWNER);
        assert_eq!(fields.into_route(device).unwrap().spec().to_string(), spec);
    }
    // ip route add unreachable default metric 30000
    let dead_end = captured_route(Family::V4, "02000000fe0300070000000008000f00fe0000000800060030750000");
    assert_eq!((dead_end.key.metric, dead_end.hops.len()), (Metric(30_000), 0));
    assert_eq!(dead_end.into_route(device).map(|route| route.hops), Some(vec![]));
}
