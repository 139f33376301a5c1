//! What is wrong with a file, shown where it stands.
//!
//! Decides how a place is found and cited. Refuses to know what is right.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A file's text, in which places can be found.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) text: String,
    /// Where each line begins.
    lines: Vec<usize>,
}

/// Something wrong, and the bytes that are at fault.
#[derive(Debug, Clone)]
pub(super) struct Flaw {
    pub(super) span: Range<usize>,
    pub(super) message: String,
}

impl Source {
    pub(super) fn new(path: &Path, text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let lines = std::iter::once(0).chain(ends.map(|(end, _)| end + 1)).collect();
        Source { path: path.to_owned(), text: text.to_owned(), lines }
    }

    /// The line of a byte, from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.lines.partition_point(|start| *start <= offset)
    }

    /// `path:line:column` of a byte.
    pub(super) fn place(&self, offset: usize) -> String {
        let cited = self.cite(offset..offset);
        format!("{}:{}:{}", self.path.display(), cited.line, cited.column)
    }

    /// A flaw with its line.
    pub(super) fn problem(&self, flaw: Flaw) -> Problem {
        Problem { path: self.path.clone(), cited: Some(self.cite(flaw.span)), message: flaw.message }
    }

    /// Flaws in the order of the text, each with its line.
    ///
    /// Limited, because a megabyte of rubbish would otherwise fill the journal with itself.
    pub(super) fn problems(&self, mut flaws: Vec<Flaw>) -> Vec<Problem> {
        const SHOWN: usize = 20;
        flaws.sort_by_key(|flaw| flaw.span.start);
        let more = flaws.len().saturating_sub(SHOWN);
        let shown = flaws.into_iter().take(SHOWN).map(|flaw| self.problem(flaw));
        let rest = (more > 0).then(|| Problem::of_file(&self.path, format!("and {more} more like these")));
        shown.chain(rest).collect()
    }

    fn cite(&self, span: Range<usize>) -> Cited {
        /// What is shown of a long line: some of it ahead of the fault, and a screen's width in all.
        const AHEAD: usize = 60;
        const WIDTH: usize = 100;
        let number = self.line(span.start);
        let start = self.lines[number - 1];
        let line = self.text[start..].lines().next().unwrap_or_default();
        let chars_before = |end: usize| line.char_indices().take_while(|(at, _)| start + at < end).count();
        let (from, to) = (chars_before(span.start), chars_before(span.end));
        let cut = from.saturating_sub(AHEAD);
        // What would move the cursor or hide the rest is replaced one for one, so that the caret stays true.
        let shown = line.chars().skip(cut).take(WIDTH).enumerate().map(|(at, c)| match c {
            _ if at == 0 && cut > 0 => '…',
            '\t' => ' ',
            c if c.is_control() => char::REPLACEMENT_CHARACTER,
            c => c,
        });
        Cited {
            line: number,
            column: from + 1,
            text: shown.collect(),
            indent: from - cut,
            width: to.saturating_sub(from).clamp(1, WIDTH - AHEAD),
        }
    }
}

/// One thing that is wrong with the configuration.
///
/// Prints as `path:line:column: message`, the line, and carets under what is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    path: PathBuf,
    cited: Option<Cited>,
    message: String,
}

/// A piece of a line with something to point at.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cited {
    line: usize,
    column: usize,
    text: String,
    indent: usize,
    width: usize,
}

impl Problem {
    /// A problem with a file as a whole.
    pub(super) fn of_file(path: &Path, message: String) -> Self {
        Problem { path: path.to_owned(), cited: None, message }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { path, cited, message } = self;
        let path = path.display();
        let Some(Cited { line, column, text, indent, width }) = cited else {
            return write!(f, "{path}: {message}");
        };
        writeln!(f, "{path}:{line}:{column}: {message}")?;
        writeln!(f, "{line:>5} | {text}")?;
        write!(f, "      | {:indent$}{}", "", "^".repeat(*width))
    }
}

/// Everything that is wrong with the configuration: what cannot be read, then each file in its order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Problems(pub(super) Vec<Problem>);

impl Problems {
    /// Each problem for itself.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, span: Range<usize>) -> String {
        let flaw = Flaw { span, message: "wrong".to_owned() };
        Source::new(Path::new("x.toml"), text).problems(vec![flaw])[0].to_string()
    }

    #[test]
    fn the_caret_stands_under_the_fault() {
        assert_eq!(
            shown("a\r\n\tb = öö \u{1b}5\r\n", 8..12),
            "x.toml:2:6: wrong\n    2 |  b = öö \u{fffd}5\n      |      ^^"
        );
        assert_eq!(shown("a =\n", 4..4), "x.toml:2:1: wrong\n    2 | \n      | ^");
        assert_eq!(shown("", 0..0), "x.toml:1:1: wrong\n    1 | \n      | ^");
        assert_eq!(shown("a = '''x\ny'''", 4..13), "x.toml:1:5: wrong\n    1 | a = '''x\n      |     ^^^^");
    }

    #[test]
    fn of_a_long_line_a_part_is_shown() {
        let text = format!("{}BAD{}", "x".repeat(5000), "y".repeat(5000));
        let cited = format!("…{}BAD{}", "x".repeat(59), "y".repeat(37));
        let caret = format!("{}^^^", " ".repeat(60));
        assert_eq!(
            shown(&text, 5000..5003),
            format!("x.toml:1:5001: wrong\n    1 | {cited}\n      | {caret}")
        );
    }

    #[test]
    fn rubbish_is_counted_not_shown() {
        let source = Source::new(Path::new("x.toml"), &"\n".repeat(100));
        let flaws = (0..100).rev().map(|at| Flaw { span: at..at, message: format!("flaw {at}") }).collect();
        let problems = source.problems(flaws);
        assert_eq!(problems.len(), 21);
        assert!(problems[0].to_string().starts_with("x.toml:1:1: flaw 0\n"));
        assert_eq!(problems[20].to_string(), "x.toml: and 80 more like these");
    }
}
