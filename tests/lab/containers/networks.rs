//! Networks of containers and virtual machines, with the rules that their makers write.
//!
//! Podman is run for real. Docker and libvirt are played: their bridge, and the rules that they document to write.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::kit::{Lab, Ns};

/// The port of the machine that leads to [`crate::kit::address::ECHO`] of the first container.
pub(super) const PUBLISHED: u16 = 8080;

/// A bridge with two inhabitants.
pub(super) struct Network {
    pub(super) bridge: &'static str,
    /// Where they live, and what others of the bridge call them.
    pub(super) inhabitants: [(Ns, Ipv4Addr); 2],
    /// Whether [`PUBLISHED`] leads to the first one.
    pub(super) publishes: bool,
    /// Whether it does so for the second one as well, by rules; Docker has a program for that.
    pub(super) hairpin: bool,
}

/// Podman with netavark, as Debian has them; the machine's file system has room for plain copies of an image only.
pub(super) fn podman(lab: &Lab) -> Network {
    let machine = &lab.machine;
    machine.write(
        "/etc/containers/storage.conf",
        "[storage]\ndriver = \"vfs\"\nrunroot = \"/run/containers/storage\"\ngraphroot = \"/var/lib/containers/storage\"\n",
    );
    machine.write(
        "/etc/containers/containers.conf",
        "[containers]\ncgroups = \"disabled\"\nlog_driver = \"k8s-file\"\n\n\
         [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n",
    );
    machine.sh("tar -C /usr/bin -c busybox | podman import - localhost/busybox").ok();
    let run = |name: &str, more: &str| {
        let sleep = "localhost/busybox /busybox sleep 100000";
        machine.sh(&format!("podman run -d --name {name} {more} {sleep}")).ok();
        let of =
            |what: &str| machine.cmd(&["podman", "inspect", name, "--format", what]).ok().trim().to_owned();
        let file =
            PathBuf::from(format!("/proc/{}/root{}", machine.init(), of("{{.NetworkSettings.SandboxKey}}")));
        let address = of("{{.NetworkSettings.IPAddress}}").parse().expect("a container has an address");
        (Ns::open(name, &file), address)
    };
    let inhabitants = [run("web", "-p 8080:7"), run("other", "")];
    println!(
        "{}",
        machine.sh("podman --version; podman info --format '{{.Host.NetworkBackendInfo.Version}}'").ok()
    );
    Network { bridge: "podman0", inhabitants, publishes: true, hairpin: true }
}

/// docker0 as Docker 26 makes it (Debian 13's `docker.io`), which writes its rules with iptables.
pub(super) fn docker(lab: &Lab) -> Network {
    let network = bridge(lab, "docker0", "172.17.0");
    lab.machine
        .sh("iptables -N DOCKER
         iptables -N DOCKER-ISOLATION-STAGE-1
         iptables -N DOCKER-ISOLATION-STAGE-2
         iptables -N DOCKER-USER
         iptables -A FORWARD -j DOCKER-USER
         iptables -A FORWARD -j DOCKER-ISOLATION-STAGE-1
         iptables -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
         iptables -A FORWARD -o docker0 -j DOCKER
         iptables -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
         iptables -A FORWARD -i docker0 -o docker0 -j ACCEPT
         iptables -A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 7 -j ACCEPT
         iptables -A DOCKER ! -i docker0 -o docker0 -j DROP
         iptables -A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
         iptables -A DOCKER-ISOLATION-STAGE-1 -j RETURN
         iptables -A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
         iptables -A DOCKER-ISOLATION-STAGE-2 -j RETURN
         iptables -A DOCKER-USER -j RETURN
         iptables -t nat -N DOCKER
         iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
         iptables -t nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
         iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
         iptables -t nat -A POSTROUTING -s 172.17.0.2/32 -d 172.17.0.2/32 -p tcp -m tcp --dport 7 -j MASQUERADE
         iptables -t nat -A DOCKER -i docker0 -j RETURN
         iptables -t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:7")
        .ok();
    Network { publishes: true, ..network }
}

/// docker0 as Docker 29 makes it where it is told to use nftables.
pub(super) fn docker_nft(lab: &Lab) -> Network {
    let network = bridge(lab, "docker0", "172.17.0");
    load(
        lab,
        r#"table ip docker-bridges {
            map filter-forward-in-jumps {
                type ifname : verdict
                elements = { "docker0" : jump filter-forward-in__docker0 }
            }
            map filter-forward-out-jumps {
                type ifname : verdict
                elements = { "docker0" : jump filter-forward-out__docker0 }
            }
            map nat-postrouting-out-jumps {
                type ifname : verdict
                elements = { "docker0" : jump nat-postrouting-out__docker0 }
            }
            chain filter-FORWARD {
                type filter hook forward priority filter; policy accept;
                oifname vmap @filter-forward-in-jumps
                iifname vmap @filter-forward-out-jumps
            }
            chain nat-OUTPUT {
                type nat hook output priority -100; policy accept;
                ip daddr != 127.0.0.0/8 fib daddr type local counter jump nat-prerouting-and-output
            }
            chain nat-POSTROUTING {
                type nat hook postrouting priority srcnat; policy accept;
                iifname vmap @nat-postrouting-out-jumps
            }
            chain nat-PREROUTING {
                type nat hook prerouting priority dstnat; policy accept;
                fib daddr type local counter jump nat-prerouting-and-output
            }
            chain nat-prerouting-and-output {
                iifname != "docker0" tcp dport 8080 counter dnat to 172.17.0.2:7 comment "DNAT"
            }
            chain raw-PREROUTING {
                type filter hook prerouting priority raw; policy accept;
                ip daddr 172.17.0.2 iifname != "docker0" counter drop comment "DROP DIRECT ACCESS"
            }
            chain filter-forward-in__docker0 {
                ct state established,related counter accept
                iifname "docker0" counter accept comment "ICC"
                ip daddr 172.17.0.2 tcp dport 7 counter accept
                counter drop comment "UNPUBLISHED PORT DROP"
            }
            chain filter-forward-out__docker0 {
                ct state established,related counter accept
                counter accept comment "OUTGOING"
            }
            chain nat-postrouting-out__docker0 {
                oifname != "docker0" ip saddr 172.17.0.0/16 counter masquerade comment "MASQUERADE"
            }
        }"#,
    );
    Network { publishes: true, ..network }
}

/// virbr0 as libvirt 11 makes it (Debian 13), with its nftables backend.
pub(super) fn libvirt(lab: &Lab) -> Network {
    let network = bridge(lab, "virbr0", "192.168.122");
    load(
        lab,
        "table ip libvirt_network {
            chain forward {
                type filter hook forward priority 0; policy accept;
                counter jump guest_cross
                counter jump guest_input
                counter jump guest_output
            }
            chain guest_output {
                ip saddr 192.168.122.0/24 iif virbr0 counter accept
                iif virbr0 counter reject
            }
            chain guest_input {
                oif virbr0 ip daddr 192.168.122.0/24 ct state related,established counter accept
                oif virbr0 counter reject
            }
            chain guest_cross { iif virbr0 oif virbr0 counter accept; }
            chain guest_nat {
                type nat hook postrouting priority 100; policy accept;
                ip saddr 192.168.122.0/24 ip daddr 224.0.0.0/24 counter return
                ip saddr 192.168.122.0/24 ip daddr 255.255.255.255/32 counter return
                meta l4proto tcp ip saddr 192.168.122.0/24 ip daddr != 192.168.122.0/24 counter masquerade to :1024-65535
                meta l4proto udp ip saddr 192.168.122.0/24 ip daddr != 192.168.122.0/24 counter masquerade to :1024-65535
                ip saddr 192.168.122.0/24 ip daddr != 192.168.122.0/24 counter masquerade
            }
            chain postroute_mangle { type filter hook postrouting priority 0; policy accept; }
        }",
    );
    network
}

/// Loads rules with the machine's own nft.
fn load(lab: &Lab, rules: &str) {
    lab.machine.write("/root/theirs.nft", rules);
    lab.machine.cmd(&["nft", "-f", "/root/theirs.nft"]).ok();
}

/// A bridge of the machine that leads out, `.1` of `prefix`, with two namespaces behind it, `.2` and `.3`.
fn bridge(lab: &Lab, bridge: &'static str, prefix: &str) -> Network {
    let netns = lab.machine.netns();
    netns.ip(&format!(
        "link add {bridge} type bridge forward_delay 0\naddr add {prefix}.1/24 dev {bridge}\nlink set {bridge} up"
    ));
    let inhabitants = [2, 3].map(|n| {
        let ns = Ns::new(&format!("{bridge} {n}"));
        let port = format!("vnet{n}");
        netns.ip(&format!(
            "link add {port} type veth peer name eth0 netns {}\nlink set {port} master {bridge} up",
            ns.path()
        ));
        ns.ip(&format!(
            "addr add {prefix}.{n}/24 dev eth0\nlink set eth0 up\nroute add default via {prefix}.1"
        ));
        (ns, format!("{prefix}.{n}").parse().expect("an address"))
    });
    Network { bridge, inhabitants, publishes: false, hairpin: false }
}
