//! Tables of the administrator's own: what stands inside of one is written in a file, we write the table around it.
//!
//! A fragment cannot leave its table: [`body`] sees to that before nft sees anything of it. Whether nft takes what stands
//! there, nft alone knows; what it says is told with the file's own lines.

mod body;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};

use super::{Generation, POLICY_TABLE, mark_of};
use crate::core::layout::{MARK_MASK, Slot};
use crate::core::text::hash;

/// What the names of fragments' tables begin with.
const BEGINNING: &str = "uplinkd_";

/// Tables with such a name that are not from files.
const RESERVED: [&str; 1] = [POLICY_TABLE];

/// The name of a fragment: that of its file, without its ending.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FragmentName(String);

impl FragmentName {
    /// What is allowed, for messages.
    pub const ALLOWED: &str = "a file is called NAME.nft, NAME being 1 to 32 of A-Z a-z 0-9 _ -, and not policy, which is uplinkd's own";

    /// Accepts what nft and a shell take for a word; two names of one folder are never one table.
    pub fn new(name: &str) -> Option<Self> {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let good = (1..=32).contains(&name.len()) && name.chars().all(fits);
        let name = FragmentName(name.to_owned());
        (good && !RESERVED.contains(&name.table().as_str())).then_some(name)
    }

    /// The name of its table, family `inet`.
    pub fn table(&self) -> String {
        format!("{BEGINNING}{}", self.0)
    }

    /// The fragment whose table may have this name.
    pub fn of_table(table: &str) -> Option<Self> {
        FragmentName::new(table.strip_prefix(BEGINNING)?)
    }
}

/// Every fragment that there is a file of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fragments {
    /// Each by its name; with what is wrong with it where it cannot be used.
    pub files: BTreeMap<FragmentName, Result<Fragment, String>>,
    /// Files whose names do not fit, in words for the status.
    pub strays: Vec<String>,
    /// Why nobody knows which files there are.
    pub unread: Option<String>,
}

impl Fragments {
    /// Those that can be shown to nft.
    pub fn good(&self) -> impl Iterator<Item = &Fragment> {
        self.files.values().filter_map(|file| file.as_ref().ok())
    }

    /// What is wrong without asking nft.
    pub fn problems(&self) -> impl Iterator<Item = &String> {
        let broken = self.files.values().filter_map(|file| file.as_ref().err());
        self.unread.iter().chain(&self.strays).chain(broken)
    }
}

/// What a file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    name: FragmentName,
    /// Where it is, for messages.
    file: String,
    text: String,
    hash: u64,
    /// The variables that it asks for.
    asked: BTreeSet<String>,
    /// How often its chains are used at least.
    uses: u32,
}

impl Fragment {
    /// Accepts a text that stays inside of its table, whatever nft makes of it; else says where it does not.
    pub fn read(name: FragmentName, file: &str, text: &str) -> Result<Self, String> {
        let body = body::read(text).map_err(|flaw| format!("{file}:{}: {}", flaw.line, flaw.message))?;
        Ok(Fragment {
            name,
            file: file.to_owned(),
            text: text.to_owned(),
            hash: hash(text),
            asked: body.asked,
            uses: body.uses,
        })
    }

    /// Its name.
    pub fn name(&self) -> &FragmentName {
        &self.name
    }

    /// The table that it makes on this machine.
    pub fn table(&self, defines: &Defines) -> FragmentTable {
        // Only those that it asks for, so that nothing else has it loaded anew, with counters at zero.
        let asked = |(name, _): &(&String, &String)| self.asked.contains(*name);
        let defines: String = (defines.0.iter().filter(asked))
            .map(|(name, value)| format!("define {name} = {value}\n"))
            .collect();
        let known = hash(&format!("{:016x}\n{defines}", self.hash));
        FragmentTable {
            name: self.name.clone(),
            file: self.file.clone(),
            generation: Generation { hash: known, uses: self.uses },
            defines,
            text: self.text.clone(),
        }
    }
}

/// The variables that fragments can use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Defines(BTreeMap<String, String>);

impl Defines {
    /// Tells of uplinks: what they are called, their slot and where they are, or were last seen; and which interfaces
    /// lead out now.
    pub fn new<'a>(
        uplinks: impl IntoIterator<Item = (&'a str, Slot, &'a str)>,
        interfaces: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let mut all = BTreeMap::from([("mark_mask".to_owned(), format!("{MARK_MASK:#010x}"))]);
        for (name, slot, interface) in uplinks {
            all.insert(format!("mark_{name}"), mark_of(slot));
            all.insert(format!("interface_{name}"), format!("\"{interface}\""));
        }
        let quoted: BTreeSet<String> = interfaces.into_iter().map(|name| format!("\"{name}\"")).collect();
        if !quoted.is_empty() {
            all.insert("interfaces".to_owned(), format!("{{ {} }}", Vec::from_iter(quoted).join(", ")));
        }
        Defines(all)
    }
}

/// A fragment with the table around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FragmentTable {
    name: FragmentName,
    file: String,
    generation: Generation,
    defines: String,
    text: String,
}

impl FragmentTable {
    /// The fragment's name.
    pub fn name(&self) -> &FragmentName {
        &self.name
    }

    /// Where it is written.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Which generation this is.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The text for `nft -f -`; `over` one of ours that is loaded. Without, it fails where somebody has a table of that
    /// name.
    pub fn text(&self, over: bool) -> String {
        format!("{}{}\n}}\n", self.beginning(over), self.text)
    }

    /// What stands ahead of the file's first line.
    fn beginning(&self, over: bool) -> String {
        let (verb, table) = (if over { "delete" } else { "create" }, self.name.table());
        let mut text = format!("{verb} table inet {table}\n{}", self.defines);
        let _ = write!(text, "table inet {table} {{\n\tchain {} {{\n\t}}\n", self.generation.chain());
        text
    }

    /// What nft says of the text, on one line, with the places in the file that are meant.
    pub fn complaint(&self, said: &str) -> String {
        let ahead = self.beginning(false).lines().count();
        let places: Vec<(usize, &str)> = said.lines().filter_map(place).collect();
        let Some((line, message)) = places.first() else {
            return format!("{}: {}", self.file, said.lines().next().unwrap_or("nft refused it"));
        };
        let more = match places.len() - 1 {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        match line.checked_sub(ahead).filter(|line| *line > 0) {
            Some(line) => {
                // What is missing at the end is noticed behind it.
                let line = line.min(self.text.lines().count().max(1));
                format!("{}:{line}:{message}{more}", self.file)
            }
            None if message.ends_with("File exists") => {
                let table = self.name.table();
                format!("{}: somebody else has a table inet {table}, which is left alone", self.file)
            }
            None => format!("{}: nft says: {}{more}", self.file, message.trim_start()),
        }
    }
}

/// The line of our text, and what follows it: `/dev/stdin:7:12-14: Error: …`.
fn place(line: &str) -> Option<(usize, &str)> {
    let (number, rest) = line.strip_prefix("/dev/stdin:")?.split_once(':')?;
    Some((number.parse().ok()?, rest))
}

impl fmt::Display for FragmentTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "table inet {} of {}, generation {}", self.name.table(), self.file, self.generation)
    }
}

#[cfg(test)]
mod tests;
