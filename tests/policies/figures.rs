//! What policies cost, for people to read: `make figures`.

use super::*;

/// New flows in each measurement.
const FLOWS: u16 = 10_000;
/// Measurements, of which the median counts.
const ROUNDS: usize = 9;
/// What is sent to; no way leads there but as far as the ISPs.
const HOST: &str = "203.0.113.77";

/// How long the first packet of a flow takes on its way through the router.
fn first_packet(net: &Net) -> Duration {
    let mut rounds: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            sh("conntrack -F");
            net.lan.run(|| {
                let socket = UdpSocket::bind(("10.1.0.9", 0)).unwrap();
                let start = Instant::now();
                for port in 1..=FLOWS {
                    socket.send_to(b"?", (HOST, port)).unwrap();
                }
                start.elapsed() / u32::from(FLOWS)
            })
        })
        .collect();
    rounds.sort_unstable();
    rounds[ROUNDS / 2]
}

/// A policy for so many prefixes, of which the last has the host.
fn prefixes(count: usize, more: &str) -> Config {
    let all = (0..count - 1).map(|n| format!("'{}.{}.{}.0/28', ", 11 + n / 65_536, n / 256 % 256, n % 256));
    configured(&format!(
        "[[policy]]\nname = 'list'\nmatch.to = [{}'{HOST}']\nuplinks = 'two'\n{more}",
        all.collect::<String>()
    ))
}

#[test]
#[ignore = "figures to read, and no test"]
fn what_prefixes_cost() {
    namespace::run("figures::what_prefixes_cost", &["nft", "conntrack"], || async {
        let net = router().await;
        for isp in &net.isps {
            isp.sh(&[&format!("ip route add blackhole {HOST}")]);
        }
        let none = first_packet(&net);
        println!("no policies: first packet {:.2} us", none.as_secs_f64() * 1e6);
        for count in [10, 1000, 100_000] {
            nft::drop_table("uplinkd_policy").await.unwrap();
            let mut times = Vec::new();
            for more in ["", "[[policy]]\nmatch.ports = 9\n", ""] {
                let start = Instant::now();
                let config = prefixes(count, more);
                let table = table(&config, |_| by(2));
                let written = start.elapsed();
                load(&table).await;
                times.push((written, start.elapsed() - written));
            }
            let first = first_packet(&net);
            let ms = |time: Duration| time.as_secs_f64() * 1e3;
            println!(
                "{count} prefixes: first packet {:.2} us, {:.2} times; written in {:.1} ms, loaded in {:.1} ms, \
                 with another policy in {:.1} and without it in {:.1} ms",
                first.as_secs_f64() * 1e6,
                first.as_secs_f64() / none.as_secs_f64(),
                ms(times[0].0),
                ms(times[0].1),
                ms(times[1].1),
                ms(times[2].1),
            );
        }
    });
}
