use proptest::prelude::*;

use super::*;

fn course() -> Course {
    Course::of("video", Family::V4)
}

fn host(n: u16) -> IpAddr {
    IpAddr::from([198, 51, (n >> 8) as u8, n as u8])
}

const LOST: End = End { winner: None, bytes: 120 };

/// An IPv4 packet of these flags to 203.0.113.1:443, with options of the IP header.
fn packet(flags: u8, options: usize) -> Vec<u8> {
    let mut packet = vec![0x45 + (options / 4) as u8, 0, 0, 60, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 1, 0, 9];
    packet.extend([203, 0, 113, 1]);
    packet.resize(20 + options, 1);
    packet.extend([0x80, 0, 1, 0xbb, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
    packet
}

#[test]
fn only_what_begins_a_connection_is_a_call() {
    let call = "203.0.113.1:443".parse().ok();
    for options in [0, 4, 40] {
        assert_eq!(called(&packet(0x02, options)), call);
        // With ECN (RFC 3168).
        assert_eq!(called(&packet(0xc2, options)), call);
        for flags in [0x12, 0x10, 0x04, 0x11, 0] {
            assert_eq!(called(&packet(flags, options)), None, "{flags:#x}");
        }
    }
    let six: Vec<u8> = [
        vec![0x60, 0, 0, 0, 0, 20, 6, 64],
        "fd00::9".parse::<Ipv6Addr>().unwrap().octets().to_vec(),
        "2001:db8:9::1".parse::<Ipv6Addr>().unwrap().octets().to_vec(),
        packet(0x02, 0)[20..].to_vec(),
    ]
    .concat();
    assert_eq!(called(&six), "[2001:db8:9::1]:443".parse().ok());
    let changed = |at: usize, byte: u8| {
        let mut packet = packet(0x02, 0);
        packet[at] = byte;
        called(&packet)
    };
    for (at, byte, why) in
        [(0, 0x55, "version 5"), (0, 0x44, "too short"), (9, 17, "UDP"), (7, 1, "a fragment")]
    {
        assert_eq!(changed(at, byte), None, "{why}");
    }
    for end in 0..34 {
        assert_eq!(called(&packet(0x02, 0)[..end]), None, "{end}");
        assert_eq!(called(&six[..end]), None, "{end}");
    }
}

#[test]
fn a_race_needs_two_and_is_run_once_at_a_time() {
    let (mut races, now) = (Races::default(), Instant::now());
    assert!(!races.begin(&course(), host(1), 1, now), "nobody to race against");
    assert!(races.begin(&course(), host(1), 2, now));
    assert!(!races.begin(&course(), host(1), 2, now), "it runs");
    assert!(races.begin(&Course::of("video", Family::V6), host(1), 2, now), "another policy's");
    races.end(
        &course(),
        host(1),
        End { winner: Some((Slot::new(2).unwrap(), Duration::from_millis(20))), bytes: 300 },
    );
    assert!(races.begin(&course(), host(1), 2, now));
    races.end(&course(), host(1), LOST);
    let tally = races.tally(&course());
    assert_eq!((tally.run, tally.won, tally.left_out, tally.bytes), (2, 1, 0, 420));
    assert_eq!(tally.mean(), Some(Duration::from_millis(20)));
    races.retain(|_| false);
    assert_eq!(races.tally(&course()), Tally::default());
}

#[test]
fn a_course_is_known_by_its_name() {
    for family in Family::BOTH {
        let course = Course::of("video", family);
        assert_eq!((Course::named(&course.to_string()), course.family()), (Some(course.clone()), family));
    }
    for other in ["", "_4", "0123456789abcdef", "0123456789abcdef_5", "0123456789abcdeg_4", "stick_4"] {
        assert_eq!(Course::named(other), None, "{other}");
    }
}

proptest! {
    /// Whoever asks, however fast: neither too many at once, nor too many in any time.
    #[test]
    fn races_are_bounded(steps in prop::collection::vec((0u16..500, 0u64..200, any::<bool>()), 1..400)) {
        let (mut races, mut now) = (Races::default(), Instant::now());
        let (mut running, mut begun) = (Vec::new(), Vec::new());
        for (n, ms, ends) in steps {
            now += Duration::from_millis(ms);
            if ends && !running.is_empty() {
                races.end(&course(), running.remove(usize::from(n) % running.len()), LOST);
            }
            if races.begin(&course(), host(n), 3, now) {
                prop_assert!(!running.contains(&host(n)));
                running.push(host(n));
                begun.push(now);
            }
            prop_assert!(running.len() <= AT_ONCE);
        }
        for (first, from) in begun.iter().enumerate() {
            for (last, to) in begun.iter().enumerate().skip(first) {
                let most = u128::from(OF_ALL.1) + (*to - *from).as_millis() * u128::from(OF_ALL.0) / 1000;
                prop_assert!((last - first + 1) as u128 <= most);
            }
        }
    }

    #[test]
    fn any_bytes_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        if let Some(to) = called(&bytes) {
            prop_assert!(to.port() != 0);
        }
    }
}
