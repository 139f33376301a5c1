//! One page, fetched by HTTP/1.1 (RFC 9112), with TLS or without.
//!
//! Decides what is sent and how much is read. No redirect is followed and nothing is cached: who redirects is not the
//! server that was asked for, or has told enough by answering.

mod reply;
mod tls;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use super::meter::Meter;
use super::socket::failure;
use super::{Outcome, Way, resolve, tcp};
use crate::core::probe::{Expect, Url};

/// The most that is read of an answer, head and body, in bytes.
const MOST: usize = 16 * 1024;

/// Fetches a page; returns the time that connecting to its server took.
pub(super) async fn ask(url: &Url, expect: &Expect, way: &Way, meter: &Meter) -> Result<Duration, Outcome> {
    let ip = resolve::host(&url.host, way, meter).await?;
    let (stream, time) = tcp::connect(ip, url.port, way, meter).await?;
    let stream = Counted { stream, meter };
    match url.secure {
        true => fetch(tls::wrap(stream, &url.host).await?, url, expect).await?,
        false => fetch(stream, url, expect).await?,
    }
    Ok(time)
}

async fn fetch(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    url: &Url,
    expect: &Expect,
) -> Result<(), Outcome> {
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: uplinkd\r\nAccept: */*\r\nCache-Control: no-cache\r\n\
         Connection: close\r\n\r\n",
        url.path,
        url.authority()
    );
    stream.write_all(request.as_bytes()).await.map_err(|error| failure(&error))?;
    stream.flush().await.map_err(|error| failure(&error))?;
    let mut answer = Vec::new();
    let mut part = [0; 2048];
    loop {
        let length = match stream.read(&mut part).await {
            // Many servers end a TLS connection without saying so; the length of the body tells what is missing.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            other => other.map_err(|error| failure(&error))?,
        };
        answer.extend_from_slice(&part[..length.min(MOST - answer.len())]);
        if let Some(verdict) = reply::judge(&answer, length == 0 || answer.len() == MOST, expect) {
            return verdict;
        }
    }
}

/// A connection that counts what goes through it.
struct Counted<'a> {
    stream: TcpStream,
    meter: &'a Meter,
}

impl AsyncRead for Counted<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let done = Pin::new(&mut self.stream).poll_read(cx, into);
        let length = into.filled().len() - before;
        if length > 0 {
            // One packet of it, and one acknowledgement.
            self.meter.received(tcp::HEADER + length);
            self.meter.sent(tcp::HEADER);
        }
        done
    }
}

impl AsyncWrite for Counted<'_> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(cx, from);
        if let Poll::Ready(Ok(length)) = &done {
            self.meter.sent(tcp::HEADER + length);
        }
        done
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
