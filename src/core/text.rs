//! Texts of unknown origin made fit for a terminal and a line of a log.

/// A text of unknown origin, fit for a terminal and a line of a log: at most 80 characters, none that [`disturbs`].
pub fn harmless(text: &str) -> String {
    const WIDTH: usize = 80;
    let mut kept = text.trim().chars().filter(|c| !disturbs(*c));
    let mut short: String = kept.by_ref().take(WIDTH).collect();
    if kept.next().is_some() {
        short.pop();
        short.push('…');
    }
    short
}

/// Whether a character controls the terminal, ends the line, cannot be seen or reorders what follows it (the
/// bidirectional controls of Unicode Standard Annex 9).
pub fn disturbs(c: char) -> bool {
    let unseen =
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    c.is_control() || c == '\u{61c}' || unseen
}

/// A text in which nothing ends the line, after which `plan --full | sh` would run what follows, or disturbs a terminal.
pub fn on_one_line(text: &str) -> String {
    text.chars().map(|c| if disturbs(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// So many of a thing: "1 change", "2 changes".
pub fn counted(count: usize, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{plural}")
}

/// The [`hash`] of no text at all.
pub const HASH_OF_NOTHING: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a (RFC draft-eastlake-fnv): stable over versions of the compiler, which std's hasher is not.
pub fn hash(text: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    text.bytes().fold(HASH_OF_NOTHING, step)
}
