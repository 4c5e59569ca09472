//! The face of the rescue toolkit: what `asl`, `asl-capture` and `asl-promote` have in common.
//!
//! This crate alone knows a terminal: arguments, output, progress, signals, exit
//! codes, and the clock and chance that libraries are given. A command is thin:
//! it opens what was named, calls a library and reports.

#![forbid(unsafe_code)]

pub mod args;
pub mod command;
pub mod console;
pub mod error;
pub mod face;
pub mod foot;
pub mod guide;
pub mod health;
pub mod keyboard;
pub mod machine;
pub mod mountable;
pub mod output;
pub mod probe;
pub mod progress;
pub mod prompt;
pub mod qr;
pub mod report;
pub mod root;
pub mod secret;
pub mod signal;
pub mod start;
pub mod state;
pub mod target;
pub mod text;
pub mod wrap;
mod writable;
