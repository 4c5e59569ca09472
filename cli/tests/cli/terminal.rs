//! Progress on a terminal: programs run under a pseudo terminal of 80 columns, and a
//! terminal emulator says what a person would see.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::capture::{LONG_MIB, Room, SLOW};
use super::programs::{program, shown};

/// Columns and rows of an ordinary terminal.
pub const SIZE: (u16, u16) = (80, 24);
/// Nothing that a test waits for takes longer, on whatever machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// A zstd level at which a machine with many cores, too, redraws a few times.
const SLOWEST: &str = "19";
/// What a kernel prints on its console when a disk fails.
const FOREIGN: &str = "[ 1234.567890] I/O error, dev sdb, sector 4242 op 0x0:(READ)";
/// What a shell writes when a program is stopped.
const SHELL: &str = "[1]+  Stopped";
/// What stands on the screen before the program runs.
const BEFORE: &str = "a line from before";

/// A program in the foreground of a terminal, and what the terminal shows.
pub struct Terminal {
    master: File,
    /// The end that the program has.
    pub slave: PathBuf,
    bytes: Receiver<Vec<u8>>,
    /// Everything that came so far.
    pub raw: Vec<u8>,
    /// What became of it.
    pub screen: vt100::Parser,
    columns: u16,
    /// The program.
    pub child: Child,
}

/// A test that fails leaves no program behind.
impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Terminal {
    /// Runs `command` on a terminal whose screen is full, so that what does not stay in
    /// its place scrolls. It says that its size is `claimed`.
    pub fn run(
        command: &Command,
        term: Option<&str>,
        claimed: (u16, u16),
        size: (u16, u16),
    ) -> Self {
        // Not the program's as well, or its terminal would never hang up.
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = PathBuf::from(name.into_string().unwrap());
        let mut end = File::options().read(true).write(true).open(&slave).unwrap();
        let (columns, rows) = claimed;
        let claimed = Winsize {
            ws_col: columns,
            ws_row: rows,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&end, claimed).unwrap();
        let (columns, rows) = size;
        for _ in 0..rows {
            writeln!(end, "{BEFORE}").unwrap();
        }
        // So that Ctrl-C reaches it, the terminal must be the program's own.
        let mut own = Command::new("setsid");
        own.args(["--ctty", "--wait"])
            .arg(command.get_program())
            .args(command.get_args())
            .env_clear()
            .envs(
                command
                    .get_envs()
                    .filter_map(|(key, value)| Some((key, value?))),
            )
            .env_remove("TERM");
        if let Some(term) = term {
            own.env("TERM", term);
        }
        if let Some(dir) = command.get_current_dir() {
            own.current_dir(dir);
        }
        let child = own
            .stdin(end.try_clone().unwrap())
            .stdout(end.try_clone().unwrap())
            .stderr(end)
            .spawn()
            .unwrap();
        drop(own);
        let (sender, bytes) = channel();
        let mut reader = File::from(master.try_clone().unwrap());
        std::thread::spawn(move || {
            let mut buf = [0; 4096];
            while let Ok(n @ 1..) = reader.read(&mut buf) {
                if sender.send(buf[..n].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self {
            master: File::from(master),
            slave,
            bytes,
            raw: Vec::new(),
            screen: {
                let size = |n| NonZeroU16::new(n).unwrap();
                vt100::Parser::new(size(rows), size(columns), 0)
            },
            columns,
            child,
        }
    }

    /// Lines of the screen down to the cursor's, and the cursor's column.
    fn lines(&self) -> (Vec<String>, u16) {
        let screen = self.screen.screen();
        let (row, column) = screen.cursor_position();
        let rows = screen.rows(0, self.columns).take(usize::from(row) + 1);
        (
            rows.map(|line| line.trim_end().to_owned()).collect(),
            column,
        )
    }

    pub fn shown(&self) -> String {
        self.screen.screen().contents()
    }

    /// Takes what comes until `enough`, or until the program has closed the terminal.
    pub fn until(&mut self, enough: impl Fn(&Self) -> bool) -> bool {
        let end = Instant::now() + PATIENCE;
        while !enough(self) {
            let left = end.saturating_duration_since(Instant::now());
            match self.bytes.recv_timeout(left) {
                Ok(bytes) => {
                    self.screen.process(&bytes);
                    self.raw.extend(bytes);
                }
                Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => panic!("nothing more came:\n{}", self.shown()),
            }
        }
        true
    }

    /// Waits for a display that is whole and another one than before.
    fn next_display(&mut self) -> Vec<String> {
        let before = self.display();
        assert!(
            self.until(|terminal| terminal.display().is_some_and(|now| Some(now) != before)),
            "it ended:\n{}",
            self.shown()
        );
        let screen = self.screen.screen();
        let wrapped = (0..screen.size().0.get()).any(|row| screen.row_wrapped(row));
        assert!(!wrapped, "{}", self.shown());
        self.display().unwrap()
    }

    /// The four lines above the cursor, if they are the display of a capture.
    fn display(&self) -> Option<Vec<String>> {
        let (lines, column) = self.lines();
        let (last, above) = lines.split_last()?;
        let four = above.last_chunk::<4>()?;
        let whole = column == 0
            && last.is_empty()
            && four
                .iter()
                .enumerate()
                .all(|(nth, line)| ours(line) == Some(nth));
        whole.then(|| four.to_vec())
    }

    /// Writes to the terminal as the kernel or another program does.
    fn foreign(&self, line: &str) {
        let mut slave = File::options().write(true).open(&self.slave).unwrap();
        writeln!(slave, "{line}").unwrap();
    }

    /// Types at the keyboard.
    pub fn typed(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// The exit code, once everything has been shown.
    pub fn end(&mut self) -> Option<i32> {
        self.until(|_| false);
        self.child.wait().unwrap().code()
    }

    /// Everything that came, as it came.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.raw).into_owned()
    }

    /// Last characters of the control sequences that came: `A`, `J` and `K` move up and
    /// erase, `m` colours.
    pub fn controls(&self) -> BTreeSet<char> {
        let text = self.text();
        let sequences = text.split('\u{1b}').skip(1);
        sequences
            .map(|sequence| {
                let end = sequence.trim_start_matches(|c: char| !c.is_ascii_alphabetic());
                end.chars().next().unwrap_or('?')
            })
            .collect()
    }

    /// That each line on the screen is ours or somebody else's, and none a mixture.
    fn assert_unmixed(&self, lines: &[String]) {
        for line in lines {
            let known = line == BEFORE || line == FOREIGN || ours(line).is_some();
            assert!(known, "neither ours nor theirs: {line:?}\n{}", self.shown());
        }
    }
}

/// Which line of a capture's display this is, whole from its beginning to its end.
fn ours(line: &str) -> Option<usize> {
    let is = |begin: &str, middle: &str, end: &[&str]| {
        line.starts_with(begin)
            && line.contains(middle)
            && end.iter().any(|end| line.ends_with(end))
            && line.chars().count() < usize::from(SIZE.0)
    };
    let units = [" B", "KiB", "MiB", "GiB", "TiB"];
    [
        is("copying   [", " %  ", &[" MiB"]),
        is("  ", "/s, to go ", &[" s ago"]),
        is("  bad ", " failed, not settled ", &units),
        is("  safe ", " new, ", &[" free there"]),
    ]
    .iter()
    .position(|is| *is)
}

/// Covers K4: what a person sees of a capture stays whole, whatever else is printed on
/// the terminal, and is gone when it ends.
#[test]
fn progress_is_redrawn_in_place_and_stays_whole() {
    let room = Room::new(2 * LONG_MIB);
    let slow = room.capture(&["--compression", SLOWEST]);
    let mut terminal = Terminal::run(&slow, Some("linux"), SIZE, SIZE);
    terminal.next_display();
    let (first, _) = terminal.lines();
    terminal.next_display();
    let (second, _) = terminal.lines();
    assert_eq!(first.len(), second.len());
    let above = first.len() - 5;
    assert_eq!(first[..above], second[..above], "nothing scrolled");

    for burst in [1, 2, 3] {
        for _ in 0..burst {
            terminal.foreign(FOREIGN);
        }
        terminal.next_display();
        let (lines, _) = terminal.lines();
        terminal.assert_unmixed(&lines[..lines.len() - 1]);
    }

    terminal.typed("\x03");
    assert_eq!(terminal.end(), Some(1), "{}", terminal.shown());
    let (lines, _) = terminal.lines();
    let result = lines.iter().position(|line| line.starts_with("capture "));
    let (above, below) = lines.split_at(result.expect("a result"));
    terminal.assert_unmixed(above);
    assert!(!below.iter().any(|line| ours(line).is_some()), "{lines:#?}");
    assert!(!terminal.shown().contains("^C"), "{}", terminal.shown());
    assert_eq!(terminal.controls(), BTreeSet::from(['A', 'J', 'K']));
}

/// Ctrl-Z and `fg`: what the shell wrote meanwhile stays, the display goes on below it.
#[test]
fn progress_goes_on_below_what_a_shell_wrote() {
    let room = Room::new(2 * LONG_MIB);
    let slow = room.capture(&["--compression", SLOWEST]);
    let mut terminal = Terminal::run(&slow, Some("linux"), SIZE, SIZE);
    terminal.next_display();
    let pid = Pid::from_child(&terminal.child);
    kill_process(pid, Signal::STOP).unwrap();
    for _ in 0..6 {
        terminal.foreign(SHELL);
    }
    let all = |terminal: &Terminal| terminal.shown().matches(SHELL).count() == 6;
    assert!(terminal.until(all));
    kill_process(pid, Signal::CONT).unwrap();
    terminal.next_display();
    terminal.next_display();
    assert!(all(&terminal), "{}", terminal.shown());
    terminal.typed("\x03");
    assert_eq!(terminal.end(), Some(1), "{}", terminal.shown());
    assert!(terminal.text().contains("stopping: saving what was read"));
    assert!(!terminal.shown().contains("stopping: saving"));
}

/// A serial line that does not tell how wide the terminal at its other end is, and one
/// that is too narrow.
#[test]
fn progress_is_whole_on_a_terminal_of_any_size() {
    let room = Room::new(2 * LONG_MIB);
    let slow = room.capture(&["--compression", SLOWEST]);
    let unknown = (0, 0);
    let wide = (132, 40);
    let mut terminal = Terminal::run(&slow, Some("vt220"), unknown, wide);
    terminal.next_display();
    terminal.next_display();
    let (lines, _) = terminal.lines();
    let others = lines.iter().filter(|line| *line == BEFORE).count();
    assert_eq!(others + 5, lines.len(), "{}", terminal.shown());
    terminal.typed("\x03");
    assert_eq!(terminal.end(), Some(1), "{}", terminal.shown());

    let narrow = (40, 24);
    let mut terminal = Terminal::run(&slow, Some("xterm"), narrow, narrow);
    let copying = |terminal: &Terminal| terminal.shown().matches(" ago\n").count();
    assert!(terminal.until(|terminal| copying(terminal) == 1));
    for _ in 0..5 {
        let came = terminal.raw.len();
        terminal.until(|terminal| terminal.raw.len() > came);
        assert!(copying(&terminal) <= 1, "{}", terminal.shown());
    }
    terminal.typed("\x03");
    assert_eq!(terminal.end(), Some(1), "{}", terminal.shown());
}

/// What a capture writes to a terminal while it works, without its result.
fn talk(room: &Room, more: &[&str], environment: &[(&str, &str)], term: Option<&str>) -> Terminal {
    let mut command = room.capture(more);
    command.args(["--new", "--compression", SLOW]);
    command.envs(environment.iter().copied());
    let mut terminal = Terminal::run(&command, term, SIZE, SIZE);
    assert_eq!(terminal.end(), Some(0), "{}", terminal.shown());
    terminal
}

/// Colours are nowhere, a dumb terminal and a script get nothing that moves, and
/// `--quiet` is quiet.
#[test]
fn progress_is_shown_only_where_it_can_be_and_is_wanted() {
    let room = Room::new(24);
    let moves = BTreeSet::from(['A', 'J', 'K']);
    let still = BTreeSet::new();
    for term in [Some("dumb"), Some(""), None] {
        let dumb = talk(&room, &[], &[], term);
        assert_eq!(dumb.controls(), still, "{term:?}");
        assert!(dumb.shown().contains("get it back"), "{}", dumb.shown());
    }
    let quiet = talk(&room, &["--quiet"], &[], Some("linux"));
    assert_eq!(quiet.controls(), still);
    assert!(!quiet.shown().contains("get it back"), "{}", quiet.shown());
    assert!(
        quiet.shown().contains("every byte was read"),
        "{}",
        quiet.shown()
    );
    // Events on the same screen say the same, and one of both is enough.
    let events = talk(&room, &["--events"], &[], Some("linux"));
    assert_eq!(events.controls(), still);

    // Last, since each run has less to store than the one before: it still moves.
    let plain = talk(&room, &[], &[("NO_COLOR", "1")], Some("xterm-256color"));
    assert_eq!(plain.controls(), moves, "NO_COLOR is about colours only");

    let mut command = room.capture(&["--new", "--compression", SLOW]);
    let output = command.env("TERM", "linux").output().unwrap();
    let written = [&output.stdout[..], &output.stderr].concat();
    assert!(!written.contains(&0x1b) && !written.contains(&b'\r'));
}

/// Covers K4: without a terminal, a line now and then says how far it is.
#[test]
#[ignore = "waits for the half minute between two lines"]
fn a_log_gets_a_line_now_and_then() {
    let room = Room::new(LONG_MIB);
    let mut child = room
        .capture(&["--compression", SLOWEST])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = Pid::from_child(&child);
    std::thread::sleep(Duration::from_millis(500));
    kill_process(pid, Signal::STOP).unwrap();
    std::thread::sleep(Duration::from_secs(31));
    kill_process(pid, Signal::CONT).unwrap();
    let mut said = String::new();
    let mut stderr = child.stderr.take().unwrap();
    stderr.read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success(), "{said}");
    let lines: Vec<&str> = said.lines().collect();
    let [line, next] = lines[..] else {
        panic!("{said}");
    };
    assert!(
        line.starts_with("copying ") && line.contains(", safe "),
        "{line}"
    );
    assert!(next.starts_with("get it back: "), "{next}");
}

/// A stopped export leaves nothing behind.
#[test]
fn a_stopped_export_leaves_no_half_image() {
    let room = Room::new(2 * LONG_MIB);
    let whole = room
        .capture(&["--label", "it", "--quiet"])
        .output()
        .unwrap();
    assert!(whole.status.success(), "{}", shown(&whole));
    let out = room.dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let mut export = program("asl");
    export.args(["export", "it"]).arg(out.join("it.img"));
    export.arg("--store").arg(room.store());
    let mut terminal = Terminal::run(&export, Some("linux"), SIZE, SIZE);
    let files = || std::fs::read_dir(&out).unwrap().count();
    assert!(terminal.until(|terminal| terminal.shown().contains("writing ")));
    assert_eq!(files(), 1);
    terminal.typed("\x03");
    let code = terminal.end();
    // It may have been quicker.
    assert_eq!(
        files(),
        usize::from(code == Some(0)),
        "{code:?}\n{}",
        terminal.shown()
    );
}
