//! A DHCPv6 server that leases an address and delegates a prefix: the lab root's own `dhcp6s`, as hosts rarely have one.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use super::address::{delegated6, leased6};
use super::ns::Ns;
use super::process::Daemon;

/// Runs the server in the root, on which it writes without changing it.
const SCRIPT: &str = r#"
mount -t tmpfs lab "$2"
mkdir "$2/upper" "$2/work" "$2/root"
mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" lab "$2/root"
mount --rbind /dev "$2/root/dev"
mkdir -p "$2/root/run" "$2/root/var/lib/dhcpv6"
cp "$3" "$2/root/dhcp6s.conf"
exec chroot "$2/root" /usr/sbin/dhcp6s -f -D -c /dhcp6s.conf lan
"#;

/// A running server; it ends with the value.
#[derive(Debug)]
pub(super) struct Delegation {
    _server: Daemon,
}

impl Delegation {
    /// Serve on `lan` of the ISP's namespace. `dir` takes its configuration and its log.
    #[track_caller]
    pub(super) fn start(ns: &Ns, number: u8, dir: &Path, root: &Path) -> Delegation {
        let file = |what: &str| dir.join(format!("dhcp6s{number}.{what}"));
        let text = format!(
            "interface lan {{ allow rapid-commit; }};\n\
             host machine {{ duid 00:03:00:01:02:77:00:00:00:{number:02x}; prefix {} 3600; address {} 3600; }};\n",
            delegated6(number),
            leased6(number),
        );
        fs::write(file("conf"), text).expect("the lab's directory is ours");
        fs::create_dir(file("mnt")).expect("the lab's directory is ours");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-ec", SCRIPT, "sh"]).arg(root).args([file("mnt"), file("conf")]);
        let log = File::create(file("log")).expect("the lab's directory is ours");
        Delegation { _server: Daemon::start_logged(ns, &command, log) }
    }
}

/// What leads to the delegated prefix: by the address that the machine makes from its hardware address.
pub(super) fn route(number: u8) -> String {
    format!("route add {} via fe80::77:ff:fe00:{number:x} dev lan\n", delegated6(number))
}
