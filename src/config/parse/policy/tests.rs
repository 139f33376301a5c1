use std::time::Duration;

use super::*;
use crate::config::parse::resolve;
use crate::config::{Config, Outside};
use crate::core::balance::Method;
use crate::core::policy::Same;
use crate::core::uplink::Failback;

/// A machine with two lists, and one user.
struct Machine(String);

impl Outside for Machine {
    fn list(&self, path: &Path) -> Result<String, String> {
        match path.to_str() {
            Some("/lists/good") => Ok("# Ours.\n192.0.2.0/24 # the office\n\n  2001:db8::1\n".into()),
            Some("/lists/empty") => Ok("# Nobody.\n".into()),
            Some("/lists/long") => Ok(self.0.clone()),
            _ => Err("no such file".into()),
        }
    }

    fn user(&self, name: &str) -> Option<u32> {
        (name == "alice").then_some(1000)
    }

    fn group(&self, name: &str) -> Option<u32> {
        (name == "staff").then_some(50)
    }
}

fn read(text: &str, long: &str) -> Result<Config, Vec<String>> {
    let source = Source::new(Path::new("x.toml"), text);
    resolve(&[source], Vec::new(), &Machine(long.to_owned()))
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

/// What is said of a policy, without the lines that are cited.
fn wrong(policy: &str) -> Vec<String> {
    let problems = read(&format!("[[policy]]\n{policy}\n"), "").expect_err("something is wrong");
    problems.iter().map(|problem| problem.lines().next().unwrap_or_default().to_owned()).collect()
}

fn policy(text: &str) -> Policy {
    let config = read(&format!("[[policy]]\n{text}\n"), "").unwrap_or_else(|problems| panic!("{problems:?}"));
    config.policies.into_iter().next().expect("a policy")
}

#[test]
fn everything_that_can_be_said_is_understood() {
    let policy = policy(
        "name = 'bank'\nmethod = 'persistence'\nsame = 'client-and-destination'\nidle = '30s'\nuplinks = ['dsl', 'lte']\n\
         on-failure = 'next'\nfailback = 'drain'\ndrain-time = '90s'\n[policy.match]\nfrom = ['10.1.2.3/8', '/lists/good']\nto = 'fd00::1'\nprotocol = ['tcp', 47, '50']\n\
         ports = [443, '5000-5100']\ndscp = ['ef', 'cs6', 'af42', 1, '2']",
    );
    let nets = |texts: &[&str]| -> Vec<IpNet> { texts.iter().map(|text| text.parse().unwrap()).collect() };
    assert_eq!(policy.traffic.from, nets(&["10.0.0.0/8", "192.0.2.0/24", "2001:db8::1/128"]));
    assert_eq!(policy.traffic.to, nets(&["fd00::1/128"]));
    assert_eq!(policy.traffic.protocol, [6, 47, 50]);
    assert_eq!(policy.traffic.ports, [(443, 443), (5000, 5100)]);
    assert_eq!(policy.traffic.dscp, [46, 48, 36, 1, 2]);
    let stick = Stick { to: Same::ClientAndDestination, idle: Duration::from_secs(30) };
    assert_eq!((policy.way, policy.on_failure), (Way::Persistence(stick), OnFailure::Next));
    assert_eq!(policy.failback, Some(Failback::Drain(Duration::from_secs(90))));
    assert_eq!(policy.uplinks.iter().map(ToString::to_string).collect::<Vec<_>>(), ["dsl", "lte"]);
    assert_eq!((policy.name.as_str(), policy.origin.as_str()), ("bank", "x.toml:1"));
}

#[test]
fn accounts_and_links_are_looked_up() {
    let own = policy("match = { user = ['alice', 0, '2000-2999'], group = 'staff' }");
    assert_eq!(
        (own.traffic.user, own.traffic.group),
        (vec![(1000, 1000), (0, 0), (2000, 2999)], vec![(50, 50)])
    );
    let units = policy("match = { unit = ['nginx', 'alice/x@1.scope', '7/y.service'], slice = 'system' }");
    let said = |units: &[Unit]| units.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(said(&units.traffic.unit), ["nginx.service", "1000/x@1.scope", "7/y.service"]);
    assert_eq!(said(&units.traffic.slice), ["system.slice"]);
    let behind = policy("match = { interface = ['lan*', 'wg0'], mac = '02-00-5E-00-53-01' }");
    assert_eq!((behind.traffic.interface.len(), behind.traffic.mac.len()), (2, 1));
    assert_eq!(
        (behind.name.as_str(), behind.way, behind.on_failure),
        ("policy-1", Way::By(Method::Weighted), OnFailure::Default)
    );
    let enforced = policy("match.ports = 25\nmethod = 'enforced'\nuplinks = 'dsl'");
    assert_eq!(enforced.on_failure, OnFailure::Block);
}

#[test]
fn an_empty_match_and_one_that_contradicts_itself_are_refused() {
    const MATCHES: &str = "a table with at least one of from, to, domain, interface, protocol, ports, dscp, mac, user, group, unit, slice, time";
    assert_eq!(wrong("uplinks = 'dsl'"), [format!("x.toml:1:1: match: missing; {MATCHES}")]);
    assert_eq!(wrong("match = {}"), [format!("x.toml:2:9: match: {{}} is not allowed; {MATCHES}")]);
    for (matcher, why) in [
        ("{ from = '10.0.0.0/8', to = 'fd00::/8' }", "from and to have no family in common"),
        ("{ protocol = 'icmp', ports = 80 }", "ports: the protocol has none"),
        (
            "{ user = 'alice', interface = 'lan' }",
            "user, group, unit and slice are for this machine's own programs, interface and mac for what comes in; nothing is both",
        ),
    ] {
        assert_eq!(
            wrong(&format!("match = {matcher}")),
            [format!("x.toml:2:9: match: nothing can match: {why}")]
        );
    }
}

#[test]
fn what_is_not_allowed_is_told_with_what_is() {
    for (text, told) in [
        (
            "method = 'quickest'",
            "2:10: method: 'quickest' is not allowed; weighted, priority, overflow, least-used, lowest-latency, enforced, persistence or fastest",
        ),
        ("on-failure = 'wait'", "2:14: on-failure: 'wait' is not allowed; next, block or default"),
        (
            "uplinks = ['a', 'a']",
            "2:17: uplinks: 'a' is not allowed; the name of an uplink, or a list of names",
        ),
        (
            "metod = 'weighted'",
            "2:1: metod: no such key here; did you mean `method`? allowed: match, name, method, uplinks, on-failure, failback, drain-time, same, idle, bad-lines",
        ),
        ("method = 'enforced'", "2:10: method: enforced needs exactly one name in uplinks"),
        (
            "method = 'enforced'\nuplinks = ['a', 'b']",
            "2:10: method: enforced needs exactly one name in uplinks",
        ),
        (
            "method = 'enforced'\nuplinks = 'a'\non-failure = 'next'",
            "4:14: on-failure: with method = \"enforced\" only block is allowed",
        ),
        ("failback = 'move'", "2:12: failback: 'move' is not allowed; keep, drain or force"),
        ("drain-time = '5m'", "2:14: drain-time: only allowed with failback = \"drain\""),
        ("idle = '5m'", "2:8: idle: only allowed with method = \"persistence\""),
        ("match.to = '/lists/none'", "2:12: to: /lists/none cannot be read: no such file"),
        ("match.to = ['10.0.0.1', '/lists/empty']", "2:25: to: /lists/empty holds no prefix"),
        ("match.user = ['alice', 'bob']", "2:24: user: this machine has no user bob"),
        ("match.unit = ['bob/x.service']", "2:15: unit: this machine has no user bob"),
        (
            "match.unit = ['nginx', 'system.slice']",
            "2:24: unit: 'system.slice' is not allowed; the name of a service, scope, socket, mount or swap unit like nginx.service, with the name or number of a user and a slash ahead of it where it is that user's own, or a list of them",
        ),
        (
            "match.slice = '1000-1999/app.slice'",
            "2:15: slice: '1000-1999/app.slice' is not allowed; the name of a slice like system.slice, with the name or number of a user and a slash ahead of it where it is that user's own, or a list of them",
        ),
        ("match.group = 'wheel'", "2:15: group: this machine has no group wheel"),
        (
            "match.ports = [1, 0]",
            "2:19: ports: 0 is not allowed; a port from 1 to 65535, a range like 5000-5100, or a list of them",
        ),
        (
            "match.ports = '9-5'",
            "2:15: ports: '9-5' is not allowed; a port from 1 to 65535, a range like 5000-5100, or a list of them",
        ),
        (
            "match.dscp = ['af44', 64]",
            "2:15: dscp: 'af44' is not allowed; ef, cs0 to cs7, af11 to af43, a number from 0 to 63, or a list of them",
        ),
        (
            "match.from = 'example.org'",
            "2:14: from: 'example.org' is not allowed; an address, a prefix like 192.0.2.0/24 or 2001:db8::/32, the absolute path of a file with one of these a line, or a list of such",
        ),
        (
            "match.form = '10.0.0.1'",
            "2:7: form: no such key here; did you mean `from`? allowed: from, to, domain, interface, protocol, ports, dscp, mac, user, group, unit, slice, time",
        ),
    ] {
        let text = if text.contains("match") { text.to_owned() } else { format!("{text}\nmatch.ports = 1") };
        assert_eq!(wrong(&text)[0], format!("x.toml:{told}"), "{text}");
    }
    let twice =
        read("[[policy]]\nname = 'a'\nmatch.ports = 1\n[[policy]]\nname = 'a'\nmatch.ports = 2\n", "");
    assert!(twice.unwrap_err()[0].starts_with("x.toml:5:8: name: a is taken at x.toml:1; each policy needs"));
    // Also with one that has its name from its place, whichever stands first.
    for (policies, place) in [
        (
            "[[policy]]\nmatch.ports = 1\n[[policy]]\nname = 'policy-1'\nmatch.ports = 2\n",
            "4:8: name: policy-1 is taken at x.toml:1;",
        ),
        (
            "[[policy]]\nname = 'policy-2'\nmatch.ports = 1\n[[policy]]\nmatch.ports = 2\n",
            "2:8: name: policy-2 is taken at x.toml:4;",
        ),
    ] {
        let told = read(policies, "").unwrap_err();
        assert!(told.len() == 1 && told[0].starts_with(&format!("x.toml:{place}")), "{told:?}");
    }
    assert_eq!(read("policy = 1", "").unwrap_err().len(), 1);
}

#[test]
fn a_bad_line_of_a_long_list_is_named_or_left_out() {
    let line = |n: usize| match n {
        70_001 => "192.0.2.O/24\n".to_owned(),
        n => format!("10.{}.{}.{}/32\n", n >> 16, n >> 8 & 255, n & 255),
    };
    let long: String = (1..=100_000).map(line).collect();
    let text = "[[policy]]\nmatch.to = '/lists/long'\n";
    assert_eq!(
        read(text, &long).unwrap_err(),
        ["/lists/long:70001:1: prefix: 192.0.2.O/24 is not allowed; an address or a prefix, one a line\n\
          70001 | 192.0.2.O/24\n      | ^^^^^^^^^^^^"]
    );
    let config = read(&format!("{text}bad-lines = 'skip'\n"), &long).unwrap();
    assert_eq!(config.policies[0].traffic.to.len(), 99_999);
    assert_eq!(
        config.policies[0].notes,
        ["/lists/long:70001: no address or prefix; 1 line of the list left out"]
    );
}
