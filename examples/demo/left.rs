//! Whether anything stays behind.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::kit::Lab;

/// By what a lab that has ended would be recognised.
pub(crate) struct Traces {
    name: String,
    init: i32,
    namespaces: Vec<u64>,
}

impl Traces {
    pub(crate) fn of(lab: &Lab) -> Traces {
        Traces {
            name: lab.machine.name().to_owned(),
            init: lab.machine.init(),
            namespaces: lab.namespaces().iter().map(|ns| ns.inode()).collect(),
        }
    }

    /// What is left, in words; empty when nothing is.
    pub(crate) fn left(&self) -> String {
        let mut left = Vec::new();
        if Path::new("/proc").join(self.init.to_string()).exists() {
            left.push(format!("process {}", self.init));
        }
        if std::env::temp_dir().join(&self.name).exists() {
            left.push(format!("directory {}", self.name));
        }
        if fs::read_to_string("/proc/self/mounts").is_ok_and(|mounts| mounts.contains(&self.name)) {
            left.push(format!("mount {}", self.name));
        }
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let namespace = fs::metadata(process.path().join("ns/net"));
            if namespace.is_ok_and(|namespace| self.namespaces.contains(&namespace.ino())) {
                left.push(format!("process {}", process.file_name().to_string_lossy()));
            }
        }
        left.join(", ")
    }
}

/// The lines that one text has and the other has not.
///
/// Neither their order nor metrics are looked at: NetworkManager gives others to the routes of a link that came back.
pub(crate) fn difference(before: &str, after: &str) -> String {
    let [before, after] = [before, after].map(|text| text.lines().map(without_metric).collect::<Vec<_>>());
    let only = |these: &[String], those: &[String], sign: char| {
        let lines = these.iter().filter(|line| !those.contains(line));
        lines.map(|line| format!("\n    {sign} {line}")).collect::<String>()
    };
    only(&before, &after, '-') + &only(&after, &before, '+')
}

fn without_metric(line: &str) -> String {
    let Some((start, rest)) = line.split_once(" metric ") else { return line.to_owned() };
    let end = rest.split_once(' ').map_or("", |(_, end)| end);
    format!("{start} {end}").trim_end().to_owned()
}
