//! The daemon.

fn main() -> std::process::ExitCode {
    uplinkd::uplinkd()
}
