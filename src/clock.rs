//! What time it is where the machine is.

use time::{OffsetDateTime, UtcOffset};

/// The time in the local time zone.
pub fn local() -> OffsetDateTime {
    // Somebody may have moved it; where that cannot be looked up now, the former zone counts.
    let _ = time::util::refresh_tz();
    OffsetDateTime::now_utc().to_offset(UtcOffset::current_local_offset().unwrap_or(UtcOffset::UTC))
}
