//! Reads `[[forward]]` and `[[group]]`, and finds forwards that are in each other's way.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Document, Flaw, Origin};
use crate::config::forward::{Draft, FORWARD, Forward};
use crate::config::group::{self, GROUP};
use crate::config::keys::Key;

/// A forward, and where its port stands.
pub(super) struct Read {
    pub(super) forward: Forward,
    at: Range<usize>,
}

impl<'s> Document<'s> {
    pub(super) fn forward(&mut self, value: &Spanned<DeValue<'s>>) {
        let flaws = self.flaws.len();
        let Some((draft, table)) = self.several("forward", &FORWARD, value) else { return };
        let draft: Draft = draft;
        // What was refused is not missing as well.
        for key in draft.missing().filter(|key| table.get(key.name).is_none()) {
            self.flaw(value.span(), format!("{}: missing; {}", key.name, key.allowed));
        }
        let at = table.get("port").map_or(value.span(), Spanned::span);
        if let Some(misfit) = draft.what().and_then(|what| what.misfit()) {
            self.flaw(table.get("to").map_or(at.clone(), Spanned::span), format!("to: {misfit}"));
        }
        let sound = self.flaws.len() == flaws;
        let forward = draft.at(self.origin(value)).filter(|_| sound);
        self.forwards.extend(forward.map(|forward| Read { forward, at }));
    }

    pub(super) fn group(&mut self, value: &Spanned<DeValue<'s>>) {
        let flaws = self.flaws.len();
        let Some((draft, table)) = self.several("group", &GROUP, value) else { return };
        if table.get("members").is_none() {
            self.flaw(value.span(), format!("members: missing; {}", GROUP[0].allowed));
        }
        let sound = self.flaws.len() == flaws;
        let draft: group::Draft = draft;
        self.groups.extend(draft.at(self.origin(value)).filter(|_| sound));
    }

    /// What the keys of a section say that can stand several times.
    fn several<'v, T: Default>(
        &mut self,
        name: &'static str,
        keys: &'static [Key<T>],
        value: &'v Spanned<DeValue<'s>>,
    ) -> Option<(T, &'v DeTable<'s>)> {
        let DeValue::Table(table) = value.get_ref() else {
            self.not_several(name, value.span());
            return None;
        };
        let mut draft = T::default();
        for (key, value) in table {
            match Key::find(keys, key.get_ref()) {
                Some(known) => self.put(known, &mut draft, value),
                None => self.no_key(key, &Key::names(keys)),
            }
        }
        Some((draft, table))
    }

    pub(super) fn not_several(&mut self, name: &'static str, span: Range<usize>) {
        let allowed = match name {
            "forward" => "sections that begin with [[forward]]",
            _ => "sections that begin with [[group]]",
        };
        self.refuse(name, span, allowed);
    }

    fn origin(&self, value: &Spanned<DeValue>) -> Origin {
        Origin { file: self.source.path.clone(), line: self.source.line(value.span().start) }
    }
}

/// Forwards of which an earlier one, of whichever file, would take some of the packets.
pub(super) fn overlapping(documents: &[Document]) -> Vec<(usize, Flaw)> {
    let all = documents.iter().enumerate();
    let all: Vec<_> =
        all.flat_map(|(file, document)| document.forwards.iter().map(move |read| (file, read))).collect();
    let clash = |(index, (file, read)): (usize, &(usize, &Read))| {
        let (_, first) = all[..index].iter().find(|(_, earlier)| earlier.forward.overlaps(&read.forward))?;
        let Forward { what, origin, .. } = &first.forward;
        let message = format!("port: {} overlaps with {what} at {origin}", read.forward.what);
        Some((*file, Flaw { span: read.at.clone(), message }))
    };
    all.iter().enumerate().filter_map(clash).collect()
}
