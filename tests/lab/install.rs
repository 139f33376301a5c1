//! Installing on a running machine, and taking it away again.

use std::net::SocketAddr;
use std::time::Duration;

use crate::ctl::{Ctl, installed, on, ours, package, set};
use crate::kit::address::{BULK, ECHO, echoes4, internet4};
use crate::kit::{
    HeldTcp, IspSpec, Lab, Server, Service, Spec, TcpDownload, UdpFlow, Via, connect_many, lab_or_skip, poll,
};

#[test]
fn two_uplinks_are_found_and_shown() {
    let lab = lab_or_skip!(installed(Spec::router()));
    let status = lab.machine.wait_active(2);
    println!("{}", lab.machine.cmd(&["uplinkctl"]).ok());
    println!("{}", ours(&lab.machine));
    println!("{}", lab.machine.journal("uplinkd"));
    for isp in [1, 2] {
        let uplink = on(&status, &lab.isp(isp).device());
        assert_eq!(uplink["ipv4"]["state"], "up");
        assert_eq!(uplink["ipv4"]["gateway"], lab.isp(isp).gateway().to_string());
    }
    let shares = connect_many(&lab.client().ns, &Via::any(), 100, &echoes4());
    println!("{shares:?}");
    assert_eq!(shares.isps(), [1, 2]);
}

#[test]
fn installing_breaks_no_running_connection() {
    let lab = lab_or_skip!(Spec::router());
    // A router that already does what routers do, with a set-up of its administrator's own.
    lab.machine.write(
        "/root/nat.nft",
        "table ip nat { chain post { type nat hook postrouting priority srcnat; oifname { \"eth1\", \"eth2\" } masquerade; }; }\n",
    );
    lab.machine.cmd(&["nft", "-f", "/root/nat.nft"]).ok();
    let client = &lab.client().ns;
    let download =
        TcpDownload::start(client, &Via::any(), SocketAddr::from((internet4(1), BULK))).expect("starts");
    let mut from_lan =
        HeldTcp::connect(client, &Via::any(), SocketAddr::from((internet4(2), ECHO))).expect("connects");
    let calls: Vec<UdpFlow> = (3..=12)
        .map(|n| {
            UdpFlow::start(
                client,
                &Via::any(),
                SocketAddr::from((internet4(n), ECHO)),
                Duration::from_millis(10),
            )
        })
        .collect();
    let _shell = Server::start(lab.machine.netns(), ECHO, Service::Echo);
    let to_router = SocketAddr::from((lab.isp(1).public(), ECHO));
    let to_router = lab.internet.connect(to_router, Duration::from_secs(3)).and_then(HeldTcp::over);
    let mut to_router = to_router.expect("a visitor is let in");
    let first = SocketAddr::from((internet4(13), ECHO));
    let mut from_router = HeldTcp::connect(lab.machine.netns(), &Via::any(), first).expect("connects");

    lab.machine.install_deb(&package());
    lab.machine.wait_active(2);
    set(&lab, 2, "weight=200");
    std::thread::sleep(Duration::from_secs(1));

    for (who, held) in [("client", &mut from_lan), ("visitor", &mut to_router), ("router", &mut from_router)]
    {
        held.ping(Duration::from_secs(2)).unwrap_or_else(|error| panic!("{who}: {error}"));
    }
    let report = download.stop();
    println!("download: {} bytes, longest stall {:?}", report.bytes, report.longest_stall);
    assert_eq!(report.broke, None);
    assert!(report.longest_stall < Duration::from_millis(500), "{report:?}");
    for report in calls.into_iter().map(UdpFlow::stop) {
        assert_eq!((report.lost(), report.seen().len()), (0, 1), "{}", report.summary());
    }
    // What begins now is shared out all the same.
    let shares = connect_many(client, &Via::any(), 100, &echoes4());
    assert!(shares.of(2) > 80, "{shares:?}");
}

/// Settings that we may write; they come back on removal only.
fn without_our_sysctls(snapshot: &str) -> String {
    let ours = ["ignore_routes_with_linkdown", "fib_multipath_hash_policy", "rp_filter"];
    let lines = snapshot.lines().filter(|line| !ours.iter().any(|name| line.contains(name)));
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn what_is_foreign_is_the_same_before_during_and_after() {
    let lab = lab_or_skip!(Spec::router().ipv6().isps([
        IspSpec::new(1).ipv6(),
        IspSpec::new(2).ipv6(),
        IspSpec::new(3)
    ]));
    let machine = &lab.machine;
    machine
        .sh("ip rule add pref 100 fwmark 0x5 lookup 100; ip rule add pref 7100 to 198.18.0.0/15 lookup 100
         ip -6 rule add pref 90 from 2001:db8:99::/48 lookup 100
         ip route add 198.18.0.0/15 via 192.168.1.254 dev eth1 table 100 proto static
         ip route add 198.19.0.0/24 via 192.168.2.254 dev eth2 metric 7 proto bgp
         ip route add unreachable 198.18.7.0/24 metric 99
         sysctl -qw net.ipv4.conf.eth1.rp_filter=1
         nft add table inet firewall
         nft add chain inet firewall in '{ type filter hook input priority 0; policy accept; }'
         nft add rule inet firewall in tcp dport 9999 drop
         nft add table ip nat
         nft add chain ip nat post '{ type nat hook postrouting priority 100; }'
         nft add rule ip nat post oifname eth1 masquerade")
        .ok();
    let before = machine.foreign_snapshot();
    machine.install_deb(&package());
    machine.wait_active(3);
    println!("{}", machine.cmd(&["uplinkctl"]).ok());
    assert_eq!(machine.netns().sysctl_read("net.ipv4.conf.eth1.rp_filter"), "2");
    assert_eq!(without_our_sysctls(&machine.foreign_snapshot()), without_our_sysctls(&before));

    // An hour of a bad day: weights, carriers, restarts, flushes of our table, and the package itself.
    for round in 0..12 {
        let isp = round % 3 + 1;
        lab.isp(isp).carrier(false);
        machine.wait_active(2);
        set(&lab, isp % 3 + 1, &format!("weight={}", round + 1));
        machine.cmd(&["nft", "delete", "table", "inet", "uplinkd"]).ok();
        lab.isp(isp).carrier(true);
        if round % 4 == 0 {
            machine.cmd(&["systemctl", "kill", "-s", "KILL", "uplinkd"]).ok();
        }
        machine.wait_active(3);
    }
    settled(&lab, &without_our_sysctls(&before), without_our_sysctls);
    machine.sh("apt-get -q -y remove uplinkd").ok();
    assert_eq!(ours(machine), "");
    assert_eq!(machine.sh("ls -d /run/uplinkd*").stdout, "");
    settled(&lab, &before, str::to_owned);
    // What the machine forwards without us is forwarded as before.
    let shares = connect_many(&lab.client().ns, &Via::any(), 20, &echoes4());
    assert_eq!(shares.of(1), 20, "{shares:?}");
}

/// Waits for the managers to have put their own back after the last disturbance.
#[track_caller]
fn settled(lab: &Lab, wanted: &str, of: impl Fn(&str) -> String) {
    let same =
        poll(Duration::from_secs(10), || (of(&lab.machine.foreign_snapshot()) == wanted).then_some(()));
    if same.is_none() {
        assert_eq!(of(&lab.machine.foreign_snapshot()), wanted);
    }
}

/// Not a test but a tool: boots a router with the package and runs the script in `LAB_SCRIPT` on it.
#[test]
#[ignore = "runs LAB_SCRIPT, for a look by hand"]
fn script() {
    let lab = lab_or_skip!(installed(Spec::router()));
    if std::env::var_os("LAB_NOW").is_none() {
        lab.machine.wait_active(2);
    }
    let script = std::env::var("LAB_SCRIPT").unwrap_or_else(|_| "uplinkctl".to_owned());
    let output = lab.machine.cmd(&["sh", "-c", &script]);
    println!("{}\n{}", output.stdout, output.stderr);
}
