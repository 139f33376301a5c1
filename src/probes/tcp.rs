//! A connection: whether a port accepts one, and in which time.

use std::net::IpAddr;
use std::time::Duration;

use socket2::{Protocol, Type};
use tokio::net::{TcpSocket, TcpStream};

use super::meter::Meter;
use super::socket::{failure, towards};
use super::{Outcome, Way};

/// Octets of a TCP header: in the first packet with its usual options, in the others with timestamps (RFC 7323).
pub(super) const SYN: usize = 40;
pub(super) const HEADER: usize = 32;

/// How often Linux sends the first packet again, a second apart at first (`tcp_syn_retries`, ip-sysctl).
const REPETITIONS: u64 = 6;

/// Connects; returns the connection and the time that it took.
///
/// Dropping it resets the connection, so that neither side keeps it in its tables for a minute.
pub(super) async fn connect(
    ip: IpAddr,
    port: u16,
    way: &Way,
    meter: &Meter,
) -> Result<(TcpStream, Duration), Outcome> {
    let (socket, target) = towards(ip, port, way, Type::STREAM, Protocol::TCP)?;
    socket.set_linger(Some(Duration::ZERO)).map_err(|error| failure(&error))?;
    let syn = meter.repeated(SYN, REPETITIONS);
    let connected = TcpSocket::from_std_stream(socket.into()).connect(target).await;
    let time = syn.elapsed();
    let stream = connected.map_err(|error| failure(&error))?;
    meter.received(SYN);
    // The acknowledgement, and the reset at the end.
    meter.sent(HEADER);
    meter.sent(HEADER);
    Ok((stream, time))
}
