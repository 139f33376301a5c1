//! While the table is replaced, everything goes where it is to go.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::*;

/// What is sent to; no way leads there but as far as the ISPs.
const HOST: &str = "203.0.113.77";
/// How often the table is replaced.
const TIMES: usize = 200;

/// Sends the first packets of flows from the LAN while tables are replaced; returns how many, and how many strayed.
async fn flood(net: &Net, tables: &[PolicyTable]) -> (u32, u32) {
    let end = Arc::new(AtomicBool::new(false));
    let ended = end.clone();
    let flood = net.lan.run(move || {
        std::thread::spawn(move || {
            let mut sent = 0;
            while !ended.load(Ordering::Relaxed) {
                let socket = UdpSocket::bind(("10.1.0.9", 0)).unwrap();
                for port in 1..=1000 {
                    sent += u32::from(socket.send_to(b"?", (HOST, port)).is_ok());
                }
            }
            sent
        })
    });
    for turn in 0..TIMES {
        load(&tables[turn % tables.len()]).await;
    }
    end.store(true, Ordering::Relaxed);
    let sent = flood.join().unwrap();
    let text = sh("nft list counter inet stray strayed");
    let strayed = text.split_whitespace().skip_while(|word| *word != "packets").nth(1).unwrap();
    (sent, strayed.parse().unwrap())
}

#[test]
fn nothing_strays_while_the_table_is_replaced() {
    namespace::run("replaced::nothing_strays_while_the_table_is_replaced", &["nft"], || async {
        let net = router().await;
        for isp in &net.isps {
            isp.sh(&[&format!("ip route add blackhole {HOST}")]);
        }
        sh("sysctl -qw net.netfilter.nf_conntrack_max=4000000 net.netfilter.nf_conntrack_udp_timeout=1");
        let config = configured("[[policy]]\nmatch.protocol = 'udp'\n[[policy]]\nmatch.ports = 9\n");
        let shares = |n: u8| Verdict::Take(vec![(slot(2), 1), (slot(2), n.into())]);
        // The shares of one change, and the uplink of the other.
        let tables = [1, 2].map(|n| table(&config, |place| if place == 0 { shares(n) } else { by(n) }));
        load(&tables[0]).await;
        foreign(
            "table inet stray { counter strayed { }; chain out { type filter hook postrouting priority 0; oifname \"wan1\" ip daddr 203.0.113.77 counter name strayed; }; }",
        );
        let (sent, strayed) = flood(&net, &tables).await;
        println!("{TIMES} tables, {sent} flows: {strayed} strayed");
        assert!(strayed == 0 && sent > 1000);
    });
}
