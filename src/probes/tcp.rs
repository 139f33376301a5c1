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

/// Octets of a reset, which has no options.
pub(super) const RESET: usize = 20;

/// Connects; returns the connection and the time that it took.
///
/// Dropping it resets the connection, so that neither side keeps it in its tables for a minute.
pub(super) async fn connect(
    ip: IpAddr,
    port: u16,
    way: &Way,
    meter: &Meter,
) -> Result<(TcpStream, Duration), Outcome> {
    let reached = reach(ip, port, way, meter, true).await?;
    // The acknowledgement, and the reset at the end.
    meter.sent(HEADER);
    meter.sent(HEADER);
    Ok(reached)
}

/// Has a connection accepted, and does not make it: returns the time that it took.
///
/// The kernel is told to hurry with no acknowledgement (`TCP_QUICKACK`, tcp(7)), and so what it sends next is the reset. The far
/// side never has a connection that a program would be told of, or would greet.
pub(super) async fn knock(ip: IpAddr, port: u16, way: &Way, meter: &Meter) -> Result<Duration, Outcome> {
    let (_, time) = reach(ip, port, way, meter, false).await?;
    meter.sent(RESET);
    Ok(time)
}

async fn reach(
    ip: IpAddr,
    port: u16,
    way: &Way,
    meter: &Meter,
    acknowledge: bool,
) -> Result<(TcpStream, Duration), Outcome> {
    let (socket, target) = towards(ip, port, way, Type::STREAM, Protocol::TCP)?;
    let prepared =
        socket.set_linger(Some(Duration::ZERO)).and_then(|()| socket.set_tcp_quickack(acknowledge));
    prepared.map_err(|error| failure(&error))?;
    let syn = meter.repeated(SYN, REPETITIONS);
    let connected = TcpSocket::from_std_stream(socket.into()).connect(target).await;
    let time = syn.elapsed();
    let stream = connected.map_err(|error| failure(&error))?;
    meter.received(SYN);
    Ok((stream, time))
}
