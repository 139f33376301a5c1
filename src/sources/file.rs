//! Text of a file that somebody else writes: only so much of it, and never waited for.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A regular file as text; anything else is empty, as `/dev/null` is, by which a file is masked. Bytes that are no text
/// are replaced; more than `longest` bytes are an error, never half of what was meant.
pub(super) fn text(path: &Path, longest: u64) -> io::Result<String> {
    let file = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)?;
    let mut bytes = Vec::new();
    if file.metadata()?.is_file() {
        file.take(longest + 1).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > longest {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
