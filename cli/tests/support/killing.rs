//! Killing programs while they work.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Runs a command and kills it after so long; whether it was still at work.
pub fn killed_after(command: &mut Command, time: Duration) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let end = Instant::now() + time;
    while Instant::now() < end && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let _ = child.kill();
    child.wait().unwrap().code().is_none()
}
