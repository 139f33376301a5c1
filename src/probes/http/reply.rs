//! What an HTTP answer says: whether it is the page that was asked for, or somebody else's.
//!
//! Pure, and total: whatever the bytes are, it is a verdict or the wish for more.

use httparse::{EMPTY_HEADER, Header, Response, Status, parse_chunk_size};

use crate::core::probe::Expect;
use crate::core::text::harmless;
use crate::probes::{Outcome, failed};

/// More header fields than any of the pages that are good for a probe has.
const FIELDS: usize = 64;

type Verdict = Result<(), Outcome>;

/// Judges what was read so far. None: more is needed to tell, which cannot be where no more will come (`ended`).
pub(super) fn judge(answer: &[u8], ended: bool, expect: &Expect) -> Option<Verdict> {
    let mut fields = [EMPTY_HEADER; FIELDS];
    let mut response = Response::new(&mut fields);
    let body = match response.parse(answer) {
        Ok(Status::Complete(head)) => answer.get(head..).unwrap_or_default(),
        Ok(Status::Partial) if answer.is_empty() && ended => {
            return Some(Err(failed("closed without an answer")));
        }
        Ok(Status::Partial) => return ended.then(|| Err(failed("the answer breaks off"))),
        Err(error) => return Some(Err(failed(format!("the answer is not HTTP: {error}")))),
    };
    let status = response.code.unwrap_or_default();
    if !expect.status.map_or((200..300).contains(&status), |expected| expected == status) {
        let why = foreign(status, response.headers, expect.status);
        return Some(Err(if is_trouble(status) { failed(why) } else { portal(&why) }));
    }
    let Some(expected) = &expect.body else { return Some(Ok(())) };
    match whole(body, response.headers, ended) {
        Body::Whole(text) if text.trim_ascii() == expected.as_bytes() => Some(Ok(())),
        Body::Whole(_) => Some(Err(portal("another text than the one expected"))),
        Body::Part if ended => Some(Err(failed("the answer breaks off"))),
        Body::Part => None,
    }
}

/// Whether a status tells of trouble at the server itself. 511 is the one that portals send (RFC 6585, section 6).
fn is_trouble(status: u16) -> bool {
    matches!(status, 429 | 500..=510 | 512..=599)
}

fn portal(why: &str) -> Outcome {
    Outcome::Portal(harmless(why))
}

fn foreign(status: u16, fields: &[Header<'_>], expected: Option<u16>) -> String {
    let location = (300..400).contains(&status).then(|| field(fields, "location")).flatten();
    match (location.map(host), expected) {
        (Some(Some(host)), _) => format!("redirected to {host}"),
        (Some(None), _) => "redirected".to_owned(),
        (None, Some(expected)) => format!("status {status} instead of {expected}"),
        (None, None) => format!("status {status}"),
    }
}

/// The host in an absolute address.
fn host(location: &str) -> Option<&str> {
    let (_, rest) = location.split_once("//")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    (!host.is_empty()).then_some(host)
}

fn field<'a>(fields: &[Header<'a>], name: &str) -> Option<&'a str> {
    let field = fields.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(field.value).ok().map(str::trim)
}

enum Body {
    Whole(Vec<u8>),
    Part,
}

/// The body, by whichever of the three ways its length is told (RFC 9112, section 6.3).
fn whole(rest: &[u8], fields: &[Header<'_>], ended: bool) -> Body {
    if field(fields, "transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        return unchunked(rest).map_or(Body::Part, Body::Whole);
    }
    match field(fields, "content-length").and_then(|length| length.parse::<usize>().ok()) {
        Some(length) => rest.get(..length).map_or(Body::Part, |body| Body::Whole(body.to_vec())),
        None if ended => Body::Whole(rest.to_vec()),
        None => Body::Part,
    }
}

/// Puts chunks together (RFC 9112, section 7.1); none before the last one came.
fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let Ok(Status::Complete((start, length))) = parse_chunk_size(rest) else { return None };
        if length == 0 {
            return Some(body);
        }
        let end = start.checked_add(usize::try_from(length).ok()?)?;
        body.extend_from_slice(rest.get(start..end)?);
        rest = rest.get(end..)?.strip_prefix(b"\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn expect(text: &str) -> Expect {
        let probe: crate::core::probe::Probe = format!("http://x.example/ {text}").parse().unwrap();
        match probe {
            crate::core::probe::Probe::Http { expect, .. } => expect,
            other => panic!("{other}"),
        }
    }

    fn said(answer: &str, wanted: &str) -> String {
        match judge(answer.as_bytes(), true, &expect(wanted)).unwrap() {
            Ok(()) => "fine".to_owned(),
            Err(Outcome::Portal(why)) => format!("portal: {why}"),
            Err(other) => format!("{other:?}"),
        }
    }

    #[test]
    fn answers_are_judged() {
        for (answer, wanted, verdict) in [
            ("HTTP/1.1 204 No Content\r\n\r\n", "status=204", "fine"),
            ("HTTP/1.1 200 OK\r\n\r\n", "", "fine"),
            ("HTTP/1.1 200 OK\r\n\r\nlogin", "status=204", "portal: status 200 instead of 204"),
            ("HTTP/1.1 511 X\r\n\r\n", "", "portal: status 511"),
            ("HTTP/1.0 200 OK\r\n\r\n success\n", "body=success", "fine"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nsuccess and more", "body=success", "fine"),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nsuc\r\n4\r\ncess\r\n0\r\n\r\n",
                "body=success",
                "fine",
            ),
            (
                "HTTP/1.1 200 OK\r\n\r\n<b>success",
                "body=success",
                "portal: another text than the one expected",
            ),
            (
                "HTTP/1.1 302 X\r\nLocation: https://u@login.example:8/?x\r\n\r\n",
                "",
                "portal: redirected to login.example:8",
            ),
            ("HTTP/1.1 302 X\r\nlocation: /login\r\n\r\n", "", "portal: redirected"),
            ("HTTP/1.1 301 X\r\n\r\n", "status=301", "fine"),
            ("", "", "Failed(\"closed without an answer\")"),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsuccess",
                "body=success",
                "Failed(\"the answer breaks off\")",
            ),
            ("HTTP/1.1 20", "", "Failed(\"the answer breaks off\")"),
        ] {
            assert_eq!(said(answer, wanted), verdict, "{answer}");
        }
        assert!(said("SSH-2.0-x\r\n", "").contains("not HTTP"));
        assert!(!said("HTTP/1.1 302 X\r\nLocation: http://\u{1b}[2J/\r\n\r\n", "").contains('\u{1b}'));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_judged(bytes in any::<Vec<u8>>(), text in "HTTP/1.1 [0-9]{3} \r\n(Transfer-Encoding: chunked\r\n)?\r\n[0-9a-f]{0,20}\r\n.{0,20}", wanted in "(status=200 )?(body=x)?") {
            for answer in [bytes.as_slice(), text.as_bytes()] {
                prop_assert!(judge(answer, true, &expect(&wanted)).is_some());
                for end in 0..answer.len() {
                    let _ = judge(&answer[..end], false, &expect(&wanted));
                }
            }
        }
    }
}
