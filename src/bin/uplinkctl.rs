//! The command line.

fn main() -> std::process::ExitCode {
    uplinkd::uplinkctl()
}
