//! Minting by questions as a test does it: a store, somebody at a terminal, and what they saw.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use asl_bootstrap::Domain;
use asl_store::StoreHandle;
use asl_store::vfs::real::RealVfs;
use rustix::termios::{LocalModes, tcgetattr};

use super::programs::{asl, program, shown};
use super::terminal::{SIZE, Terminal};

/// Down one line in a list.
pub const DOWN: &str = "\x1b[B";
/// A passphrase of one's own.
pub const PASSPHRASE: &str = "correct horse battery";
/// Where the alternate screen begins and ends (xterm's control sequences).
pub const ALTERNATE: (&str, &str) = ("\x1b[?1049h", "\x1b[?1049l");

/// A store to mint in.
pub struct Room {
    pub dir: tempfile::TempDir,
    pub store: PathBuf,
}

impl Room {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        let made = asl(&["store", "init", store.to_str().unwrap(), "--ephemeral"]);
        assert!(made.status.success(), "{}", shown(&made));
        Self { dir, store }
    }

    /// `asl` with these words about the store.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = program("asl");
        command.args(words).arg("--store").arg(&self.store);
        command
    }

    pub fn asl(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    pub fn file(&self, name: &str, content: &str) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, content).unwrap();
        path.into_os_string().into_string().unwrap()
    }

    /// Mints without a question.
    pub fn mint(&self, more: &[&str]) -> Output {
        let pass = self.file("pass", &format!("{PASSPHRASE}\n"));
        let words = [
            "domain",
            "mint",
            "--ephemeral",
            "--yes",
            "--passphrase-file",
        ];
        self.asl(&[&words[..], &[&pass], more].concat())
    }

    pub fn domain(&self) -> Domain {
        let vfs = RealVfs::open(&self.store).unwrap();
        let store = StoreHandle::open(Arc::new(vfs)).unwrap();
        Domain::read(&store).unwrap().expect("a domain")
    }

    /// Every file with its content.
    pub fn tree(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut tree = BTreeMap::new();
        let mut dirs = vec![self.store.clone()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    tree.insert(path.clone(), Vec::new());
                    dirs.push(path);
                } else {
                    let content = fs::read(&path).unwrap();
                    tree.insert(path, content);
                }
            }
        }
        tree
    }
}

/// The wizard, and what was seen of it.
pub struct Wizard {
    pub terminal: Terminal,
    /// Bytes of the terminal before the question that was seen last.
    seen: usize,
    pub phrase: Vec<String>,
    pub passphrase: String,
}

impl Wizard {
    pub fn start(command: &Command, term: &str) -> Self {
        Self {
            terminal: Terminal::run(command, Some(term), SIZE, SIZE),
            seen: 0,
            phrase: Vec::new(),
            passphrase: String::new(),
        }
    }

    pub fn mint(room: &Room, more: &[&str]) -> Self {
        let mut command = room.command(&["domain", "mint", "--ephemeral"]);
        command.args(more);
        Self::start(&command, "vt220")
    }

    /// Waits until `question` is asked, again if it was before.
    pub fn see(&mut self, question: &str) {
        let seen = self.seen;
        let place = |terminal: &Terminal| {
            let mut windows = terminal.raw[seen..].windows(question.len());
            windows.position(|window| window == question.as_bytes())
        };
        let came = self.terminal.until(|terminal| place(terminal).is_some());
        let shown = self.terminal.shown();
        assert!(came, "it never asks {question:?}:\n{shown}");
        self.seen += place(&self.terminal).unwrap() + question.len();
        let screen = self.terminal.screen.screen();
        let wrapped = (0..screen.size().0.get()).any(|row| screen.row_wrapped(row));
        assert!(!wrapped, "{shown}");
    }

    pub fn answer(&mut self, question: &str, keys: &str) {
        self.see(question);
        self.terminal.typed(keys);
    }

    /// Up to the passphrase, which is of one's own.
    pub fn reach_passphrase(&mut self) {
        self.answer("see what comes", "zy-/@\r");
        self.answer("name [rescue]", "attic\r");
        self.answer("Who speaks for it (arrow", "\r");
        self.answer("Protect them with (arrow", &format!("{DOWN}\r"));
        self.passphrase = PASSPHRASE.to_owned();
        let line = format!("{PASSPHRASE}\r");
        self.answer("passphrase: ", &line);
        self.answer("the same again: ", &line);
    }

    pub fn reach_plan(&mut self) {
        self.reach_passphrase();
        self.answer("The recovery phrase (arrow", "\r");
        self.see("Write this? [Y/n]");
    }

    /// Copies the phrase from the screen.
    pub fn read_phrase(&mut self) {
        self.see("Enter when they are on paper");
        let shown = self.terminal.shown();
        let rows = shown.lines().filter(|line| {
            let first = line.split_ascii_whitespace().next();
            first.is_some_and(|first| first.parse::<usize>().is_ok())
        });
        let cells: Vec<&str> = rows.flat_map(str::split_ascii_whitespace).collect();
        assert_eq!(cells.len(), 48, "{shown}");
        self.phrase = cells.chunks(2).map(|cell| cell[1].to_owned()).collect();
    }

    /// Which word is asked for.
    pub fn asked_word(&mut self) -> usize {
        self.see("word ");
        let question = |terminal: &Terminal| -> Option<usize> {
            let shown = terminal.shown();
            let last = shown.lines().last()?.strip_prefix("word ")?;
            last.split_once(':')?.0.parse().ok()
        };
        self.terminal.until(|terminal| question(terminal).is_some());
        self.seen = self.terminal.raw.len();
        question(&self.terminal).unwrap()
    }

    pub fn answer_words(&mut self) {
        for _ in 0..3 {
            let n = self.asked_word();
            let word = self.phrase[n - 1].clone();
            self.terminal.typed(&format!("{word}\r"));
        }
    }

    pub fn ends(&mut self, exit: i32) {
        let code = self.terminal.end();
        assert_eq!(code, Some(exit), "{}", self.terminal.text());
        let screen = self.terminal.screen.screen();
        assert!(!screen.alternate_screen() && !screen.hide_cursor());
        let slave = fs::File::open(&self.terminal.slave).unwrap();
        let modes = tcgetattr(&slave).unwrap().local_modes;
        let sane = LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
        assert!(modes.contains(sane), "{modes:?}");
    }

    /// What the terminal got, but for what was shown on the alternate screen.
    pub fn transcript(&self) -> (String, String) {
        let text = self.terminal.text();
        let (mut outside, mut inside) = (String::new(), String::new());
        for (nth, part) in text.split(ALTERNATE.0).enumerate() {
            match part.split_once(ALTERNATE.1) {
                Some((hidden, rest)) if nth > 0 => {
                    inside.push_str(hidden);
                    outside.push_str(rest);
                }
                _ if nth > 0 => inside.push_str(part),
                _ => outside.push_str(part),
            }
        }
        (outside, inside)
    }
}

/// The questions, in order: what is waited for, and what is typed. `PASS` and `WORD` stand for what the screen showed.
pub const QUESTIONS: &[(&str, &str)] = &[
    ("see what comes", "\r"),
    ("The keyboard (arrow", "\r"),
    ("name [rescue]", "attic\r"),
    ("Who speaks for it (arrow", "\r"),
    ("Protect them with (arrow", "\r"),
    ("Enter when you have it", "\r"),
    ("now type it: ", "PASS"),
    ("The recovery phrase (arrow", "\r"),
    ("Write this? [Y/n]", "\r"),
    ("Enter when they are on paper", "\r"),
    ("word ", "WORD"),
    ("word ", "WORD"),
    ("word ", "WORD"),
];

/// Answers the first `count` questions, and shows the next one.
pub fn answer_first(wizard: &mut Wizard, count: usize) {
    for (nth, (question, keys)) in QUESTIONS.iter().take(count + 1).enumerate() {
        let word = match *question {
            "Enter when they are on paper" => {
                wizard.read_phrase();
                None
            }
            "word " => Some(wizard.asked_word()),
            question => {
                wizard.see(question);
                None
            }
        };
        if *question == "Enter when you have it" {
            let shown = wizard.terminal.shown();
            let made_up = shown.lines().map(str::trim);
            let mut made_up = made_up.filter(|line| line.matches('-').count() == 5);
            wizard.passphrase = made_up.next().expect("a passphrase").to_owned();
        }
        if nth == count {
            return;
        }
        let line = match (*keys, word) {
            ("PASS", _) => format!("{}\r", wizard.passphrase),
            (_, Some(n)) => format!("{}\r", wizard.phrase[n - 1]),
            (keys, None) => keys.to_owned(),
        };
        wizard.terminal.typed(&line);
    }
}

/// Every file below a directory, for searches.
pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => dirs.push(path),
                false => files.push(path),
            }
        }
    }
    files
}
