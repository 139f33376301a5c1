//! Whether a text stays inside of the braces that are put around it, read as nft reads it (src/scanner.l of nftables).
//!
//! Refuses to know what nft makes of it: of its grammar only strings, comments, braces and where statements begin and end.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::CharIndices;

use crate::core::nft::Generation;

/// What was found in a text that stays inside.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Body {
    /// The variables that it uses, without their `$`.
    pub(super) asked: BTreeSet<String>,
    /// How often its chains are used at least, as [`Generation`] counts it.
    pub(super) uses: u32,
}

/// Why a text is no fragment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    /// The line, from 1.
    pub(super) line: usize,
    pub(super) message: String,
}

/// What can stand in a table (nft(8)). Not `flags`: a table that an owner or a dormant one has is none that stays in force.
const IN_A_TABLE: [&str; 14] = [
    "chain",
    "set",
    "map",
    "flowtable",
    "counter",
    "quota",
    "limit",
    "ct",
    "secmark",
    "synproxy",
    "comment",
    "define",
    "redefine",
    "undefine",
];

/// What begins a line of a chain that is no rule.
const NO_RULE: [&str; 8] =
    ["type", "policy", "comment", "flags", "devices", "define", "redefine", "undefine"];

/// Reads a text to its end, or to its first flaw.
pub(super) fn read(text: &str) -> Result<Body, Flaw> {
    let mut reader = Reader::default();
    for (line, token) in Tokens::new(text) {
        reader.take(line, token?).map_err(|message| Flaw { line, message })?;
    }
    match reader.open.first() {
        Some(&line) => Err(Flaw { line, message: "this { is never closed".to_owned() }),
        None => Ok(reader.body),
    }
}

/// How far a text has been read.
#[derive(Default)]
struct Reader {
    body: Body,
    /// The lines of the braces that are open.
    open: Vec<usize>,
    /// Whether a statement has begun, and is none that is a rule.
    first: Option<bool>,
    /// What stands in the table there.
    of: Of,
    /// The last token was a `$`.
    dollar: bool,
}

/// What something of a table is, as far as it matters here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Of {
    #[default]
    Nothing,
    Chain,
    Map,
}

impl Reader {
    fn take(&mut self, line: usize, token: Token) -> Result<(), String> {
        let dollar = std::mem::replace(&mut self.dollar, token == Token::Other('$'));
        match token {
            Token::Word("include") => {
                return Err("include: a fragment stands for itself; nothing else is read".to_owned());
            }
            Token::Word(word) if Generation::of_chain(word, 0).is_some() => {
                return Err(format!("{word}: such names are uplinkd's own"));
            }
            Token::Word(word) if dollar => drop(self.body.asked.insert(word.to_owned())),
            Token::Word(word) => {
                self.begin(word)?;
                let leads = word == "jump" || word == "goto";
                self.body.uses += u32::from(leads && self.of != Of::Nothing && self.first == Some(false));
            }
            Token::Other(_) => self.begin("")?,
            Token::Open => {
                self.begin("")?;
                self.open.push(line);
                if self.open.len() == 1 {
                    self.first = None;
                }
            }
            Token::Close => {
                self.end();
                if self.open.pop().is_none() {
                    return Err("this } has no { before it: it would end the table".to_owned());
                }
                if self.open.is_empty() {
                    self.first = None;
                }
            }
            Token::End => self.end(),
        }
        Ok(())
    }

    /// A word, or less, that may begin a statement.
    fn begin(&mut self, word: &str) -> Result<(), String> {
        if self.first.is_some() {
            return Ok(());
        }
        match self.open.len() {
            0 if !IN_A_TABLE.contains(&word) => {
                let what = if word.is_empty() { "this".to_owned() } else { word.to_owned() };
                return Err(format!(
                    "{what}: a fragment is what stands inside of a table, whose name and braces uplinkd writes; \
                     it begins with one of {}",
                    IN_A_TABLE.join(", ")
                ));
            }
            0 => {
                self.of = match word {
                    "chain" => Of::Chain,
                    "map" => Of::Map,
                    _ => Of::Nothing,
                }
            }
            _ => {}
        }
        self.first = Some(NO_RULE.contains(&word));
        Ok(())
    }

    /// The end of a statement; in braces within one it is only the end of a line.
    fn end(&mut self) {
        match self.open.len() {
            0 => self.first = None,
            1 => {
                let is_rule = self.first.take() == Some(false);
                self.body.uses += u32::from(is_rule && self.of == Of::Chain);
            }
            _ => {}
        }
    }
}

/// What a text is made of, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'t> {
    Word(&'t str),
    Open,
    Close,
    /// A semicolon, or the end of a line.
    End,
    /// Anything else; a string is a quotation mark.
    Other(char),
}

/// The tokens of a text with their lines.
struct Tokens<'t> {
    text: &'t str,
    rest: Peekable<CharIndices<'t>>,
    line: usize,
}

impl<'t> Tokens<'t> {
    fn new(text: &'t str) -> Self {
        Tokens { text, rest: text.char_indices().peekable(), line: 1 }
    }

    /// The rest of a word that began there.
    fn word(&mut self, start: usize) -> &'t str {
        let is_part = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
        while self.rest.next_if(|&(_, c)| is_part(c)).is_some() {}
        let end = self.rest.peek().map_or(self.text.len(), |&(at, _)| at);
        &self.text[start..end]
    }

    /// The rest of a string; nft lets one go over several lines, which is rather a quotation mark that was forgotten.
    fn string(&mut self) -> Result<Token<'t>, Flaw> {
        while let Some((_, c)) = self.rest.next_if(|&(_, c)| c != '\n') {
            if c == '"' {
                return Ok(Token::Other('"'));
            }
        }
        Err(Flaw { line: self.line, message: "this line has a \" without another".to_owned() })
    }
}

impl<'t> Iterator for Tokens<'t> {
    type Item = (usize, Result<Token<'t>, Flaw>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (at, c) = self.rest.next()?;
            let line = self.line;
            let token = match c {
                '\n' => {
                    self.line += 1;
                    Ok(Token::End)
                }
                // nft joins such lines.
                '\\' if self.rest.next_if(|&(_, c)| c == '\n').is_some() => {
                    self.line += 1;
                    continue;
                }
                '#' => {
                    while self.rest.next_if(|&(_, c)| c != '\n').is_some() {}
                    continue;
                }
                '\t' | ' ' | '\r' => continue,
                '"' => self.string(),
                '{' => Ok(Token::Open),
                '}' => Ok(Token::Close),
                ';' => Ok(Token::End),
                c if c.is_ascii_alphanumeric() || c == '_' || c == '.' => Ok(Token::Word(self.word(at))),
                c if c.is_control() => {
                    Err(Flaw { line, message: "a control character, which is no text".to_owned() })
                }
                c => Ok(Token::Other(c)),
            };
            return Some((line, token));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uses(text: &str) -> u32 {
        read(text).unwrap_or_else(|flaw| panic!("{text}: {flaw:?}")).uses
    }

    fn flaw(text: &str) -> (usize, String) {
        let Flaw { line, message } = read(text).expect_err(text);
        (line, message.split([':', ' ']).take(2).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn what_stays_inside_is_read_to_its_end() {
        let text = "# } comment\nchain a {\n type filter hook output priority 0; policy accept;\n\
            \tcounter comment \"} x\" # {\n tcp dport {\n 1,\n 2 } accept; jump \\\n b\n}\n\
            set s { type ipv4_addr; elements = { 192.0.2.1, 192.0.2.2 } }\nchain b { comment \"c\"; \
            ct mark & $mark_mask == $ mark_one counter; }; counter c { }\n";
        let body = read(text).unwrap();
        assert_eq!(body.uses, 4 + 1);
        assert_eq!(Vec::from_iter(body.asked), ["mark_mask", "mark_one"]);
        assert_eq!((uses(""), uses("\n# nothing\r\n"), uses("chain a { accept; }")), (0, 0, 1));
        assert_eq!(uses("map m { type mark : verdict\n elements = { 1 : jump a, 2 : goto a } }"), 2);
        assert_eq!(
            uses("define x = { 1 : jump a }\nchain a { define y = { 1 : jump a }\n accept # jump a\n }"),
            1
        );
    }

    #[test]
    fn nothing_leads_out_of_the_table() {
        for (text, expected) in [
            ("}\ntable inet foreign { }\n{", (1, "this }")),
            ("chain a {\n}\n}\nflush ruleset\n", (3, "this }")),
            ("chain a { }; } table inet foreign { chain b { }", (1, "this }")),
            ("chain a { # {\n} }", (2, "this }")),
            ("chain a { comment \"{\"; } }", (1, "this }")),
            ("chain a {\n accept\n", (1, "this {")),
            ("chain a {\n x \\# {\n}\n}\n", (4, "this }")),
            ("\nchain a { comment \"x\n}\n\" }", (2, "this line")),
            ("\n\nflush ruleset", (3, "flush ")),
            ("table inet mine { }", (1, "table ")),
            ("chain a { }\nadd rule inet x y accept", (2, "add ")),
            ("chain a { } delete table inet x", (1, "delete ")),
            ("flags dormant", (1, "flags ")),
            ("{ }", (1, "this ")),
            ("include \"/etc/x\"", (1, "include ")),
            ("chain a {\n include \"/etc/x\"\n}", (2, "include ")),
            ("chain generation_0123456789abcdef { }", (1, "generation_0123456789abcdef ")),
            ("chain a {\0}", (1, "a control")),
        ] {
            assert_eq!(flaw(text), (expected.0, expected.1.to_owned()), "{text:?}");
        }
    }
}
