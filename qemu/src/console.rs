//! The serial console: what the guest shows, and a keyboard.
//!
//! A thread collects whatever arrives. Waits look at what has not been looked past
//! yet, so two waits for the same words need them to appear twice.

use std::{
    fs::OpenOptions,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crate::error::{Error, Result};

/// How long a command may take unless a story gives it longer. Everything is some
/// ten times slower without hardware virtualisation.
const COMMAND: Duration = Duration::from_secs(60);

/// Lines that an error shows.
const LAST_LINES: usize = 40;

#[derive(Debug, Default)]
struct Shown {
    /// Everything that arrived, escape sequences removed.
    text: String,
    /// The machine closed the line.
    ended: bool,
}

/// The guest's serial line.
#[derive(Debug)]
pub struct Console {
    stream: UnixStream,
    shown: Arc<(Mutex<Shown>, Condvar)>,
    /// How far into the text a wait has looked.
    seen: usize,
    commands: u32,
}

/// What a command in the guest did.
#[derive(Debug, Clone)]
pub struct Ran {
    /// The command line.
    pub command: String,
    /// Its exit code.
    pub status: i32,
    /// What it printed on both streams, lines ending in `\n`.
    pub output: String,
}

impl Ran {
    /// What it printed, if its exit code was 0.
    pub fn ok(self) -> Result<String> {
        self.status(0)
    }

    /// What it printed, if its exit code was this.
    pub fn status(self, wanted: i32) -> Result<String> {
        if self.status == wanted {
            return Ok(self.output);
        }
        Err(Error::Command {
            command: self.command,
            status: self.status,
            output: self.output,
        })
    }
}

/// Removes escape sequences and carriage returns from a stream, however it is cut.
#[derive(Debug, Default)]
struct Plain {
    pending: Vec<u8>,
}

impl Plain {
    fn push(&mut self, bytes: &[u8], out: &mut String) {
        self.pending.extend_from_slice(bytes);
        let mut plain = Vec::with_capacity(self.pending.len());
        let mut rest = self.pending.as_slice();
        while let Some(&byte) = rest.first() {
            match byte {
                0x1b => match escape_length(rest) {
                    Some(length) => rest = rest.get(length..).unwrap_or_default(),
                    None => break,
                },
                b'\r' | 0 | 7 => rest = &rest[1..],
                _ => {
                    plain.push(byte);
                    rest = &rest[1..];
                }
            }
        }
        // A character may be cut in two as well.
        let whole = match std::str::from_utf8(&plain) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => plain.len(),
        };
        let mut pending = plain.split_off(whole);
        pending.extend_from_slice(rest);
        out.push_str(&String::from_utf8_lossy(&plain));
        self.pending = pending;
    }
}

/// The length of the escape sequence at the start, or nothing if it is not whole.
fn escape_length(bytes: &[u8]) -> Option<usize> {
    match bytes.get(1)? {
        b'[' => bytes[2..]
            .iter()
            .position(|byte| (0x40..=0x7e).contains(byte))
            .map(|at| at + 3),
        b']' => bytes[2..]
            .iter()
            .position(|byte| *byte == 7)
            .map(|at| at + 3),
        b'(' | b')' | b'%' | b'#' => (bytes.len() > 2).then_some(3),
        _ => Some(2),
    }
}

impl Console {
    /// Connects to QEMU's end of the line. Every byte that arrives is kept in `log`:
    /// QEMU's own log repeats bytes when the reader is slow.
    pub(crate) fn connect(socket: &Path, log: &Path) -> Result<Self> {
        let stream =
            UnixStream::connect(socket).map_err(Error::host("cannot connect to", socket))?;
        let mut reader = stream
            .try_clone()
            .map_err(Error::host("cannot use", socket))?;
        let mut log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .map_err(Error::host("cannot write", log))?;
        let shown: Arc<(Mutex<Shown>, Condvar)> = Arc::default();
        let filled = Arc::clone(&shown);
        thread::spawn(move || {
            let mut plain = Plain::default();
            let mut buffer = [0; 4096];
            loop {
                let count = reader.read(&mut buffer).unwrap_or(0);
                // A story does not fail for its log.
                let _ = log.write_all(&buffer[..count]);
                let (lock, changed) = &*filled;
                let mut shown = lock.lock().unwrap_or_else(PoisonError::into_inner);
                plain.push(&buffer[..count], &mut shown.text);
                shown.ended = count == 0;
                changed.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
        Ok(Self {
            stream,
            shown,
            seen: 0,
            commands: 0,
        })
    }

    /// Waits until the words show up and gives everything up to their end.
    pub fn expect(&mut self, words: &str, within: Duration) -> Result<String> {
        let until = Instant::now() + within;
        let (lock, changed) = &*self.shown;
        let mut shown = lock.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let new = shown.text.get(self.seen..).unwrap_or_default();
            if let Some(at) = new.find(words) {
                let end = at + words.len();
                let found = new[..end].to_owned();
                self.seen += end;
                return Ok(found);
            }
            let left = until.saturating_duration_since(Instant::now());
            let last = || last_lines(&shown.text);
            if shown.ended {
                return Err(Error::Ended {
                    wanted: words.to_owned(),
                    last: last(),
                });
            }
            if left.is_zero() {
                return Err(Error::Timeout {
                    wanted: words.to_owned(),
                    waited: within,
                    last: last(),
                });
            }
            shown = changed
                .wait_timeout(shown, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Types, without pressing Enter.
    pub fn send(&mut self, keys: &str) -> Result<()> {
        self.stream
            .write_all(keys.as_bytes())
            .map_err(Error::host("cannot write to", "the console"))
    }

    /// Types a line.
    pub fn line(&mut self, line: &str) -> Result<()> {
        self.send(&format!("{line}\n"))
    }

    /// Makes the shell at the prompt one that answers a program: nothing is echoed,
    /// there is no prompt, and lines are not edited.
    pub(crate) fn quiet_shell(&mut self) -> Result<()> {
        // Split, so that the echo of this line is not its answer.
        self.line("set +o emacs; stty -echo rows 24 cols 80; PS1= PS2=; echo re''ady")?;
        self.expect("\nready\n", COMMAND)?;
        Ok(())
    }

    /// Runs a command in the guest's shell and waits for its end.
    pub fn run(&mut self, command: &str) -> Result<Ran> {
        self.run_within(command, COMMAND)
    }

    /// As [`Self::run`], for what takes longer.
    pub fn run_within(&mut self, command: &str, within: Duration) -> Result<Ran> {
        let end = self.start(command)?;
        self.end(command, &end, within)
    }

    /// Starts a command and gives the words to [`Self::finish`] it with.
    pub fn start(&mut self, command: &str) -> Result<String> {
        self.commands += 1;
        let end = format!("<end-{}:", self.commands);
        self.line(&format!("{command}; printf '\\n{end}%s>\\n' $?"))?;
        Ok(end)
    }

    /// Waits for the end of a started command.
    pub fn finish(&mut self, end: &str, within: Duration) -> Result<Ran> {
        self.end("the command that was started", end, within)
    }

    fn end(&mut self, command: &str, end: &str, within: Duration) -> Result<Ran> {
        let printed = self.expect(end, within)?;
        let status = self.expect(">\n", COMMAND)?;
        let output = printed.strip_suffix(end).unwrap_or(&printed);
        Ok(Ran {
            command: command.to_owned(),
            status: status.trim_end_matches(">\n").parse().unwrap_or(-1),
            output: output.strip_suffix('\n').unwrap_or(output).to_owned(),
        })
    }

    /// The last lines that the console showed.
    pub fn last(&self) -> String {
        let shown = self.shown.0.lock().unwrap_or_else(PoisonError::into_inner);
        last_lines(&shown.text)
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(pieces: &[&[u8]]) -> String {
        let mut plain = Plain::default();
        let mut out = String::new();
        for piece in pieces {
            plain.push(piece, &mut out);
        }
        out
    }

    #[test]
    fn escape_sequences_go_wherever_they_are_cut() {
        let whole =
            "a\u{1b}[2J\u{1b}[0;31mb\u{1b}(0c\r\n\u{1b}]0;title\u{7}d\u{1b}e\u{fc}".as_bytes();
        for cut in 0..whole.len() {
            assert_eq!(
                plain(&[&whole[..cut], &whole[cut..]]),
                "abc\nd\u{fc}",
                "cut at {cut}"
            );
        }
    }

    fn pair() -> (Console, UnixStream) {
        let directory = std::env::temp_dir().join(format!(
            "asl-console-{}-{:?}",
            std::process::id(),
            thread::current().id()
        ));
        let _ = std::fs::remove_file(&directory);
        let listener = std::os::unix::net::UnixListener::bind(&directory).unwrap();
        let console = Console::connect(&directory, Path::new("/dev/null")).unwrap();
        let (guest, _) = listener.accept().unwrap();
        std::fs::remove_file(&directory).unwrap();
        (console, guest)
    }

    #[test]
    fn a_wait_looks_only_at_what_is_new() {
        let (mut console, mut guest) = pair();
        guest.write_all(b"one two one\n").unwrap();
        let second = Duration::from_secs(1);
        assert_eq!(console.expect("one", second).unwrap(), "one");
        assert_eq!(console.expect("one", second).unwrap(), " two one");
        let error = console
            .expect("one", Duration::from_millis(20))
            .unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error}");
        drop(guest);
        let error = console.expect("one", second).unwrap_err();
        assert!(matches!(error, Error::Ended { .. }), "{error}");
    }

    #[test]
    fn a_command_gives_its_output_and_its_exit_code() {
        let (mut console, mut guest) = pair();
        let end = console.start("false").unwrap();
        guest.write_all(b"some\nlines\n\n").unwrap();
        guest.write_all(format!("{end}3>\n").as_bytes()).unwrap();
        let ran = console.finish(&end, Duration::from_secs(1)).unwrap();
        assert_eq!((ran.status, ran.output.as_str()), (3, "some\nlines\n"));
        assert!(ran.clone().ok().is_err());
        assert_eq!(ran.status(3).unwrap(), "some\nlines\n");
    }
}
