//! One DNS query over UDP (RFC 1035).
//!
//! Decides which datagram is the answer to it: the one of the server that was asked, with the query's number and its
//! question. Whatever else comes is somebody's guess, and is not even a reason to stop waiting.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use nix::sys::socket::{MsgFlags, recv};
use socket2::{Protocol, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::Instant;

use super::meter::Meter;
use super::socket::{failure, random, towards};
use super::{Outcome, Way, failed};
use crate::core::net::Family;

const PORT: u16 = 53;
const UDP_HEADER: usize = 8;
/// The longest answer that is read; without EDNS none may exceed 512 bytes.
const LONGEST: usize = 4096;

/// Asks a server for a name. That it does not exist is as good an answer as any.
pub(super) async fn ask(server: IpAddr, name: &str, way: &Way, meter: &Meter) -> Result<Duration, Outcome> {
    let kind = if name == "." { RecordType::NS } else { address_type(way.family) };
    let (answer, time) = query(server, name, kind, way, meter).await?;
    match answer.response_code() {
        ResponseCode::NoError | ResponseCode::NXDomain => Ok(time),
        ResponseCode::ServFail => Err(failed("server failure")),
        ResponseCode::Refused => Err(failed("the server refused to answer")),
        other => Err(failed(format!("the server answered {other}"))),
    }
}

/// The type of record that holds an address of a family.
pub(super) fn address_type(family: Family) -> RecordType {
    if family == Family::V4 { RecordType::A } else { RecordType::AAAA }
}

/// Sends one query and waits for its answer, whatever that says.
pub(super) async fn query(
    server: IpAddr,
    name: &str,
    kind: RecordType,
    way: &Way,
    meter: &Meter,
) -> Result<(Message, Duration), Outcome> {
    let mut name = Name::from_ascii(name).map_err(failed)?;
    name.set_fqdn(true);
    let mut question = Message::new();
    question
        .set_id(u16::from_ne_bytes(random()?))
        .set_recursion_desired(true)
        .add_query(Query::query(name, kind));
    let bytes = question.to_vec().map_err(failed)?;
    let (socket, target) = towards(server, PORT, way, Type::DGRAM, Protocol::UDP)?;
    let talk = async {
        let socket = UdpSocket::from_std(socket.into())?;
        // Connecting chooses a random port, and lets nothing in from elsewhere.
        socket.connect(target).await?;
        let since = Instant::now();
        socket.send(&bytes).await?;
        meter.sent(UDP_HEADER + bytes.len());
        let answer = answer(&socket, &question, meter).await?;
        Ok((answer, since.elapsed()))
    };
    talk.await.map_err(|error: io::Error| failure(&error))
}

async fn answer(socket: &UdpSocket, question: &Message, meter: &Meter) -> io::Result<Message> {
    // An error alone, as that nobody listens there, does not make a socket readable for tokio.
    let (interest, fd) = (Interest::READABLE | Interest::ERROR, socket.as_raw_fd());
    let mut datagram = [0; LONGEST];
    loop {
        let length =
            socket.async_io(interest, || Ok(recv(fd, &mut datagram, MsgFlags::MSG_DONTWAIT)?)).await?;
        meter.received(UDP_HEADER + length);
        match Message::from_vec(&datagram[..length]) {
            Ok(answer) if answers(&answer, question) => return Ok(answer),
            _ => {}
        }
    }
}

fn answers(answer: &Message, question: &Message) -> bool {
    answer.id() == question.id()
        && answer.message_type() == MessageType::Response
        && answer.op_code() == OpCode::Query
        && answer.queries() == question.queries()
}
