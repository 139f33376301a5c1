//! Pages, with TLS and without, and whoever answers in their place.

use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use uplinkd::kernel::sockets::{Doomed, destroy};

use super::{LONG, SHORT, World, resolved, run};

#[test]
fn pages_and_portals_are_told_apart() {
    run("pages_and_portals_are_told_apart", |world| async move {
        world.pages("203.0.113.1:80", "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsuccess\n");
        world.pages("203.0.113.1:81", "HTTP/1.1 302 Found\r\nLocation: http://login.example/?x\r\n\r\n");
        world.pages("203.0.113.1:82", "SSH-2.0-OpenSSH\r\n");
        world.pages("203.0.113.1:83", "");
        world.serve("203.0.113.1:84", |mut stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            while stream.write_all(&[b'x'; 4096]).is_ok() {}
        });
        world.serve("203.0.113.1:85", |stream| {
            thread::sleep(Duration::from_secs(1));
            drop(stream);
        });
        world.pages("[2001:db8:9::1]:80", "HTTP/1.1 204 X\r\n\r\n");
        world.answered("http://203.0.113.1/ body=success").await;
        world.answered("http://203.0.113.1/").await;
        world.answered("http://[2001:db8:9::1]/ status=204").await;
        world.portal("http://203.0.113.1/ status=204", "status 200 instead of 204").await;
        world.portal("http://203.0.113.1/ body=no", "another text").await;
        world.portal("http://203.0.113.1:81/ body=success", "redirected to login.example").await;
        world.failed("http://203.0.113.1:82/", LONG, "not HTTP").await;
        world.failed("http://203.0.113.1:83/", LONG, "closed without an answer").await;
        world.portal("http://203.0.113.1:84/ body=success", "another text").await;
        world.failed("http://203.0.113.1:85/", SHORT, "no answer within 300ms").await;
    });
}

/// Who condemns an uplink ends everything that runs from its address, what is to tell why it fails as well.
#[test]
fn a_page_is_asked_for_again_when_this_machine_ends_the_connection() {
    run("a_page_is_asked_for_again_when_this_machine_ends_the_connection", |world| async move {
        let (tell, mut asked) = tokio::sync::mpsc::unbounded_channel();
        let mut first = None;
        world.serve("203.0.113.1:80", move |mut stream| {
            let _ = stream.read(&mut [0; 1024]).unwrap();
            match first {
                Some(_) => stream.write_all(b"HTTP/1.1 204 X\r\n\r\n").unwrap(),
                None => first = Some(stream),
            }
            tell.send(()).unwrap();
        });
        let end = async {
            asked.recv().await.unwrap();
            destroy(&Doomed::at(&["192.0.2.2".parse().unwrap()], &[])).await.unwrap()
        };
        let (_, ended) = tokio::join!(world.answered("http://203.0.113.1/ status=204"), end);
        assert_eq!(ended, 1);
    });
}

/// A server with a certificate that nobody signed; where its certificate is.
fn secure_server(world: &World) -> std::path::PathBuf {
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};
    let path = |name: &str| {
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}.pem", std::process::id()))
    };
    let (key, cert) = (path("key"), path("cert"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=x.example", "-addext", "subjectAltName=DNS:x.example,IP:203.0.113.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let config = ServerConfig::builder_with_provider(std::sync::Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(&cert).unwrap()],
            PrivateKeyDer::from_pem_file(&key).unwrap(),
        )
        .unwrap();
    let config = std::sync::Arc::new(config);
    world.serve("203.0.113.1:443", move |stream| {
        let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream);
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.1 204 X\r\n\r\n");
    });
    cert
}

#[test]
fn a_certificate_that_nobody_signed_is_a_portal() {
    run("a_certificate_that_nobody_signed_is_a_portal", |world| async move {
        secure_server(&world);
        world.portal("https://203.0.113.1/", "certificate is not valid for 203.0.113.1").await;
        world.pages("203.0.113.1:80", "HTTP/1.1 204 X\r\n\r\n");
        world.serve("203.0.113.1:444", |mut stream| {
            let _ = stream.write_all(b"HTTP/1.1 400 Speak TLS no more\r\n\r\n");
        });
        world.failed("https://203.0.113.1:444/", LONG, "TLS").await;
    });
}

/// Runs the test below once more with this root in the environment, as it is read but once in a process.
#[test]
fn a_certificate_of_a_trusted_root_is_answered() {
    const ROOT: &str = "UPLINKD_TEST_INNER";
    let name = "a_certificate_of_a_trusted_root_is_answered";
    run(name, move |world| async move {
        if std::env::var_os(ROOT).is_none() {
            let root =
                Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-root.pem", std::process::id()));
            let inner = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", &format!("pages::{name}"), "--nocapture"])
                .env(ROOT, "1")
                .env("SSL_CERT_FILE", &root)
                .output()
                .unwrap();
            assert!(inner.status.success(), "{}", String::from_utf8_lossy(&inner.stderr));
            return;
        }
        std::fs::copy(secure_server(&world), std::env::var_os("SSL_CERT_FILE").unwrap()).unwrap();
        world.dns("203.0.113.1:53", |question| vec![resolved(&question, &["203.0.113.1".parse().unwrap()])]);
        let answer = world.answered("https://x.example/ status=204").await;
        assert!(answer.bytes > 1000 && answer.packets > 6, "{answer:?}");
        world.portal("https://y.example/", "certificate is not valid for y.example").await;
    });
}
