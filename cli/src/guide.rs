//! What the guided rescue knows: which disk can be read, what is on it and what that means, where its contents can go.
//!
//! The questions are asked by [`crate::command::guide`]; nothing here asks, prints or writes.

pub mod look;
pub mod patient;
pub mod place;
