//! systemd-resolved's monitor: which names are asked for on this machine, and which addresses are the answer.
//!
//! It speaks varlink (`io.systemd.Resolve.Monitor`, in systemd's src/shared/varlink-io.systemd.Resolve.Monitor.c): JSON, each
//! message with a zero behind it. Who may listen is for polkit to say. What a name is for this refuses to know.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::rr::{Name, RData, Record};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tracing::debug;

/// Where it listens.
const SOCKET: &str = "/run/systemd/resolve/io.systemd.Resolve.Monitor";
/// What it is asked. No person is there to be asked in turn.
const ASK: &[u8] =
    b"{\"method\":\"io.systemd.Resolve.Monitor.SubscribeQueryResults\",\"parameters\":{},\"more\":true}\0";
/// More is no message: it is the most that systemd itself takes (`VARLINK_BUFFER_MAX`, src/libsystemd/sd-varlink).
const LARGEST: u64 = 16 << 20;
/// So long it may take to agree.
const LIMIT: Duration = Duration::from_secs(5);

/// An answer that somebody on this machine was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What was asked for, of each family perhaps.
    pub names: Vec<String>,
    /// The addresses, and how long each holds.
    pub addresses: Vec<(IpAddr, Duration)>,
}

/// A stream of answers.
pub struct Answers {
    stream: BufReader<UnixStream>,
}

/// Why there are none.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It does not run, or has ended.
    #[error("systemd-resolved is not there")]
    Absent(#[source] io::Error),
    /// It does not let us.
    #[error("systemd-resolved does not tell its answers: {0}")]
    Refused(String),
    /// It says what we do not understand.
    #[error("systemd-resolved speaks of its answers in another way")]
    Malformed(#[source] serde_json::Error),
}

#[derive(Deserialize)]
struct Message {
    error: Option<String>,
    #[serde(default)]
    parameters: Parameters,
}

#[derive(Deserialize, Default)]
struct Parameters {
    ready: Option<bool>,
    question: Option<Vec<Question>>,
    /// What was asked for before that, where it is another name for it.
    #[serde(rename = "collectedQuestions")]
    collected: Option<Vec<Question>>,
    answer: Option<Vec<Told>>,
}

#[derive(Deserialize)]
struct Question {
    name: String,
}

#[derive(Deserialize)]
struct Told {
    raw: Option<String>,
}

impl Answers {
    /// Begins to listen.
    pub async fn open() -> Result<Self, Error> {
        Self::at(SOCKET).await
    }

    async fn at(path: &str) -> Result<Self, Error> {
        let begin = async {
            let mut stream = UnixStream::connect(path).await.map_err(|error| match error.kind() {
                // Those of before systemd 257 are for root alone.
                io::ErrorKind::PermissionDenied => Error::Refused(error.to_string()),
                _ => Error::Absent(error),
            })?;
            stream.write_all(ASK).await.map_err(Error::Absent)?;
            let mut answers = Answers { stream: BufReader::new(stream) };
            while answers.message().await?.parameters.ready.is_none() {}
            Ok(answers)
        };
        let late = |_| Error::Absent(io::ErrorKind::TimedOut.into());
        timeout(LIMIT, begin).await.map_err(late)?
    }

    /// The next one that has an address.
    pub async fn next(&mut self) -> Result<Answer, Error> {
        loop {
            match self.message().await {
                Ok(message) => match message.parameters.answer() {
                    Some(answer) => return Ok(answer),
                    None => continue,
                },
                // One that is not understood is none to us, and no reason to miss the next.
                Err(Error::Malformed(error)) => debug!("names: {error}"),
                Err(error) => return Err(error),
            }
        }
    }

    async fn message(&mut self) -> Result<Message, Error> {
        let mut bytes = Vec::new();
        (&mut self.stream).take(LARGEST).read_until(0, &mut bytes).await.map_err(Error::Absent)?;
        if bytes.pop() != Some(0) {
            return Err(Error::Absent(io::ErrorKind::UnexpectedEof.into()));
        }
        let message: Message = serde_json::from_slice(&bytes).map_err(Error::Malformed)?;
        match message.error {
            Some(error) => Err(Error::Refused(error)),
            None => Ok(message),
        }
    }
}

impl Parameters {
    fn answer(self) -> Option<Answer> {
        let questions = self.question?.into_iter().chain(self.collected.unwrap_or_default());
        let names: Vec<_> = questions.map(|question| question.name).collect();
        let records: Vec<_> = self.answer?.into_iter().filter_map(|told| record(&told.raw?)).collect();
        let addresses = addresses(&names, &records);
        (!addresses.is_empty()).then_some(Answer { names, addresses })
    }
}

/// The addresses of these names, directly or by the other names that they have: an answer tells more besides, as of those
/// who were asked for it.
fn addresses(names: &[String], records: &[Record]) -> Vec<(IpAddr, Duration)> {
    let mut owners: BTreeSet<Name> =
        names.iter().filter_map(|name| Name::from_ascii(name).ok()).map(absolute).collect();
    loop {
        let known = owners.len();
        let aliases = records.iter().filter(|record| owners.contains(record.name()));
        let targets: Vec<_> =
            aliases.filter_map(|record| Some(record.data().as_cname()?.0.clone())).collect();
        owners.extend(targets.into_iter().map(absolute));
        if owners.len() == known {
            break;
        }
    }
    let theirs = records.iter().filter(|record| owners.contains(record.name()));
    theirs
        .filter_map(|record| {
            let ip = match record.data() {
                RData::A(ip) => ip.0.into(),
                RData::AAAA(ip) => ip.0.into(),
                _ => return None,
            };
            Some((ip, Duration::from_secs(record.ttl().into())))
        })
        .collect()
}

/// As the owners of records are.
fn absolute(mut name: Name) -> Name {
    name.set_fqdn(true);
    name
}

/// A resource record, in the form in which it came (RFC 1035, 3.2.1), in base64.
fn record(raw: &str) -> Option<Record> {
    let bytes = data_encoding::BASE64.decode(raw.as_bytes()).ok()?;
    Record::<RData>::read(&mut BinDecoder::new(&bytes)).ok()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_proto::rr::rdata::CNAME;
    use tokio::net::UnixListener;

    use super::*;

    /// `www.example.com. 300 IN A 203.0.113.9`
    const RECORD: &str = "A3d3dwdleGFtcGxlA2NvbQAAAQABAAABLAAEywBxCQ==";

    fn holding(owner: &str, data: RData) -> Record {
        Record::from_rdata(Name::from_ascii(owner).unwrap(), 300, data)
    }

    #[test]
    fn a_record_is_read_or_none_is_there() {
        let wanted = holding("www.example.com.", RData::A(Ipv4Addr::new(203, 0, 113, 9).into()));
        assert_eq!(record(RECORD), Some(wanted));
        for odd in ["", "AAAA", "not base64!", &RECORD[..40]] {
            assert_eq!(record(odd), None, "{odd}");
        }
    }

    #[test]
    fn addresses_of_others_in_an_answer_are_not_the_names() {
        let alias = |to: &str| RData::CNAME(CNAME(Name::from_ascii(to).unwrap()));
        let a = |n| RData::A(Ipv4Addr::new(203, 0, 113, n).into());
        let records = [
            holding("cdn.example.net.", a(2)),
            holding("edge.example.net.", alias("cdn.example.net.")),
            holding("WWW.example.com.", alias("edge.example.net.")),
            holding("www.example.com.", a(1)),
            holding("ns.example.org.", a(3)),
            // In a ring.
            holding("cdn.example.net.", alias("www.example.com.")),
        ];
        let of = |name: &str| {
            let all = addresses(&[name.to_owned()], &records).into_iter();
            all.map(|(ip, _)| ip.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(of("www.example.com"), ["203.0.113.2", "203.0.113.1"]);
        assert_eq!(of("ns.example.org."), ["203.0.113.3"]);
        assert!(of("example.com").is_empty() && of("b\\255d").is_empty() && of("").is_empty());
    }

    #[tokio::test]
    async fn answers_with_addresses_are_told_and_nothing_else() {
        let folder = crate::config::folder::Folder::new("answers");
        let path = folder.path("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let serve = async {
            let (mut peer, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; ASK.len()];
            peer.read_exact(&mut asked).await.unwrap();
            assert_eq!(asked, ASK);
            for text in [
                r#"{"parameters":{"ready":true},"continues":true}"#.to_owned(),
                r#"{"parameters":{"question":"of another kind"},"continues":true}"#.to_owned(),
                r#"{"parameters":{"state":"errno","question":[{"name":"x.org"}],"errno":5},"continues":true}"#.to_owned(),
                format!(
                    r#"{{"parameters":{{"state":"success","question":[{{"class":1,"type":1,"name":"www.example.com"}}],"collectedQuestions":[{{"class":1,"type":1,"name":"video.example"}}],"answer":[{{"rr":{{}},"raw":"{RECORD}","ifindex":2}},{{"raw":"AAAA"}}]}},"continues":true}}"#
                ),
            ] {
                peer.write_all(text.as_bytes()).await.unwrap();
                peer.write_all(&[0]).await.unwrap();
            }
        };
        let listen = async {
            let mut answers = Answers::at(path.to_str().unwrap()).await.unwrap();
            let answer = answers.next().await.unwrap();
            assert_eq!(answer.names, ["www.example.com", "video.example"]);
            assert_eq!(answer.addresses, [("203.0.113.9".parse().unwrap(), Duration::from_secs(300))]);
            assert!(matches!(answers.next().await, Err(Error::Absent(_))), "it has ended");
        };
        tokio::join!(serve, listen);
    }

    #[tokio::test]
    async fn a_refusal_is_told() {
        let folder = crate::config::folder::Folder::new("refused");
        let path = folder.path("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let serve = async {
            let (mut peer, _) = listener.accept().await.unwrap();
            peer.write_all(b"{\"error\":\"io.systemd.InteractiveAuthenticationRequired\"}\0").await.unwrap();
            peer
        };
        let (opened, _peer) = tokio::join!(Answers::at(path.to_str().unwrap()), serve);
        assert!(matches!(opened, Err(Error::Refused(error)) if error.ends_with("Required")));
        assert!(matches!(Answers::at("/nowhere").await, Err(Error::Absent(_))));
    }
}
