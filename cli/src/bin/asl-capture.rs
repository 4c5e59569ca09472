//! `asl-capture`: disks into the store.

use std::process::ExitCode;

use asl_cli::args::{AslCapture, CaptureCommand};
use asl_cli::command::capture_disk;
use asl_cli::start::{start, without_command};

/// musl's allocator takes one lock for all threads and gives large buffers back to the
/// kernel each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    start(
        |capture: &AslCapture| &capture.global,
        |face, capture| match capture.command {
            None => without_command::<AslCapture>(face),
            Some(CaptureCommand::Disk(args)) => capture_disk::run(face, &args),
            Some(CaptureCommand::Finish(args)) => capture_disk::finish(face, &args),
        },
    )
}
