//! The syntax of systemd's files (systemd.syntax(7)).
//!
//! Decides what is a line, a section, a setting and a truth, as systemd does (`config_parse` in src/shared/conf-parser.c).
//! Refuses to know what any setting means, and which of several counts.

/// A setting, as it stands in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The section that it stands in; empty ahead of the first.
    pub section: String,
    /// Its name.
    pub key: String,
    /// What stands behind the `=`.
    pub value: String,
}

/// The settings of a file, in their order. What is neither one nor the head of a section is no line at all.
pub fn settings(text: &str) -> Vec<Setting> {
    let mut found = Vec::new();
    let mut section = String::new();
    for line in lines(text) {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.to_owned();
        } else if let Some((key, value)) = line.split_once('=') {
            let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
            found.push(Setting { section: section.clone(), key, value });
        }
    }
    found
}

/// As `parse_boolean` has it (src/basic/parse-util.c); none for what is neither.
pub fn boolean(value: &str) -> Option<bool> {
    let is_in = |words: &[&str]| words.iter().any(|word| value.eq_ignore_ascii_case(word));
    if is_in(&["1", "yes", "y", "true", "t", "on"]) {
        Some(true)
    } else if is_in(&["0", "no", "n", "false", "f", "off"]) {
        Some(false)
    } else {
        None
    }
}

/// Lines without comments; those that end with a backslash go on in the next, past comments.
fn lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut begun = String::new();
    for line in text.lines().map(str::trim_start).filter(|line| !line.starts_with(['#', ';'])) {
        begun += line;
        // An even number of them stands for themselves.
        let backslashes = begun.len() - begun.trim_end_matches('\\').len();
        if backslashes % 2 == 1 {
            begun.pop();
            begun.push(' ');
        } else {
            lines.push(std::mem::take(&mut begun));
        }
    }
    lines.push(begun);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each setting as `section.key=value`.
    fn said(text: &str) -> Vec<String> {
        let one = |Setting { section, key, value }: &Setting| format!("{section}.{key}={value}");
        settings(text).iter().map(one).collect()
    }

    #[test]
    fn a_setting_knows_its_section() {
        let text =
            "early=1\n[A]\n# a = comment\n  ; another = one\n x = y = z \r\nno equals sign\n[B ]\nx=\n";
        assert_eq!(said(text), [".early=1", "A.x=y = z", "B .x="]);
        assert_eq!(said("\0\u{fffd}[[]]\n=\n[\n]\n\\\n"), [".="]);
    }

    #[test]
    fn long_lines_go_on_past_comments_but_not_past_an_empty_line() {
        assert_eq!(said("a=1;\\\n# in between\n   2\\"), [".a=1; 2"]);
        assert_eq!(said("a= \\\n; a comment\n  1\nb=2"), [".a=1", ".b=2"]);
        assert_eq!(said("a=1\\\n\nb=2"), [".a=1", ".b=2"]);
    }

    #[test]
    fn a_backslash_may_stand_for_itself() {
        assert_eq!(said("a=1\\\\\nb=2"), [".a=1\\\\", ".b=2"]);
        assert_eq!(said("a=1\\\\\\\nb=2"), [".a=1\\\\ b=2"]);
    }

    #[test]
    fn truths_have_many_words() {
        for (word, is) in [("Yes", Some(true)), ("t", Some(true)), ("OFF", Some(false)), ("0", Some(false))] {
            assert_eq!(boolean(word), is, "{word}");
        }
        assert_eq!((boolean(""), boolean("both")), (None, None));
    }
}
