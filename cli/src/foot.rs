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
use std::sync::{Mutex, MutexGuard};

use indicatif::TermLike;
use rustix::termios::tcgetwinsize;

/// Columns and rows of a terminal that does not say how large it is.
const UNKNOWN_SIZE: (u16, u16) = (80, 24);

/// The foot of the terminal that standard error is. To indicatif it is a terminal
/// that is one column and one row smaller.
#[derive(Debug, Default)]
pub struct Foot(Mutex<State>);

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

/// Columns and rows, as they are now.
fn size() -> (u16, u16) {
    match tcgetwinsize(io::stderr()) {
        Ok(size) if size.ws_col > 1 && size.ws_row > 1 => (size.ws_col, size.ws_row),
        _ => UNKNOWN_SIZE,
    }
}

impl Foot {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl TermLike for Foot {
    fn width(&self) -> u16 {
        let mut state = self.state();
        if state.frame.is_empty() {
            state.columns = size().0 - 1;
        }
        state.columns
    }

    fn height(&self) -> u16 {
        size().1 - 1
    }

    fn write_str(&self, s: &str) -> io::Result<()> {
        self.state().frame.push_str(s);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let out = self.state().redraw();
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
