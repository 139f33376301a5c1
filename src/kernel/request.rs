//! A netlink socket for requests that no crate sends for us: framing, acknowledgements and time limits.
//!
//! Knows no nftables, no conntrack and no sockets of others, and hears no events: where events share
//! a socket with requests, a full buffer loses answers.

use std::io;
use std::time::Duration;

use netlink_packet_core::{
    ErrorBuffer, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REQUEST,
    NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable, NlaBuffer,
};
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use nix::errno::Errno;
use tokio::time::timeout;

/// How long an answer may take; the kernel answers within the system call, so this is for a lost one.
const PATIENCE: Duration = Duration::from_secs(1);

/// The most that the kernel puts into one datagram of a dump (`netlink_recvmsg`, net/netlink/af_netlink.c).
const DATAGRAM: usize = 32 * 1024;

/// How many changes go out at once: so few that a refusal of each fits into the usual receive buffer
/// (208 KiB, of which the kernel takes about 1 KiB a message).
const BATCH: usize = 64;

// linux/netlink.h
pub(in crate::kernel) const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// A socket that asks and is answered; made for one job and dropped after it.
pub(in crate::kernel) struct RequestSocket {
    socket: TokioSocket,
    received: Vec<u8>,
    sequence: u32,
}

impl RequestSocket {
    /// Opens one of a protocol (`NETLINK_…`) in the network namespace of this thread.
    pub(in crate::kernel) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = TokioSocket::new(protocol)?;
        socket.socket_mut().bind_auto()?;
        socket.socket_mut().connect(&SocketAddr::new(0, 0))?;
        // A refusal need not repeat what it refuses.
        socket.socket_mut().set_cap_ack(true)?;
        Ok(RequestSocket { socket, received: Vec::with_capacity(DATAGRAM), sequence: 0 })
    }

    /// Asks for a dump; [`next_of_dump`](Self::next_of_dump) reads it.
    pub(in crate::kernel) async fn start_dump(&mut self, what: impl NetlinkSerializable) -> io::Result<()> {
        self.send(vec![what], |_| NLM_F_DUMP).await
    }

    /// Reads a part of the dump: type and body of every object in it. Returns whether there is more.
    ///
    /// Fails with [`io::ErrorKind::Interrupted`] where the objects changed meanwhile, so that some
    /// may be missing.
    pub(in crate::kernel) async fn next_of_dump(
        &mut self,
        mut each: impl FnMut(u16, &[u8]),
    ) -> io::Result<bool> {
        self.receive().await?;
        for message in messages(&self.received) {
            if message.flags() & NLM_F_DUMP_INTR != 0 {
                return Err(io::Error::from(Errno::EINTR));
            }
            match message.message_type() {
                // The end of a dump carries an error code as well.
                NLMSG_ERROR | NLMSG_DONE => return refusal(message.payload()).map_or(Ok(false), Err),
                kind => each(kind, message.payload()),
            }
        }
        Ok(true)
    }

    /// Sends changes and waits until all are done. Returns how many the kernel made, as it may refuse
    /// some for the one reason that is `forgiven`.
    pub(in crate::kernel) async fn change(
        &mut self,
        changes: Vec<impl NetlinkSerializable>,
        forgiven: Errno,
    ) -> io::Result<usize> {
        self.send_all(changes, 0, forgiven).await
    }

    /// Sends objects that are to be made, and waits until all are. Returns how many the kernel made; what is there already
    /// it leaves as it is.
    pub(in crate::kernel) async fn create(
        &mut self,
        objects: Vec<impl NetlinkSerializable>,
    ) -> io::Result<usize> {
        self.send_all(objects, NLM_F_CREATE | NLM_F_EXCL, Errno::EEXIST).await
    }

    async fn send_all(
        &mut self,
        changes: Vec<impl NetlinkSerializable>,
        flags: u16,
        forgiven: Errno,
    ) -> io::Result<usize> {
        let mut done = 0;
        let mut changes = changes.into_iter().peekable();
        while changes.peek().is_some() {
            let batch: Vec<_> = changes.by_ref().take(BATCH).collect();
            done += batch.len();
            // Only the last is acknowledged, as each acknowledgement costs.
            let last = batch.len() - 1;
            self.send(batch, |n| if n == last { flags | NLM_F_ACK } else { flags }).await?;
            done -= self.refused(forgiven).await?;
        }
        Ok(done)
    }

    /// Sends changes to a subsystem that makes them in transactions only, all or none: between a message that opens one and
    /// one that ends it. Each change has its flags.
    pub(in crate::kernel) async fn transact<M: NetlinkSerializable>(
        &mut self,
        [open, end]: [M; 2],
        changes: Vec<(M, u16)>,
    ) -> io::Result<()> {
        // An end is acknowledged only since Linux 6.10, a change always was.
        let last = changes.len();
        let (changes, flags): (Vec<_>, Vec<_>) = changes.into_iter().unzip();
        let batch = std::iter::once(open).chain(changes).chain([end]).collect();
        // The first message opens the transaction.
        let of_change = |n: usize| n.checked_sub(1).and_then(|n| flags.get(n)).copied().unwrap_or_default();
        self.send(batch, |n| of_change(n) | if n == last { NLM_F_ACK } else { 0 }).await?;
        self.receive().await?;
        let mut answers = messages(&self.received).filter(|m| m.message_type() == NLMSG_ERROR);
        answers.find_map(|answer| refusal(answer.payload())).map_or(Ok(()), Err)
    }

    /// Reads refusals up to the answer to the last message sent; returns how many there were.
    async fn refused(&mut self, forgiven: Errno) -> io::Result<usize> {
        let mut refused = 0;
        loop {
            self.receive().await?;
            for message in messages(&self.received).filter(|m| m.message_type() == NLMSG_ERROR) {
                match refusal(message.payload()) {
                    Some(error) if error.raw_os_error() == Some(forgiven as i32) => refused += 1,
                    Some(error) => return Err(error),
                    None => {}
                }
                if message.sequence_number() == self.sequence {
                    return Ok(refused);
                }
            }
        }
    }

    /// Sends messages in one datagram, with flags for each.
    async fn send(
        &mut self,
        messages: Vec<impl NetlinkSerializable>,
        flags: impl Fn(usize) -> u16,
    ) -> io::Result<()> {
        let mut bytes = Vec::new();
        for (n, message) in messages.into_iter().enumerate() {
            self.sequence += 1;
            let mut header = NetlinkHeader::default();
            header.sequence_number = self.sequence;
            header.flags = NLM_F_REQUEST | flags(n);
            let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
            message.finalize();
            let start = bytes.len();
            bytes.resize((start + message.buffer_len()).next_multiple_of(4), 0);
            message.serialize(&mut bytes[start..]);
        }
        self.socket.send(&bytes).await.map(drop)
    }

    async fn receive(&mut self) -> io::Result<()> {
        self.received.clear();
        timeout(PATIENCE, self.socket.recv(&mut self.received)).await.map_err(io::Error::from)?
    }
}

/// The messages of one datagram; a malformed one ends it.
pub(in crate::kernel) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = NetlinkBuffer<&[u8]>> {
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(bytes).ok()?;
        let end = (message.length() as usize).next_multiple_of(4);
        bytes = bytes.get(end..).unwrap_or_default();
        Some(message)
    })
}

/// Type and value of each attribute; a malformed one ends them.
pub(in crate::kernel) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let attribute = NlaBuffer::new_checked(bytes).ok()?;
        let (kind, end) = (attribute.kind(), usize::from(attribute.length()));
        let value = bytes.get(4..end)?;
        bytes = bytes.get(end.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of a type.
pub(in crate::kernel) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(k, value)| (k == kind).then_some(value))
}

/// What an error message says; none where it is an acknowledgement.
pub(in crate::kernel) fn refusal(body: &[u8]) -> Option<io::Error> {
    let code = ErrorBuffer::new_checked(body).ok()?.code()?;
    Some(io::Error::from_raw_os_error(-code.get()))
}
