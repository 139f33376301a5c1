//! From texts to a [`Config`], or to everything that is wrong with them.
//!
//! The document is walked by hand, because serde stops at the first problem. Refuses to know where texts come from.

mod forward;
mod policy;
mod routes;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::keys::{Key, Kind, Refusal, Value};
use super::matcher::Matcher;
use super::policy::{BESIDE_METHOD, Nothing, Outside, misplaced};
use super::problem::{Flaw, Problem, Problems, Source};
use super::settings::{NO_DAY, Settings};
use super::table::{CRITERIA, GLOBALS, SECTIONS, SETTINGS};
use super::{Config, Group, Origin, Section};
use crate::core::policy::{Policy, Prefixes};

/// Reads one text as if it were the only file.
pub fn parse(file: &Path, text: &str) -> Result<Config, Problems> {
    resolve(&[Source::new(file, text)], Vec::new(), &Nothing)
}

/// Reads all files together; `problems` are those that reading them had already.
pub(super) fn resolve(
    sources: &[Source],
    mut problems: Vec<Problem>,
    outside: &dyn Outside,
) -> Result<Config, Problems> {
    let mut documents: Vec<Document> = sources.iter().map(|source| Document::read(source, outside)).collect();
    name_policies(&mut documents);
    let misfits = shared_names(&documents).into_iter().chain(shared_policy_names(&documents));
    for (file, flaw) in misfits.chain(forward::overlapping(&documents)) {
        documents[file].flaws.push(flaw);
    }
    let mut config = Config::default();
    let mut method_at = None;
    let mut beside_method = Vec::new();
    for document in documents {
        let Document {
            source,
            globals,
            sections,
            forwards,
            groups,
            policies,
            flaws,
            elsewhere,
            notes,
            method_at: at,
            beside_method: beside,
            ..
        } = document;
        method_at = at.map(|at| (source, at)).or(method_at);
        beside_method.extend(beside.into_iter().map(|(key, method, at)| (source, key, method, at)));
        config.notes.extend(notes);
        problems.extend(source.problems(flaws));
        problems.extend(elsewhere);
        for (key, value) in &globals {
            // What it does not allow was told above.
            key.put(&mut config, value);
        }
        config.uplinks.extend(sections.into_iter().map(|read| read.section));
        config.groups.extend(groups);
        config.forwards.extend(forwards.into_iter().map(|read| read.forward));
        config.policies.extend(policies.into_iter().map(|read| read.policy));
    }
    // The method may stand in another file.
    for (source, key, method, span) in beside_method {
        if let Some(message) = misplaced(method, config.balance.way) {
            problems.push(source.problem(Flaw { span, message: format!("{key}: {message}") }));
        }
    }
    if let Some((source, at)) = method_at {
        let origin = Origin { file: source.path.clone(), line: source.line(at.start) };
        match config.balance.policy(&origin) {
            Ok(policy) => config.policies.extend(policy),
            Err(message) => problems.push(source.problem(Flaw { span: at, message: message.to_owned() })),
        }
    }
    config.prefixes = Prefixes::of(&config.policies);
    if problems.is_empty() { Ok(config) } else { Err(Problems(problems)) }
}

/// Names that two policies would have: of each two the later that says it is told.
fn shared_policy_names(documents: &[Document]) -> Vec<(usize, Flaw)> {
    let all = || documents.iter().enumerate().flat_map(|(file, d)| d.policies.iter().map(move |p| (file, p)));
    let mut flaws = Vec::new();
    for (place, (file, one)) in all().enumerate() {
        let same = |(other, (_, read)): &(usize, (usize, &ReadPolicy))| {
            let yields = *other < place || read.name_at.is_none();
            *other != place && yields && read.policy.name == one.policy.name
        };
        let (Some(at), Some((_, (_, first)))) = (&one.name_at, all().enumerate().find(same)) else {
            continue;
        };
        let (name, origin) = (&one.policy.name, &first.policy.origin);
        let message = format!("name: {name} is taken at {origin}; each policy needs a name of its own");
        flaws.push((file, Flaw { span: at.clone(), message }));
    }
    flaws
}

/// Those without a name are called by their place.
fn name_policies(documents: &mut [Document]) {
    let policies = documents.iter_mut().flat_map(|document| &mut document.policies);
    for (place, read) in policies.enumerate().filter(|(_, read)| read.name_at.is_none()) {
        read.policy.name = format!("policy-{}", place + 1);
    }
}

/// Names that two links would have.
///
/// Two sections with the same match speak of the same links: the later renames them, and only its name counts.
fn shared_names(documents: &[Document]) -> Vec<(usize, Flaw)> {
    let sections = documents.iter().enumerate().flat_map(|(file, document)| {
        document.sections.iter().map(move |read| (file, &read.section, read.name_at.clone()))
    });
    let named: Vec<_> = sections
        .filter_map(|(file, section, at)| {
            Some((file, &section.matcher, section.settings.name.as_ref()?, at?))
        })
        .collect();
    let last: HashMap<&Matcher, usize> =
        named.iter().enumerate().map(|(index, (_, matcher, ..))| (*matcher, index)).collect();

    let mut flaws = Vec::new();
    let mut taken = HashMap::new();
    for (index, (file, matcher, name, at)) in named.iter().enumerate() {
        if last[matcher] != index {
            continue;
        }
        match taken.entry(*name) {
            Entry::Vacant(free) => {
                free.insert((&documents[*file], at.start));
            }
            Entry::Occupied(first) => {
                let (document, start) = first.get();
                let place = document.source.place(*start);
                let message =
                    format!("name: {name} is taken at {place}; each uplink needs a name of its own");
                flaws.push((*file, Flaw { span: at.clone(), message }));
            }
        }
    }
    flaws
}

/// What one file says.
struct Document<'s> {
    source: &'s Source,
    /// What holds for all, to be put over what earlier files say.
    globals: Vec<(&'static Key<Config>, Value)>,
    sections: Vec<Read>,
    forwards: Vec<forward::Read>,
    groups: Vec<Group>,
    policies: Vec<ReadPolicy>,
    flaws: Vec<Flaw>,
    /// What is wrong with files that it names.
    elsewhere: Vec<Problem>,
    /// What is wrong there, and does not count.
    notes: Vec<String>,
    /// Where `[balance]` says how.
    method_at: Option<Range<usize>>,
    /// What it says that goes with one method alone, with that, and where.
    beside_method: Vec<(&'static str, &'static str, Range<usize>)>,
    outside: &'s dyn Outside,
}

/// A section, and where its name stands if it gives one: names are compared when all files are read.
struct Read {
    section: Section,
    name_at: Option<Range<usize>>,
}

/// A policy, likewise.
struct ReadPolicy {
    policy: Policy,
    name_at: Option<Range<usize>>,
}

impl<'s> Document<'s> {
    fn read(source: &'s Source, outside: &'s dyn Outside) -> Self {
        let (root, errors) = DeTable::parse_recoverable(&source.text);
        let mut document = Document {
            source,
            globals: Vec::new(),
            sections: Vec::new(),
            forwards: Vec::new(),
            groups: Vec::new(),
            policies: Vec::new(),
            flaws: Vec::new(),
            elsewhere: Vec::new(),
            notes: Vec::new(),
            method_at: None,
            beside_method: Vec::new(),
            outside,
        };
        if errors.is_empty() {
            document.root(root.get_ref());
        } else {
            document.syntax(errors);
        }
        document
    }

    /// What is not TOML has no meaning to judge. One error a line is told: the others follow from it.
    fn syntax(&mut self, errors: Vec<toml::de::Error>) {
        for error in errors {
            let span = error.span().unwrap_or_default();
            let bare_word = ["invalid boolean", "string values must be quoted"];
            let message = match error.message() {
                // For `fiber` the parser expects `false`, and for `yes` a text, which would then be refused.
                other if !span.is_empty() && bare_word.iter().any(|start| other.starts_with(start)) => {
                    "neither true nor false, and texts stand in quotes"
                }
                other => other,
            };
            self.flaw(span, message.to_owned());
        }
        self.flaws.sort_by_key(|flaw| flaw.span.start);
        self.flaws.dedup_by_key(|flaw| self.source.line(flaw.span.start));
    }

    fn root(&mut self, root: &DeTable<'s>) {
        for (key, value) in root {
            let name = key.get_ref().as_ref();
            let section = SECTIONS.into_iter().find(|(section, _)| *section == name);
            match (name, section, value.get_ref()) {
                ("uplink", _, DeValue::Array(items)) => items.iter().for_each(|item| self.uplink(item)),
                ("forward", _, DeValue::Array(items)) => items.iter().for_each(|item| self.forward(item)),
                ("group", _, DeValue::Array(items)) => items.iter().for_each(|item| self.group(item)),
                ("policy", _, DeValue::Array(items)) => items.iter().for_each(|item| self.policy(item)),
                ("uplink", ..) => self.no_section(value.span()),
                ("forward", ..) => self.not_several("forward", value.span()),
                ("group", ..) => self.not_several("group", value.span()),
                ("policy", ..) => self.no_policy(value),
                (_, Some((_, keys)), DeValue::Table(table)) => {
                    table.iter().for_each(|(key, value)| self.global(keys, key, value, &[]));
                    if name == "balance" {
                        self.balance(table);
                    }
                }
                (_, Some((section, _)), _) => {
                    self.refuse(section, value.span(), "a section with that name in [ ]")
                }
                (_, None, _) => {
                    let mut sections = vec!["forward", "group", "policy", "uplink"];
                    sections.extend(SECTIONS.iter().map(|(name, _)| *name));
                    sections.sort_unstable();
                    self.global(&GLOBALS, key, value, &sections);
                }
            }
        }
    }

    /// What holds for all uplinks: a key ahead of all sections, or in one of its own; `others` may stand beside it.
    fn global(
        &mut self,
        keys: &'static [Key<Config>],
        key: &Spanned<DeString>,
        value: &Spanned<DeValue>,
        others: &[&'static str],
    ) {
        let Some(global) = Key::find(keys, key.get_ref()) else {
            return self.no_key(key, &[Key::names(keys), others.to_vec()].concat());
        };
        self.put(global, &mut Config::default(), value);
        self.globals.extend(joined(value.get_ref()).map(|value| (global, value)));
    }

    /// Notes where that stands which is right or wrong only with what all files say.
    fn balance(&mut self, table: &DeTable) {
        self.method_at = table.get("method").map(Spanned::span);
        let stands = |(key, method)| Some((key, method, table.get(key)?.span()));
        self.beside_method = BESIDE_METHOD.into_iter().filter_map(stands).collect();
    }

    fn uplink(&mut self, value: &Spanned<DeValue>) {
        let DeValue::Table(table) = value.get_ref() else { return self.no_section(value.span()) };
        let mut settings = Settings::default();
        for (key, value) in table.iter().filter(|(key, _)| key.get_ref() != "match") {
            match Key::find(&SETTINGS, key.get_ref()) {
                Some(setting) => self.put(setting, &mut settings, value),
                None => self.no_key(key, &[vec!["match"], Key::names(&SETTINGS)].concat()),
            }
        }
        settings.routes = settings.routes.map(|leads| self.routes(leads));
        if let Some(quota) = table.get("quota").filter(|_| !table.contains_key("quota-day")) {
            self.flaw(quota.span(), NO_DAY.to_owned());
        }
        let Some(matcher) = table.get("match") else {
            return self.flaw(value.span(), format!("match: missing; {}", Key::some_of(&CRITERIA)));
        };
        if let Some(matcher) = self.matcher(matcher) {
            let origin =
                Origin { file: self.source.path.clone(), line: self.source.line(value.span().start) };
            let name_at = table.get("name").map(Spanned::span);
            self.sections.push(Read { section: Section { matcher, settings, origin }, name_at });
        }
    }

    fn matcher(&mut self, value: &Spanned<DeValue>) -> Option<Matcher> {
        let flaws = self.flaws.len();
        let mut matcher = Matcher::default();
        match value.get_ref() {
            DeValue::Table(table) if !table.is_empty() => {
                for (key, value) in table {
                    match Key::find(&CRITERIA, key.get_ref()) {
                        Some(criterion) => self.put(criterion, &mut matcher, value),
                        None => self.no_key(key, &Key::names(&CRITERIA)),
                    }
                }
            }
            _ => self.refuse("match", value.span(), Key::some_of(&CRITERIA)),
        }
        // A match of which a part was refused would mean more links than were meant.
        (self.flaws.len() == flaws).then_some(matcher)
    }

    fn put<T: Default>(&mut self, key: &Key<T>, to: &mut T, value: &Spanned<DeValue>) {
        let items = match value.get_ref() {
            DeValue::Array(items) if matches!(key.kind, Kind::Texts | Kind::Several) && !items.is_empty() => {
                items
            }
            _ => std::slice::from_ref(value),
        };
        for item in items {
            if plain(item.get_ref()).is_some_and(|plain| key.put(to, &plain)) {
                continue;
            }
            let culprit = item.get_ref().as_str().and_then(|text| key.culprit(text));
            let refusal = key.refusal(culprit.unwrap_or(self.written(item.span())));
            self.flaw(item.span(), format!("{refusal}{}", quotes(key.kind, item.get_ref())));
        }
    }

    fn no_section(&mut self, span: Range<usize>) {
        self.refuse("uplink", span, "sections that begin with [[uplink]]");
    }

    fn no_key(&mut self, key: &Spanned<DeString>, allowed: &[&'static str]) {
        self.flaw(key.span(), Refusal::key(key.get_ref(), allowed).to_string());
    }

    fn refuse(&mut self, key: &'static str, span: Range<usize>, allowed: impl Into<String>) {
        let refusal = Refusal::value(key, self.written(span.clone()), allowed);
        self.flaw(span, refusal.to_string());
    }

    fn written(&self, span: Range<usize>) -> &'s str {
        self.source.text.get(span).unwrap_or_default()
    }

    fn flaw(&mut self, span: Range<usize>, message: String) {
        self.flaws.push(Flaw { span, message });
    }
}

/// A value that a key can judge; none for the kinds that no key takes.
fn plain(value: &DeValue) -> Option<Value> {
    match value {
        DeValue::String(text) => Some(Value::Text(text.to_string())),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(Value::Number)
        }
        DeValue::Boolean(flag) => Some(Value::Flag(*flag)),
        _ => None,
    }
}

/// A value that a key can judge as a whole; a list of texts with `;` between them, as it is written outside of TOML.
fn joined(value: &DeValue) -> Option<Value> {
    match value {
        DeValue::Array(items) => {
            let texts: Option<Vec<&str>> = items.iter().map(|item| item.get_ref().as_str()).collect();
            texts.map(|texts| Value::Text(texts.join(";")))
        }
        value => plain(value),
    }
}

/// What is also said where a value may be right but for its quotes.
fn quotes(kind: Kind, value: &DeValue) -> &'static str {
    let text = matches!(kind, Kind::Text | Kind::Texts);
    match value {
        _ if matches!(kind, Kind::Mixed | Kind::Several) => "",
        DeValue::String(_) if !text => " (without quotes)",
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) if text => {
            " (in quotes)"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests;
