//! Uplinks that carry less than Ethernet: the part of our table that tells both ends of a TCP connection.
//!
//! Says how it is done. Which uplinks are narrow is decided in [`crate::core::plan`].

use std::fmt::Write;

use crate::core::net::IfName;

/// Lowers the segment size that both ends of a TCP connection announce (RFC 6691: the MTU less 40 bytes, 60 in IPv6).
///
/// By numbers and not by `rt mtu`: of a SYN that comes in, the kernel would ask an unmarked route back, which may be
/// another uplink's. It never raises a size (`nft_exthdr_tcp_set_eval`). Every packet that is no SYN meets one rule.
pub(super) fn clamp(narrow: &[(IfName, u32)]) -> String {
    let mut text = String::new();
    let mut mtus: Vec<u32> = narrow.iter().map(|(_, mtu)| *mtu).collect();
    mtus.sort_unstable();
    mtus.dedup();
    for mtu in mtus {
        let size = |headers| mtu.saturating_sub(headers);
        let _ = write!(
            text,
            "\tchain mtu_{mtu} {{\n\
             \t\tmeta nfproto ipv4 tcp option maxseg size set {}\n\
             \t\tmeta nfproto ipv6 tcp option maxseg size set {}\n\
             \t}}\n",
            size(40),
            size(60),
        );
    }
    let jumps: Vec<_> = narrow.iter().map(|(name, mtu)| format!("\"{name}\" : jump mtu_{mtu}")).collect();
    let jumps = jumps.join(", ");
    let _ = write!(
        text,
        "\tchain clamp {{\n\
         \t\tiifname vmap {{ {jumps} }}\n\
         \t\toifname vmap {{ {jumps} }}\n\
         \t}}\n\
         \tchain begins {{\n\
         \t\ttype filter hook forward priority mangle; policy accept;\n\
         \t\ttcp flags & (syn | rst) == syn goto clamp\n\
         \t}}\n"
    );
    text
}
