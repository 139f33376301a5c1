//! uplinkctl
fn main() {}
