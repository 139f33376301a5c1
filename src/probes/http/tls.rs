//! TLS (RFC 8446, RFC 5246) with the roots that the system trusts.
//!
//! Decides that whoever has no valid certificate for the host is somebody else, as a captive portal is.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{CertificateError, ClientConfig, Error, RootCertStore};

use crate::core::probe::Host;
use crate::core::text::harmless;
use crate::probes::socket::failure;
use crate::probes::{Outcome, failed};

/// Read once, when the first secure page is asked for: most never ask for one, and the roots take a megabyte.
static CONFIG: OnceCell<Arc<ClientConfig>> = OnceCell::const_new();

/// Speaks TLS over a connection.
pub(super) async fn wrap<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    host: &Host,
) -> Result<TlsStream<S>, Outcome> {
    let name = ServerName::try_from(host.to_string()).map_err(failed)?;
    // Off the loop: it reads and parses some hundred files.
    let load = || async { tokio::task::spawn_blocking(config).await.map_err(failed)? };
    let config = CONFIG.get_or_try_init(load).await?;
    TlsConnector::from(config.clone()).connect(name, stream).await.map_err(|error| refusal(&error, host))
}

fn config() -> Result<Arc<ClientConfig>, Outcome> {
    let mut roots = RootCertStore::empty();
    let (good, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if good == 0 {
        return Err(failed("the system has no root certificates: install the package ca-certificates"));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn refusal(error: &io::Error, host: &Host) -> Outcome {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(reason)) => {
            match reason {
                // More likely is that our clock is wrong, which a router without a battery sets by the network.
                Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. } => {
                    failed(format!("certificate of {host} is not valid at this time by our clock"))
                }
                _ => Outcome::Portal(harmless(&format!("certificate is not valid for {host}"))),
            }
        }
        Some(other) => failed(format!("TLS: {other}")),
        None => failure(error),
    }
}
