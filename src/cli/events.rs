//! `uplinkctl events`: what has become of whom, and, with --follow, what becomes of them.

use futures_util::StreamExt;
use zbus::{MatchRule, MessageStream, message};

use super::client::Client;
use super::{Failure, print};
use crate::exit;
use crate::service::{BUS_NAME, PATH};
use crate::status::Event;

pub(super) async fn run(follow: bool, json: bool) -> Result<(), Failure> {
    let client = Client::connect().await?;
    // Subscribed first, so that nothing falls between what is past and what comes.
    let coming = if follow { Some(subscribe(&client).await?) } else { None };
    let past: String = client.ask("Events").await?;
    let past: Vec<Event> = serde_json::from_str(&past).map_err(Failure::new)?;
    past.iter().try_for_each(|event| show(event, json))?;
    let Some(mut coming) = coming else { return Ok(()) };
    while let Some(message) = coming.next().await {
        let message = message.map_err(Failure::new)?;
        let body = message.body();
        if message.header().member().is_some_and(|member| member == "Transition") {
            let (time, uplink, family, from, to, why) = body.deserialize().map_err(Failure::new)?;
            let event = Event { time, uplink, family, from, to, why };
            if !past.contains(&event) {
                show(&event, json)?;
            }
        } else if gone(&body) {
            return Err(Failure::with(exit::UNAVAILABLE, "uplinkd has stopped"));
        }
    }
    Err(Failure::with(exit::UNAVAILABLE, "the system bus is gone"))
}

/// Transitions, and the daemon's end.
async fn subscribe(
    client: &Client,
) -> Result<impl futures_util::Stream<Item = zbus::Result<zbus::Message>>, Failure> {
    let transitions = MatchRule::builder()
        .msg_type(message::Type::Signal)
        .sender(BUS_NAME)
        .and_then(|rule| rule.path(PATH))
        .and_then(|rule| rule.member("Transition"))
        .map_err(Failure::new)?
        .build();
    let end = MatchRule::builder()
        .msg_type(message::Type::Signal)
        .sender("org.freedesktop.DBus")
        .and_then(|rule| rule.member("NameOwnerChanged"))
        .and_then(|rule| rule.arg(0, BUS_NAME))
        .map_err(Failure::new)?
        .build();
    let transitions =
        MessageStream::for_match_rule(transitions, client.bus(), None).await.map_err(Failure::new)?;
    let end = MessageStream::for_match_rule(end, client.bus(), None).await.map_err(Failure::new)?;
    Ok(futures_util::stream::select(transitions, end))
}

/// Whether a `NameOwnerChanged` says that nobody owns the name any more.
fn gone(body: &message::Body) -> bool {
    body.deserialize::<(String, String, String)>().is_ok_and(|(_, _, owner)| owner.is_empty())
}

fn show(event: &Event, json: bool) -> Result<(), Failure> {
    if json {
        return print(&format!("{}\n", serde_json::to_string(event).map_err(Failure::new)?));
    }
    let Event { time, uplink, family, from, to, why } = event;
    print(&format!("{time}  {uplink} {family}: {from} -> {to}: {why}\n"))
}
