//! A DNS that knows every name but those of [`NOWHERE`]. Unlike dnsmasq it refuses nothing, as the resolvers that it plays
//! refuse nothing. And one who asks.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use super::address::{DOMAIN, PORTAL_CHECKS, internet4, internet6, web4, web6};
use super::ns::Ns;
use super::socket::Via;

const HEADER: usize = 12;
/// An answer to a question for us: authoritative, recursion desired and available, no error.
const NO_ERROR: [u8; 2] = [0x85, 0x80];
/// The same for a name that does not exist.
const NO_SUCH_NAME: [u8; 2] = [0x85, 0x83];
/// The domain in which there are no names.
pub const NOWHERE: &str = "nowhere.example";
/// A pointer to the name in the question.
const SAME_NAME: [u8; 2] = [0xc0, HEADER as u8];
const IN: [u8; 2] = [0, 1];

/// What the query in a datagram is answered, if it is one: its addresses for A and AAAA, for all else no error and nothing.
pub(super) fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let id = query.get(..2)?;
    let (name, end) = question_name(query)?;
    let question = query.get(HEADER..end + 4)?;
    let kind: [u8; 2] = query.get(end..end + 2)?.try_into().ok()?;
    let exists = !name.ends_with(NOWHERE);
    let data = data(&name, u16::from_be_bytes(kind)).filter(|_| exists);
    let mut answer = id.to_vec();
    answer.extend(if exists { NO_ERROR } else { NO_SUCH_NAME });
    answer.extend([0, 1, 0, u8::from(data.is_some()), 0, 0, 0, 0]);
    answer.extend(question);
    if let Some(data) = data {
        answer.extend(SAME_NAME);
        answer.extend(kind);
        answer.extend(IN);
        answer.extend([0, 0, 0, 0]);
        answer.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
        answer.extend(data);
    }
    Some(answer)
}

/// Ask a resolver for the IPv4 address of a name, once, and listen to ICMP as glibc does (resolv/res_enable_icmp.c); returns
/// how long the answer took.
pub fn ask(ns: &Ns, resolver: IpAddr, name: &str, limit: Duration) -> io::Result<Duration> {
    let to = SocketAddr::from((resolver, DOMAIN));
    ns.run(|| {
        let start = Instant::now();
        let socket = Via::any().udp(to)?;
        match to {
            SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?,
            SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?,
        }
        socket.connect(to)?;
        socket.set_read_timeout(Some(limit))?;
        socket.send(&query(name))?;
        let mut buffer = [0; 512];
        socket.recv(&mut buffer)?;
        Ok(start.elapsed())
    })
}

/// A question for IPv4 addresses, recursion desired.
fn query(name: &str) -> Vec<u8> {
    let mut query = vec![0x17, 0x07, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).expect("a label is short"));
        query.extend(label.bytes());
    }
    query.extend([0, 0, 1]);
    query.extend(IN);
    query
}

/// The name in the first question, without the last dot, and where it ends.
fn question_name(query: &[u8]) -> Option<(String, usize)> {
    let mut at = HEADER;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_lowercase());
        at += length;
    }
}

fn data(name: &str, kind: u16) -> Option<Vec<u8>> {
    let checked = PORTAL_CHECKS.contains(&name);
    match kind {
        1 => Some(if checked { web4() } else { internet4(1) }.octets().to_vec()),
        2 if name.is_empty() => Some(b"\x01a\x0croot-servers\x03net\0".to_vec()),
        28 => Some(if checked { web6() } else { internet6(1) }.octets().to_vec()),
        _ => None,
    }
}

/// Answer the queries of one connection, each with its length before it.
pub(super) fn serve(stream: &mut TcpStream) -> io::Result<()> {
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut query = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut query)?;
        let answer = answer(&query).unwrap_or_default();
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes(), answer.as_slice()].concat())?;
    }
}
