//! What the web servers answer.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, TcpStream};
use std::time::Duration;

/// Read one request and answer it; `portal` sends everybody to its login page.
pub(super) fn serve(stream: &mut TcpStream, seen: IpAddr, portal: bool) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            n => request.extend_from_slice(buffer.get(..n).unwrap_or_default()),
        }
    }
    let answer = if portal {
        "302 Found\r\nLocation: http://portal.invalid/login\r\nContent-Length: 0\r\n\r\n".to_owned()
    } else {
        answer(&String::from_utf8_lossy(&request), seen)
    };
    let (status, rest) = answer.split_once("\r\n").unwrap_or((&answer, ""));
    stream.write_all(format!("HTTP/1.1 {status}\r\nConnection: close\r\n{rest}").as_bytes())
}

/// The pages by which operating systems find login pages, and one for everything else.
fn answer(request: &str, seen: IpAddr) -> String {
    let path = request.split(' ').nth(1).unwrap_or("/");
    match (path, host(request).as_str()) {
        ("/generate_204", _) | ("/", "connectivity-check.ubuntu.com") => "204 No Content\r\n\r\n".to_owned(),
        ("/success.txt", _) => page("success\n"),
        _ => page(&format!("{seen}\n")),
    }
}

fn page(body: &str) -> String {
    let length = body.len();
    format!("200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// The host that a request names, without its port, in small letters.
fn host(request: &str) -> String {
    let headers = request.lines().filter_map(|line| line.split_once(':'));
    let host = headers.into_iter().find(|(key, _)| key.eq_ignore_ascii_case("host"));
    let host = host.map_or("", |(_, host)| host.trim());
    host.split(':').next().unwrap_or_default().to_lowercase()
}
