//! How a probe is written.
//!
//! Decides what is accepted, and says of the rest what is wrong with it and what would be right.

use std::net::IpAddr;
use std::str::FromStr;

use super::{Expect, Host, Probe, Url};
use crate::core::text::{disturbs, harmless};

/// The longest text that is looked at, in bytes; nothing sensible comes near it.
const LONGEST: usize = 1000;

/// What can be written, for error messages.
const FORMS: &str = "icmp:HOST, tcp:HOST:PORT, dns:ADDRESS[/NAME], http://HOST[:PORT]/PATH [status=N] [body=TEXT], \
                     https://…, arp, command:/PATH [ARGUMENT…]";

/// What is wrong with the text of a probe, and what is allowed. Harmless for a terminal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

fn wrong<T>(text: &str, why: &str) -> Result<T, Invalid> {
    Err(Invalid(format!("{:?}: {why}", harmless(text))))
}

impl FromStr for Probe {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let text = text.trim();
        if text.len() > LONGEST {
            return wrong(text, &format!("longer than {LONGEST} bytes"));
        }
        if text.chars().any(disturbs) {
            return wrong(text, "has control characters");
        }
        if text == "arp" {
            return Ok(Probe::Gateway);
        }
        match text.split_once(':') {
            Some(("icmp", host)) => host_or_brackets(host).map(Probe::Icmp),
            Some(("tcp", rest)) => tcp(rest),
            Some(("dns", rest)) => dns(rest),
            Some(("http", rest)) => http(false, rest),
            Some(("https", rest)) => http(true, rest),
            Some(("command", rest)) => command(rest),
            _ => wrong(text, &format!("not a probe; allowed: {FORMS}")),
        }
    }
}

fn tcp(rest: &str) -> Result<Probe, Invalid> {
    match host_and_port(rest)? {
        (host, Some(port)) => Ok(Probe::Tcp(host, port)),
        (_, None) => wrong(rest, "no port; allowed: tcp:HOST:PORT, IPv6 as tcp:[ADDRESS]:PORT"),
    }
}

fn dns(rest: &str) -> Result<Probe, Invalid> {
    let (server, name) = rest.split_once('/').unwrap_or((rest, "."));
    let Host::Ip(server) = host_or_brackets(server)? else {
        return wrong(server, "not an IP address; allowed: dns:ADDRESS[/NAME]");
    };
    let name = if name == "." { name } else { host_name(name.strip_suffix('.').unwrap_or(name))? };
    Ok(Probe::Dns { server, name: name.to_owned() })
}

fn http(secure: bool, rest: &str) -> Result<Probe, Invalid> {
    let (url, words) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let Some(url) = url.strip_prefix("//") else {
        return wrong(url, "no // after the colon; allowed: http://HOST[:PORT]/PATH");
    };
    let (authority, path) = url.split_at(url.find('/').unwrap_or(url.len()));
    let (host, port) = host_and_port(authority)?;
    if !path.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return wrong(path, "a path has neither # nor letters beyond ASCII; write them as %XX");
    }
    let path = if path.is_empty() { "/" } else { path };
    let port = port.unwrap_or(Url::usual_port(secure));
    Ok(Probe::Http { url: Url { secure, host, port, path: path.to_owned() }, expect: expectation(words)? })
}

/// `status=N`, then `body=TEXT` up to the end.
fn expectation(words: &str) -> Result<Expect, Invalid> {
    let mut expect = Expect::default();
    let mut words = words.trim();
    if let Some(rest) = words.strip_prefix("status=") {
        let (status, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        expect.status = number(status).filter(|status| (100..=599).contains(status));
        if expect.status.is_none() {
            return wrong(status, "not a status; allowed: 100 to 599");
        }
        words = rest.trim();
    }
    if let Some(body) = words.strip_prefix("body=") {
        if body.split_whitespace().any(|word| word.starts_with("status=")) {
            return wrong(words, "body= reaches to the end of the text: write status= ahead of it");
        }
        if body.trim().is_empty() {
            return wrong(words, "no text after body=");
        }
        expect.body = Some(body.trim().to_owned());
    } else if !words.is_empty() {
        return wrong(words, "allowed after the address: status=N, then body=TEXT");
    }
    Ok(expect)
}

fn command(rest: &str) -> Result<Probe, Invalid> {
    let mut words = rest.split_whitespace().map(str::to_owned);
    match words.next() {
        Some(program) if program.starts_with('/') && !program.ends_with('/') => {
            Ok(Probe::Command { program, args: words.collect() })
        }
        _ => wrong(rest, "not an absolute path of a program; allowed: command:/PATH [ARGUMENT…]"),
    }
}

/// A host that may be followed by a port, and IPv6 therefore in brackets.
fn host_and_port(text: &str) -> Result<(Host, Option<u16>), Invalid> {
    let end = match text.starts_with('[') {
        true => text.find(']').map_or(text.len(), |at| at + 1),
        false => text.find(':').unwrap_or(text.len()),
    };
    let (host, port) = text.split_at(end);
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return wrong(text, "an IPv6 address stands in brackets here, as [2001:db8::1]");
    }
    let host = host_or_brackets(host)?;
    match port.strip_prefix(':').map(number) {
        None if port.is_empty() => Ok((host, None)),
        Some(Some(port)) if port != 0 => Ok((host, Some(port))),
        _ => wrong(port.trim_start_matches(':'), "not a port; allowed: 1 to 65535"),
    }
}

/// Digits alone: `parse` would let a plus sign through.
fn number(text: &str) -> Option<u16> {
    text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}

fn host_or_brackets(text: &str) -> Result<Host, Invalid> {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match inner.unwrap_or(text).parse::<IpAddr>() {
        Ok(ip) if inner.is_none() || ip.is_ipv6() => address(ip),
        _ => host_name(text.strip_suffix('.').unwrap_or(text)).map(|name| Host::Name(name.to_owned())),
    }
}

/// Refuses what no uplink leads to, so that it is said where it is written and not by a probe that never answers.
fn address(ip: IpAddr) -> Result<Host, Invalid> {
    let why = match ip {
        _ if ip.is_loopback() || ip.is_unspecified() => "this machine itself, which no uplink leads to",
        _ if ip.is_multicast() => "a multicast address; allowed: the address of one host",
        IpAddr::V4(ip) if ip.is_broadcast() => "the broadcast address; allowed: the address of one host",
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => "an IPv4 address in IPv6 form; write it as IPv4",
        _ => return Ok(Host::Ip(ip)),
    };
    wrong(&ip.to_string(), why)
}

fn host_name(text: &str) -> Result<&str, Invalid> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    // A name whose last label is a number is a mistyped address: no top-level domain is one (RFC 3696, section 2).
    let numeric = last.bytes().all(|b| b.is_ascii_digit());
    match text.len() <= 253 && text.split('.').all(label) && !numeric {
        true => Ok(text),
        false => wrong(text, "neither an IP address nor a host name"),
    }
}
