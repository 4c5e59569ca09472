//! Lines at the foot of a terminal, redrawn in place.
//!
//! The cursor rests at the start of the line below them. What others write there in
//! the meantime, the kernel's messages or the `^C` that a terminal echoes, so mixes
//! with no line of ours. A redraw goes up as many lines as were drawn, writes each
//! line and erases what is left of it and everything below, in one write. After a
//! foreign line that is one line too low: an older line of ours stays above, whole.
//!
//! A line ends with a line feed and never reaches the last column, for a serial
//! line does not tell how wide the terminal at its other end is.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use indicatif::TermLike;

use crate::wrap::size_of;

/// The foot of the terminal that standard error is. To indicatif it is a terminal
/// that is one column and one row smaller.
#[derive(Debug)]
pub struct Foot {
    state: Mutex<State>,
    /// Set when the program had been stopped: what a shell wrote meanwhile is kept.
    continued: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct State {
    /// Written since the last flush: rows of `columns` characters, filled with spaces.
    frame: String,
    columns: u16,
    /// Lines above the cursor that are ours.
    drawn: usize,
}

impl State {
    /// What to write to show the frame in the place of the last one.
    fn redraw(&mut self) -> String {
        let frame: Vec<char> = self.frame.drain(..).collect();
        let rows = frame.chunks(usize::from(self.columns.max(1)));
        let mut out = String::new();
        if self.drawn > 0 {
            out.push_str(&format!("\r\x1b[{}A", self.drawn));
        }
        let replaced = std::mem::replace(&mut self.drawn, rows.len());
        for row in rows {
            let row: String = row.iter().collect();
            out.push('\r');
            out.push_str(row.trim_end());
            out.push_str("\x1b[K\r\n");
        }
        if replaced > 0 || self.drawn > 0 {
            out.push_str("\x1b[J");
        }
        out
    }
}

impl Foot {
    /// A foot with nothing in it; `continued` is set whenever the program goes on after
    /// a stop.
    pub fn new(continued: Arc<AtomicBool>) -> Self {
        Self {
            state: Mutex::default(),
            continued,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl TermLike for Foot {
    fn width(&self) -> u16 {
        let mut state = self.state();
        if state.frame.is_empty() {
            state.columns = size_of(io::stderr()).0 - 1;
        }
        state.columns
    }

    fn height(&self) -> u16 {
        size_of(io::stderr()).1 - 1
    }

    fn write_str(&self, s: &str) -> io::Result<()> {
        self.state().frame.push_str(s);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let mut state = self.state();
        if self.continued.swap(false, Ordering::Relaxed) {
            state.drawn = 0;
        }
        let out = state.redraw();
        io::stderr().write_all(out.as_bytes())
    }

    // Where the cursor is and what is erased follows from what was drawn before.

    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn write_line(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        Ok(())
    }
}
