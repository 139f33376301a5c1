//! What the demo prints, for people.

use std::io::IsTerminal as _;
use std::time::Duration;

use crate::kit::Machine;

/// How many columns a bar of everything has.
const BAR: usize = 50;

/// The one who talks, and who counts what did not go as told.
pub(crate) struct Show {
    bold: bool,
    wrong: usize,
}

impl Show {
    pub(crate) fn new() -> Show {
        Show { bold: std::io::stdout().is_terminal(), wrong: 0 }
    }

    /// How many things did not go as told.
    pub(crate) fn wrong(&self) -> usize {
        self.wrong
    }

    /// Says what is being done, and what one would type for it.
    pub(crate) fn step(&self, what: &str, command: &str) {
        let (on, off) = if self.bold { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        println!("\n{on}{what}{off}");
        if !command.is_empty() {
            println!("  {command}");
        }
    }

    /// A step that is a command in the machine, with all that it prints.
    #[track_caller]
    pub(crate) fn command(&self, what: &str, machine: &Machine, command: &str) {
        self.step(what, &format!("# {command}"));
        for line in machine.sh(command).ok().lines() {
            self.say(&line.trim_end().replace('\t', "    "));
        }
    }

    /// One line of what came out.
    pub(crate) fn say(&self, line: &str) {
        let indent = if line.is_empty() { "" } else { "    " };
        println!("{indent}{line}");
    }

    /// A share as a bar.
    pub(crate) fn bar(&self, name: &str, part: usize, total: usize) {
        let columns = (part * BAR + total / 2) / total.max(1);
        let percent = (part * 100 + total / 2) / total.max(1);
        self.say(&format!("{name:5}  {:BAR$}  {part:3}  {percent:2} %", "#".repeat(columns)));
    }

    /// One line that must be true.
    pub(crate) fn claim(&mut self, holds: bool, line: &str) {
        if holds {
            self.say(line.trim_end());
        }
        self.must(holds, line);
    }

    /// What must be true, though nobody wants to read of it.
    pub(crate) fn must(&mut self, holds: bool, line: &str) {
        if !holds {
            self.wrong += 1;
            self.say(&format!("THIS IS WRONG, it should be: {}", line.trim_end()));
        }
    }

    /// The last line.
    pub(crate) fn end(&self, took: Duration) {
        match self.wrong {
            0 => println!("\nAll as it should be, in {}.", seconds(took)),
            n => println!("\n{n} of these things were not as they should be."),
        }
    }
}

/// A time in seconds.
pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f32())
}
