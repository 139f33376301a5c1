//! uplinkd
fn main() {}
