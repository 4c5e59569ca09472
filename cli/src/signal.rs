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

/// Whether somebody asked for a clean stop.
#[derive(Debug, Clone)]
pub struct StopRequest(Arc<AtomicBool>);

impl StopRequest {
    /// Whether to stop now.
    pub fn is_made(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The flag itself, for a library that looks at it.
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.0.clone()
    }
}

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
    static STOPS: OnceLock<Arc<AtomicBool>> = OnceLock::new();
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
    Ok(StopRequest(asked))
}
