//! The prefixes that systemd-networkd was delegated, from what it says of a link.
//!
//! Pure. Where the text comes from is for whoever asks networkd.

use ipnet::Ipv6Net;
use serde_json::Value;

/// The prefixes in the reply of `org.freedesktop.network1.Link.Describe` (or `Manager.DescribeLink`) for the link that
/// they were delegated over: `DHCPv6Client.Prefixes`, each with the bytes of `Prefix` and a `PrefixLength`.
///
/// As systemd 257 writes it; 252 has no `DHCPv6Client` there, and then nothing is known. What cannot be read is left out.
pub fn delegated(link: &Value) -> Vec<Ipv6Net> {
    let prefixes = link["DHCPv6Client"]["Prefixes"].as_array().map_or(&[][..], Vec::as_slice);
    prefixes.iter().filter_map(prefix).collect()
}

fn prefix(prefix: &Value) -> Option<Ipv6Net> {
    let byte = |byte: &Value| u8::try_from(byte.as_u64()?).ok();
    let bytes = prefix["Prefix"].as_array()?.iter().map(byte).collect::<Option<Vec<u8>>>()?;
    let length = u8::try_from(prefix["PrefixLength"].as_u64()?).ok()?;
    let net = Ipv6Net::new(<[u8; 16]>::try_from(bytes).ok()?.into(), length).ok()?;
    Some(net.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What systemd 257.13 said of a link with a lease of wide-dhcpv6-server 20080615, less what nobody here reads.
    const DESCRIBED: &str = r#"{"Index":2,"Name":"eth1","DHCPv6Client":{"Lease":{"Timeout1USec":16500744389,
        "Timeout2USec":17580744389,"LeaseTimestampUSec":14700744389},"Prefixes":[{"Prefix":
        [32,1,13,184,0,1,10,0,0,0,0,0,0,0,0,0],"PrefixLength":56,"PreferredLifetimeUSec":18300744389,
        "ValidLifetimeUSec":18300744389}],"DUID":[0,3,0,1,2,119,0,0,0,1]}}"#;

    #[test]
    fn what_is_delegated_over_a_link() {
        let link = serde_json::from_str(DESCRIBED).unwrap();
        assert_eq!(delegated(&link), ["2001:db8:1:a00::/56".parse().unwrap()]);
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        for text in [
            "null",
            "{}",
            r#"{"DHCPv6Client":{"DUID":[0,3]}}"#,
            r#"{"DHCPv6Client":{"Prefixes":[{"Prefix":[32,1],"PrefixLength":56},{"Prefix":"x"},7]}}"#,
            r#"{"DHCPv6Client":{"Prefixes":[{"Prefix":[32,1,0,0,0,0,0,0,0,0,0,0,0,0,0,0],"PrefixLength":129}]}}"#,
            r#"{"DHCPv6Client":{"Prefixes":[{"Prefix":[256,1,0,0,0,0,0,0,0,0,0,0,0,0,0,0],"PrefixLength":56}]}}"#,
        ] {
            assert_eq!(delegated(&serde_json::from_str(text).unwrap()), [], "{text}");
        }
    }
}
