//! `asl-promote`: rescue stores into a domain of one's own.

use std::process::ExitCode;

use asl_cli::args::{AslPromote, PromoteCommand};
use asl_cli::command::{promote, promote_status};
use asl_cli::start::start;

/// musl's allocator takes one lock for all threads and gives large buffers back to the
/// kernel each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    start(
        |promote: &AslPromote| &promote.global,
        |face, promote| match &promote.command {
            Some(PromoteCommand::Status(args)) => match promote.promote.given() {
                None => promote_status::run(face, args),
                Some(option) => Err(promote_status::not_with(option, args)),
            },
            None => promote::run(face, &promote.promote),
        },
    )
}
