//! See `cli/src/lib.rs`.

fn main() {}
