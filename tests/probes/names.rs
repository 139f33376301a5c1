//! Name servers: as targets, and for the names of other targets.

use std::time::Instant;

use hickory_proto::op::ResponseCode;

use super::{LONG, SHORT, reply, resolved, run};

#[test]
fn dns_is_answered_and_lies_are_ignored() {
    run("dns_is_answered_and_lies_are_ignored", |world| async move {
        for address in ["203.0.113.1:53", "[2001:db8:9::1]:53"] {
            world.dns(address, |question| {
                let name = question.queries()[0].name().to_string();
                let code = match name.as_str() {
                    "none.example." => ResponseCode::NXDomain,
                    "broken.example." => ResponseCode::ServFail,
                    "refused.example." => ResponseCode::Refused,
                    _ => ResponseCode::NoError,
                };
                let right = reply(&question, code);
                let mut other_id = right.clone();
                other_id.set_id(right.id() ^ 1);
                let mut other_question = right.clone();
                other_question.queries_mut()[0].set_query_type(hickory_proto::rr::RecordType::TXT);
                let lies = vec![question, other_id, other_question];
                if name == "lies.example." { lies } else { [lies, vec![right]].concat() }
            });
        }
        for probe in ["dns:203.0.113.1", "dns:203.0.113.1/none.example", "dns:[2001:db8:9::1]"] {
            world.answered(probe).await;
        }
        world.failed("dns:203.0.113.1/lies.example", SHORT, "no answer").await;
        world.failed("dns:203.0.113.1/broken.example", LONG, "server failure").await;
        world.failed("dns:203.0.113.1/refused.example", LONG, "refused").await;
    });
}

#[test]
fn names_are_resolved_through_the_uplink() {
    run("names_are_resolved_through_the_uplink", |world| async move {
        world.server.sh(&["ip address add 9.9.9.9/32 dev lo", "ip address add 203.0.113.3/32 dev lo"]);
        world.serve("203.0.113.1:80", drop);
        world.dns("203.0.113.1:53", |question| {
            let name = question.queries()[0].name().to_string();
            match name.as_str() {
                "x.example." => vec![resolved(&question, &["203.0.113.1".parse().unwrap()])],
                "mute.example." => vec![],
                _ => vec![reply(&question, ResponseCode::ServFail)],
            }
        });
        world.dns("9.9.9.9:53", |question| match question.queries()[0].name().to_string().as_str() {
            "nowhere.example." => vec![reply(&question, ResponseCode::NXDomain)],
            _ => vec![resolved(&question, &["203.0.113.1".parse().unwrap()])],
        });
        let answer = world.answered("tcp:x.example:80").await;
        assert!(answer.packets == 4 && answer.bytes > 224, "{answer:?}");
        // The second server is asked when the first fails, or is silent for a second.
        world.answered("icmp:second.example").await;
        let since = Instant::now();
        world.answered("icmp:mute.example").await;
        assert!((1.0..1.5).contains(&since.elapsed().as_secs_f32()), "{:?}", since.elapsed());
        world.failed("icmp:nowhere.example", LONG, "cannot resolve nowhere.example").await;
    });
}
