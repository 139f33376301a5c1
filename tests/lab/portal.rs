//! A login page in the way.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use crate::ctl::{Ctl, installed, package, set};
use crate::kit::address::{HTTP, PORTAL_CHECKS, echoes4, web4};
use crate::kit::{Lab, Spec, Via, connect_many, lab_or_skip};
use crate::watch::{rest, seconds, state, transitions, until_state, until_used};

/// What a page says that is asked for through an ISP by a program which is bound to it.
fn page(lab: &Lab, via: &Via) -> String {
    let get = || {
        let mut stream = via.tcp((web4(), HTTP).into(), seconds(2))?;
        write!(stream, "GET /success.txt HTTP/1.1\r\nHost: {}\r\n\r\n", PORTAL_CHECKS[0])?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    };
    lab.machine.netns().run(|| get().unwrap_or_else(|error: std::io::Error| error.to_string()))
}

/// What must hold while ISP 1 wants a sign-in.
#[track_caller]
fn only_the_sign_in_works(lab: &Lab) {
    until_used(lab, &[2]);
    for ns in [&lab.client().ns, lab.machine.netns()] {
        let shares = connect_many(ns, &Via::any(), 60, &echoes4());
        assert_eq!((shares.of(2), shares.failures.len()), (60, 0), "{shares:?}");
    }
    for via in [Via::device("eth1"), Via::address(lab.isp(1).lease())] {
        let text = page(lab, &via);
        assert!(text.contains(" 302 "), "{via:?}: the portal is not reached: {text}");
    }
    assert!(page(lab, &Via::any()).contains(" 200 "));
}

#[test]
fn a_portal_that_comes_up_is_seen_and_left_and_found_open() {
    let lab = lab_or_skip!(installed(Spec::router()));
    lab.machine.wait_active(2);
    // It fails twice in a short time, which would be held against it.
    set(&lab, 1, "hold=0s");
    for _ in 0..2 {
        lab.isp(1).portal(true);
        println!("FIGURE seen after {:.1?}", until_state(&lab, 1, "portal"));
        only_the_sign_in_works(&lab);
        rest(6000);
        assert_eq!(state(&lab.machine.status(), 1), "portal");
        let text = lab.machine.cmd(&["uplinkctl"]).ok();
        assert!(text.contains("portal"), "{text}");
        let signed = Instant::now();
        lab.isp(1).portal(false);
        until_used(&lab, &[1, 2]);
        println!("FIGURE in use {:.1?} after the sign-in", signed.elapsed());
        assert!(signed.elapsed() < seconds(30));
    }
    println!("{:?}", transitions(&lab, 1));
}

#[test]
fn a_portal_that_was_there_first_is_never_used() {
    let lab = lab_or_skip!(Spec::router());
    lab.isp(1).portal(true);
    lab.machine.install_deb(&package());
    println!("FIGURE seen after {:.1?}", until_state(&lab, 1, "portal"));
    let went = transitions(&lab, 1);
    assert!(went.iter().all(|(state, _)| state != "up"), "{went:?}");
    only_the_sign_in_works(&lab);
    // A link that comes back is looked at anew.
    lab.isp(1).carrier(false);
    until_state(&lab, 1, "down");
    lab.isp(1).carrier(true);
    println!("FIGURE seen after {:.1?}", until_state(&lab, 1, "portal"));
    lab.isp(1).portal(false);
    until_used(&lab, &[1, 2]);
    let went = transitions(&lab, 1);
    println!("{went:?}");
    assert_eq!(went.iter().filter(|(state, _)| state == "up").count(), 1, "{went:?}");
    // One that goes silent is down like any other.
    lab.isp(1).portal(true);
    until_state(&lab, 1, "portal");
    lab.isp(1).silent(true);
    std::thread::sleep(Duration::from_secs(8));
    only_one(&lab);
    lab.isp(1).silent(false);
    lab.isp(1).portal(false);
    println!("FIGURE back after {:.1?}", until_used(&lab, &[1, 2]));
}

fn only_one(lab: &Lab) {
    assert_ne!(state(&lab.machine.status(), 1), "up");
    assert_eq!(connect_many(&lab.client().ns, &Via::any(), 20, &echoes4()).of(2), 20);
}
