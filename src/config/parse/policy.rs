//! From a `[[policy]]` to a [`Policy`].

use std::ops::Range;
use std::path::Path;

use ipnet::IpNet;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Document, Key, ReadPolicy};
use crate::config::Origin;
use crate::config::keys::Refusal;
use crate::config::policy::{
    Account, BESIDE_METHOD, Draft, Named, POLICY, Place, TRAFFIC, TrafficDraft, misplaced, net,
};
use crate::config::problem::{Flaw, Source};
use crate::config::settings::FailbackMode;
use crate::core::policy::{OnFailure, Policy, Stick, Traffic, Unit, Way};
use crate::core::text::counted;

impl Document<'_> {
    pub(super) fn policy(&mut self, value: &Spanned<DeValue>) {
        let DeValue::Table(table) = value.get_ref() else { return self.no_policy(value) };
        let flaws = self.flaws.len();
        let mut draft = Draft::default();
        for (key, value) in table.iter().filter(|(key, _)| key.get_ref() != "match") {
            match Key::find(&POLICY, key.get_ref()) {
                Some(known) => self.put(known, &mut draft, value),
                None => self.no_key(key, &[vec!["match"], Key::names(&POLICY)].concat()),
            }
        }
        let Some(matcher) = table.get("match") else {
            return self.flaw(value.span(), format!("match: missing; {}", Key::some_of(&TRAFFIC)));
        };
        self.agrees(&draft, table);
        let mut notes = Vec::new();
        let traffic = self.traffic(matcher, draft.skips_bad_lines, &mut notes);
        // One of which a part was refused would take more traffic than was meant.
        if self.flaws.len() > flaws {
            return;
        }
        let origin = Origin { file: self.source.path.clone(), line: self.source.line(value.span().start) };
        let way = match draft.way {
            Way::Persistence(usual) => Way::Persistence(Stick {
                to: draft.same.unwrap_or(usual.to),
                idle: draft.idle.unwrap_or(usual.idle),
            }),
            way => way,
        };
        let usual = if way == Way::Enforced { OnFailure::Block } else { OnFailure::Default };
        let name_at = table.get("name").map(Spanned::span);
        let policy = Policy {
            name: draft.name.map(|name| name.to_string()).unwrap_or_default(),
            origin: origin.to_string(),
            traffic,
            way,
            uplinks: draft.uplinks,
            on_failure: draft.on_failure.unwrap_or(usual),
            failback: draft.failback.map(|mode| mode.with(draft.drain_time)),
            notes,
        };
        self.policies.push(ReadPolicy { policy, name_at });
    }

    pub(super) fn no_policy(&mut self, value: &Spanned<DeValue>) {
        self.refuse("policy", value.span(), "sections that begin with [[policy]]");
    }

    /// What is right for itself, and not together.
    fn agrees(&mut self, draft: &Draft, table: &DeTable) {
        let mut refuse = |key: &str, message: String| {
            if let Some(value) = table.get(key) {
                self.flaws.push(Flaw { span: value.span(), message: format!("{key}: {message}") });
            }
        };
        if draft.way == Way::Enforced {
            if draft.uplinks.len() != 1 {
                refuse("method", "enforced needs exactly one name in uplinks".into());
            }
            if draft.on_failure.is_some_and(|word| word != OnFailure::Block) {
                refuse("on-failure", "with method = \"enforced\" only block is allowed".into());
            }
        }
        if draft.failback != Some(FailbackMode::Drain) {
            refuse("drain-time", "only allowed with failback = \"drain\"".into());
        }
        // One of them is for `[balance]` alone.
        for (key, method) in BESIDE_METHOD.into_iter().filter(|(key, _)| Key::find(&POLICY, key).is_some()) {
            if let Some(message) = misplaced(method, draft.way) {
                refuse(key, message);
            }
        }
    }

    fn traffic(&mut self, value: &Spanned<DeValue>, skips: bool, notes: &mut Vec<String>) -> Traffic {
        let flaws = self.flaws.len();
        let mut traffic = Traffic::default();
        let table = match value.get_ref() {
            DeValue::Table(table) if !table.is_empty() => table,
            _ => {
                self.refuse("match", value.span(), Key::some_of(&TRAFFIC));
                return traffic;
            }
        };
        let mut draft = TrafficDraft::default();
        for (key, value) in table {
            match Key::find(&TRAFFIC, key.get_ref()) {
                Some(known) => self.put(known, &mut draft, value),
                None => self.no_key(key, &Key::names(&TRAFFIC)),
            }
        }
        if self.flaws.len() > flaws {
            return traffic;
        }
        traffic.from = self.nets("from", draft.from, table, skips, notes);
        traffic.to = self.nets("to", draft.to, table, skips, notes);
        let outside = self.outside;
        traffic.user = self.accounts("user", draft.user, table, |name| outside.user(name));
        traffic.group = self.accounts("group", draft.group, table, |name| outside.group(name));
        traffic.unit = self.units("unit", draft.unit, table, Unit::new);
        traffic.slice = self.units("slice", draft.slice, table, Unit::slice);
        let TrafficDraft { domain, interface, protocol, ports, dscp, mac, time, .. } = draft;
        traffic = Traffic { domain, interface, protocol, ports, dscp, mac, time, ..traffic };
        if let Some(why) = traffic.contradiction().filter(|_| self.flaws.len() == flaws) {
            self.flaw(value.span(), format!("match: nothing can match: {why}"));
        }
        traffic
    }

    /// The prefixes that are written, and those of the files that are named.
    fn nets(
        &mut self,
        key: &'static str,
        places: Vec<Place>,
        table: &DeTable,
        skips: bool,
        notes: &mut Vec<String>,
    ) -> Vec<IpNet> {
        let mut nets = Vec::new();
        for (place, item) in places.into_iter().zip(items(table, key)) {
            let path = match place {
                Place::Net(net) => {
                    nets.push(net);
                    continue;
                }
                Place::File(path) => path,
            };
            let found = match self.outside.list(&path) {
                Ok(text) => self.list(&path, &text, skips, notes),
                Err(why) => {
                    self.flaw(item.span(), format!("{key}: {} cannot be read: {why}", path.display()));
                    continue;
                }
            };
            if found.is_empty() {
                // As a criterion it would match nothing, and as none of it everything.
                self.flaw(item.span(), format!("{key}: {} holds no prefix", path.display()));
            }
            nets.extend(found);
        }
        nets
    }

    /// The prefixes of a file: one a line, and what follows a `#` does not count.
    fn list(&mut self, path: &Path, text: &str, skips: bool, notes: &mut Vec<String>) -> Vec<IpNet> {
        let (nets, bad) = lines(text, net);
        let Some((first, _)) = bad.first() else { return nets };
        let source = Source::new(path, text);
        if skips {
            let (line, count) = (source.line(first.start), counted(bad.len(), "line"));
            notes.push(format!(
                "{}:{line}: no address or prefix; {count} of the list left out",
                path.display()
            ));
        } else {
            let flaw = |(span, word): (_, &str)| {
                let refusal = Refusal::value("prefix", word, "an address or a prefix, one a line");
                Flaw { span, message: refusal.to_string() }
            };
            self.elsewhere.extend(source.problems(bad.into_iter().map(flaw).collect()));
        }
        nets
    }

    /// The numbers of those that are named.
    fn accounts(
        &mut self,
        key: &'static str,
        accounts: Vec<Account>,
        table: &DeTable,
        number: impl Fn(&str) -> Option<u32>,
    ) -> Vec<(u32, u32)> {
        let mut numbers = Vec::new();
        for (account, item) in accounts.into_iter().zip(items(table, key)) {
            numbers.extend(self.account(key, key, account, item, &number));
        }
        numbers
    }

    /// The numbers of one; `what` is a user or a group.
    fn account(
        &mut self,
        key: &str,
        what: &str,
        account: Account,
        item: &Spanned<DeValue>,
        number: impl Fn(&str) -> Option<u32>,
    ) -> Option<(u32, u32)> {
        match account {
            Account::Numbers(from, to) => Some((from, to)),
            Account::Name(name) => {
                let one = number(&name);
                if one.is_none() {
                    self.flaw(item.span(), format!("{key}: this machine has no {what} {name}"));
                }
                one.map(|one| (one, one))
            }
        }
    }

    /// The units that are named, those of users by the users' numbers.
    fn units(
        &mut self,
        key: &'static str,
        named: Vec<Named>,
        table: &DeTable,
        kind: fn(Option<u32>, &str) -> Option<Unit>,
    ) -> Vec<Unit> {
        let outside = self.outside;
        let mut units = Vec::new();
        for (Named { user, name }, item) in named.into_iter().zip(items(table, key)) {
            let user = match user {
                Some(user) => match self.account(key, "user", user, item, |name| outside.user(name)) {
                    Some((number, _)) => Some(number),
                    None => continue,
                },
                None => None,
            };
            units.extend(kind(user, &name));
        }
        units
    }
}

/// Words with the bytes that they take.
type Placed<'t> = Vec<(Range<usize>, &'t str)>;

/// What the lines of a file say, and those that say nothing: one thing a line, and what follows a `#` does not count.
pub(super) fn lines<T>(text: &str, read: impl Fn(&str) -> Option<T>) -> (Vec<T>, Placed<'_>) {
    let (mut found, mut bad) = (Vec::new(), Vec::new());
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let said = line.split('#').next().unwrap_or_default();
        let word = said.trim();
        let at = start + (said.len() - said.trim_start().len());
        start += line.len();
        match read(word) {
            Some(one) => found.push(one),
            None if word.is_empty() => {}
            None => bad.push((at..at + word.len(), word)),
        }
    }
    (found, bad)
}

/// What stands behind a key, one by one.
fn items<'t, 's>(table: &'t DeTable<'s>, key: &str) -> &'t [Spanned<DeValue<'s>>] {
    match table.get(key) {
        Some(value) => match value.get_ref() {
            DeValue::Array(items) => items,
            _ => std::slice::from_ref(value),
        },
        None => &[],
    }
}

#[cfg(test)]
mod tests;
