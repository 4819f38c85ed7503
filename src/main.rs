//! The `ringpost` program: being built, does nothing yet.
fn main() {}
