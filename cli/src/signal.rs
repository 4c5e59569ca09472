//! What signals do: Ctrl-C and SIGTERM ask for a clean stop, a second Ctrl-C
//! kills, SIGHUP stops nothing, a file size limit is an error like any other, and
//! whoever was stopped with Ctrl-Z is told when it goes on. Half a file is removed.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::{Handle, Signals};
use signal_hook::{flag, low_level};

use crate::error::{CliError, Result};

/// Exit code of a program that a second Ctrl-C ended: 128 + SIGINT, as shells have it.
const KILLED: i32 = 130;

/// Whether somebody asked for a clean stop. What was asked of this is done with it: a program that goes on to something
/// else, such as the next question, begins without a request.
#[derive(Debug, Clone)]
pub struct StopRequest(Arc<Work>);

/// Work that can be stopped; the flag is that of the whole program.
#[derive(Debug)]
struct Work(Arc<AtomicBool>);

impl StopRequest {
    fn new(asked: &Arc<AtomicBool>) -> Self {
        Self(Arc::new(Work(asked.clone())))
    }

    /// Whether to stop now.
    pub fn is_made(&self) -> bool {
        self.0.0.load(Ordering::Relaxed)
    }

    /// The flag itself, for a library that looks at it.
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.0.0.clone()
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
        if let Some(stops) = STOPS.get() {
            stops.store(false, Ordering::Relaxed);
        }
    }
}

/// What Ctrl-C and others set while questions are asked, and while work is done. Each is registered once, however often it is wanted.
static STOPS: OnceLock<Arc<AtomicBool>> = OnceLock::new();
static REQUESTS: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// A write beyond `ulimit -f` fails with EFBIG instead of killing the program.
pub fn survive_file_size_limit() {
    // Where this cannot be had, the limit kills: the store recovers from that too.
    let _ = flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)));
}

/// A flag that is set when the program goes on after it was stopped (Ctrl-Z, then `fg`).
pub fn continued() -> Arc<AtomicBool> {
    let continued = Arc::new(AtomicBool::new(false));
    // Where this cannot be had, a display is drawn over what the shell wrote.
    let _ = flag::register(SIGCONT, continued.clone());
    continued
}

/// Watches for Ctrl-C and SIGTERM while a file is written that nobody can use before it
/// is whole.
#[derive(Debug)]
pub struct Watch(Option<Handle>);

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(handle) = &self.0 {
            handle.close();
        }
    }
}

/// Removes `file` when the program is stopped, and then ends as it would have.
pub fn remove_when_stopped(file: &Path) -> Watch {
    // Where this cannot be had, the file stays behind.
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) else {
        return Watch(None);
    };
    let handle = signals.handle();
    let file = file.to_owned();
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            let _ = fs::remove_file(&file);
            let _ = low_level::emulate_default_handler(signal);
        }
    });
    Watch(Some(handle))
}

/// A flag that Ctrl-C, SIGTERM and SIGHUP set from here on, for whoever asks questions; it may be cleared. A second Ctrl-C
/// that finds it set kills.
pub fn stops() -> Arc<AtomicBool> {
    let stops = STOPS.get_or_init(|| {
        let stops = Arc::new(AtomicBool::new(false));
        // Where this cannot be had, the signals kill, as they do anywhere else. First, so that it sees the flag as it was before
        // this Ctrl-C.
        let _ = flag::register_conditional_shutdown(SIGINT, KILLED, stops.clone());
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let _ = flag::register(signal, stops.clone());
        }
        stops
    });
    stops.clone()
}

/// Turns Ctrl-C and SIGTERM into a request, from here on.
pub fn catch_stop_requests() -> Result<StopRequest> {
    if let Some(asked) = REQUESTS.get() {
        return Ok(StopRequest::new(asked));
    }
    let asked = Arc::new(AtomicBool::new(false));
    let register = || -> io::Result<()> {
        // First, so that it sees the flag as it was before this Ctrl-C.
        flag::register_conditional_shutdown(SIGINT, KILLED, asked.clone())?;
        flag::register(SIGINT, asked.clone())?;
        flag::register(SIGTERM, asked.clone())?;
        flag::register(SIGHUP, Arc::new(AtomicBool::new(false)))?;
        Ok(())
    };
    register().map_err(|error| CliError::new("cannot catch signals").caused_by(&error))?;
    let asked = REQUESTS.get_or_init(|| asked);
    Ok(StopRequest::new(asked))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A guided rescue reads, is stopped, asks, and reads again: no Ctrl-C counts twice.
    #[test]
    fn a_stop_is_done_with_when_the_work_is() {
        let stops = stops();
        for _ in 0..3 {
            let request = catch_stop_requests().unwrap();
            assert!(!request.is_made() && !stops.load(Ordering::Relaxed));
            // A second one without the reset in between would end this process.
            low_level::raise(SIGINT).unwrap();
            assert!(request.is_made() && stops.load(Ordering::Relaxed));
        }
        assert!(!stops.load(Ordering::Relaxed));
    }
}
