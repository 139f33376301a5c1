//! Client sockets bound to a device, an address or a mark.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

/// What sockets hold that must not lose what comes at once, when a delay ends for instance: the usual 200 kB are some 150
/// small packets.
pub(super) const BURST: usize = 16 << 20;

/// What a client's socket is bound to; nothing by default.
#[derive(Debug, Clone, Default)]
pub struct Via {
    device: Option<String>,
    address: Option<IpAddr>,
    mark: Option<u32>,
}

impl Via {
    /// Bound to nothing: the kernel chooses.
    pub fn any() -> Via {
        Via::default()
    }

    /// Bound to a device (`SO_BINDTODEVICE`).
    pub fn device(name: &str) -> Via {
        Via { device: Some(name.to_owned()), ..Via::default() }
    }

    /// Bound to a local address.
    pub fn address(address: impl Into<IpAddr>) -> Via {
        Via { address: Some(address.into()), ..Via::default() }
    }

    /// Carrying a firewall mark.
    pub fn mark(mark: u32) -> Via {
        Via { mark: Some(mark), ..Via::default() }
    }

    /// A UDP socket for talking to `dest`. The calling thread must be in the namespace; see [`super::Ns::run`].
    pub fn udp(&self, dest: SocketAddr) -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind((self.local(dest), 0))?;
        self.apply(&socket)?;
        Ok(socket)
    }

    /// A TCP connection to `dest`. The calling thread must be in the namespace; see [`super::Ns::run`].
    pub fn tcp(&self, dest: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        let fd = self.stream(dest, SockFlag::empty())?;
        // The send timeout is what bounds connect(2).
        let limit = TimeVal::new(
            i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            timeout.subsec_micros().into(),
        );
        setsockopt(&fd, sockopt::SendTimeout, &limit)?;
        connect(fd.as_raw_fd(), &SockaddrStorage::from(dest)).map_err(|error| match error {
            nix::Error::EINPROGRESS => io::Error::from(io::ErrorKind::TimedOut),
            other => other.into(),
        })?;
        let stream = TcpStream::from(fd);
        stream.set_read_timeout(Some(timeout))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Begin to connect to `dest`, without waiting for it: the stream does not block, and what becomes of it shows when one
    /// reads. The calling thread must be in the namespace.
    pub fn tcp_begin(&self, dest: SocketAddr) -> io::Result<TcpStream> {
        let fd = self.stream(dest, SockFlag::SOCK_NONBLOCK)?;
        match connect(fd.as_raw_fd(), &SockaddrStorage::from(dest)) {
            Ok(()) | Err(nix::Error::EINPROGRESS) => Ok(TcpStream::from(fd)),
            Err(error) => Err(error.into()),
        }
    }

    /// A socket bound as it should be, not yet connected.
    fn stream(&self, dest: SocketAddr, flags: SockFlag) -> io::Result<OwnedFd> {
        let family = match dest {
            SocketAddr::V4(_) => AddressFamily::Inet,
            SocketAddr::V6(_) => AddressFamily::Inet6,
        };
        let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | flags, None)?;
        self.apply(&fd)?;
        if self.address.is_some() {
            let local = SockaddrStorage::from(SocketAddr::new(self.local(dest), 0));
            bind(fd.as_raw_fd(), &local)?;
        }
        Ok(fd)
    }

    fn local(&self, dest: SocketAddr) -> IpAddr {
        self.address.unwrap_or(match dest {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        })
    }

    fn apply(&self, fd: &impl std::os::fd::AsFd) -> io::Result<()> {
        if let Some(device) = &self.device {
            setsockopt(fd, sockopt::BindToDevice, &device.into())?;
        }
        if let Some(mark) = &self.mark {
            setsockopt(fd, sockopt::Mark, mark)?;
        }
        Ok(())
    }
}
