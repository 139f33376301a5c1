//! Names: what is noted of them leads, and stays.

use uplinkd::core::net::Family;
use uplinkd::core::policy::Names;
use uplinkd::kernel::element;

use super::*;

#[test]
fn noted_addresses_lead_for_as_long_as_they_are_known() {
    namespace::run("noted_addresses_lead_for_as_long_as_they_are_known", &["nft"], || async {
        let net = router().await;
        let text = |domains: &str, more: &str| {
            configured(&format!(
                "{more}[[policy]]\nname = 'video'\nmatch = {{ domain = {domains}, ports = 7 }}\n\
                 [[policy]]\nname = 'later'\nmatch = {{ domain = 'later.example' }}\n"
            ))
        };
        let lead = |place| by(if place == 0 { 2 } else { 1 });
        let config = text("'video.example'", "");
        load(&table(&config, lead)).await;
        let (v4, v6) = {
            let names = Names::of("video");
            (names.set(Family::V4), names.set(Family::V6))
        };
        let to2 = |probe: Probe| Probe {
            to: if probe.to.contains(':') { "2001:db8:9::2" } else { "203.0.113.2" },
            ..probe
        };
        let lead_by = |uplink: u8, what: &str| {
            for probe in [LAN, LAN6, OWN, OWN6] {
                assert_eq!(probe.goes_by(&net), Some(uplink), "{what}: {probe:?}");
                assert_eq!(to2(probe).goes_by(&net), Some(1), "{what}: another host: {probe:?}");
                assert_eq!(Probe { port: 8, ..probe }.goes_by(&net), Some(1), "{what}: another port");
            }
        };
        lead_by(1, "nothing is known");
        let long = Duration::from_secs(300);
        for _twice in 0..2 {
            element::note(&v4, &[("203.0.113.1".parse().unwrap(), long)]).await.unwrap();
            element::note(&v6, &[("2001:db8:9::1".parse().unwrap(), long)]).await.unwrap();
        }
        assert_eq!((element::count(&v4).await.unwrap(), element::count(&v6).await.unwrap()), (1, 1));
        lead_by(2, "known");
        // Noted again, it is known for longer, or for less long.
        element::note(&v4, &[("203.0.113.2".parse().unwrap(), long)]).await.unwrap();
        element::note(&v4, &[("203.0.113.2".parse().unwrap(), Duration::from_millis(300))]).await.unwrap();
        let start = Instant::now();
        while element::count(&v4).await.unwrap() > 1 {
            assert!(start.elapsed() < Duration::from_secs(20), "{}", sh("nft list ruleset"));
            std::thread::sleep(Duration::from_millis(50));
        }
        // One that is known and one that is not, in one answer, in either order.
        let soon = Duration::from_millis(300);
        let [first, second, third] =
            ["203.0.113.1", "203.0.113.2", "203.0.113.3"].map(|ip| ip.parse().unwrap());
        element::note(&v4, &[(first, long), (second, soon)]).await.unwrap();
        element::note(&v4, &[(second, soon), (third, soon)]).await.unwrap();
        assert_eq!(element::count(&v4).await.unwrap(), 3);
        let start = Instant::now();
        while element::count(&v4).await.unwrap() > 1 {
            assert!(start.elapsed() < Duration::from_secs(20), "{}", sh("nft list ruleset"));
            std::thread::sleep(Duration::from_millis(50));
        }
        // By another program, as dnsmasq does it.
        sh(&format!("nft add element inet uplinkd_policy {v4} {{ 203.0.113.2 }}"));
        assert_eq!(to2(LAN).goes_by(&net), Some(2));
        sh(&format!("nft delete element inet uplinkd_policy {v4} {{ 203.0.113.2 }}"));
        load(&table(&text("'video.example'", "[[policy]]\nmatch.ports = 9\nuplinks = 'two'\n"), |place| {
            by(if place == 1 { 2 } else { 1 })
        }))
        .await;
        lead_by(2, "over a reload, in another place");
        load(&table(&text("['video.example', 'other.example']", ""), lead)).await;
        lead_by(1, "with other names nothing is known");
        element::note("names_none", &[("203.0.113.1".parse().unwrap(), long)]).await.unwrap_err();
        assert_eq!(element::count("names_none").await.unwrap(), 0);
    });
}
