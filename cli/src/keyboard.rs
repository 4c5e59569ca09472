//! The keyboard's layout: what it is, as far as that can be known, and how to change it.
//!
//! Who types a passphrase with another layout than they think loses their keys: the y of one hand is the z of another. Over ssh or a
//! serial line the layout is the far end's and cannot be seen from here. What is known comes from configuration and may be
//! wrong; only typing shows the truth, so the caller lets people type a few telling characters where they can see them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Characters that lie elsewhere on other layouts.
pub const TELLING: &str = "z y - / @";
/// Layouts that are offered by name: as loadkeys(1) and as setxkbmap(1) call them, and for people.
pub const COMMON: &[(&str, &str, &str)] = &[
    ("us", "us", "American"),
    ("uk", "gb", "British"),
    ("de", "de", "German"),
    ("fr", "fr", "French"),
    ("es", "es", "Spanish"),
    ("it", "it", "Italian"),
    ("sv-latin1", "se", "Swedish"),
];
/// Kernel parameters that set a layout at boot: dracut's, mkinitcpio's, SystemRescue's.
const PARAMETERS: &[&str] = &["rd.vconsole.keymap", "vconsole.keymap", "setkmap", "keymap"];
/// Longest name of a layout.
const NAME_LEN_MAX: usize = 32;

/// Where the keys are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// At another computer, over the network.
    Network,
    /// At another computer or terminal, over a serial line.
    Serial,
    /// At this computer's own console.
    Console,
    /// At this computer, below X.
    Desktop,
    /// Not known: a terminal in a terminal.
    Unknown,
}

/// A keyboard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyboard {
    /// Where it is.
    pub place: Place,
    /// The layout's name and where it is written.
    pub layout: Option<(String, String)>,
    /// What the letter keys really give: `QWERTY`, `QWERTZ`, `AZERTY`.
    pub letters: Option<&'static str>,
    /// The program that changes it.
    pub changer: Option<&'static str>,
}

/// What is asked of the system. Tests have a system of their own.
pub struct System<'s> {
    /// The root directory.
    pub root: PathBuf,
    /// The terminal, `/dev/tty1`.
    pub terminal: PathBuf,
    /// An environment variable.
    pub variable: &'s dyn Fn(&str) -> Option<String>,
    /// Runs a program; what it prints, if it succeeds.
    pub run: &'s dyn Fn(&str, &[&str]) -> Option<String>,
}

impl System<'_> {
    /// The running system.
    pub fn live() -> System<'static> {
        System {
            root: PathBuf::from("/"),
            terminal: fs::read_link("/proc/self/fd/0").unwrap_or_default(),
            variable: &|name| std::env::var(name).ok().filter(|value| !value.is_empty()),
            run: &run,
        }
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root.join(path)).unwrap_or_default()
    }

    fn has(&self, program: &str) -> bool {
        let path = (self.variable)("PATH").unwrap_or_default();
        let dirs = path.split(':').filter(|dir| !dir.is_empty());
        let mut programs =
            dirs.map(|dir| self.root.join(dir.trim_start_matches('/')).join(program));
        programs.any(|program| program.is_file())
    }
}

fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(printed)
}

impl Keyboard {
    /// Looks at the keyboard of a terminal.
    pub fn find(system: &System<'_>) -> Self {
        let place = place(system);
        let mut found = Self {
            place,
            layout: None,
            letters: None,
            changer: None,
        };
        match place {
            Place::Network | Place::Serial | Place::Unknown => {}
            Place::Console => {
                found.layout = console_layout(system);
                found.letters = (system.run)("dumpkeys", &[]).and_then(|keys| letters(&keys));
                found.changer = system.has("loadkeys").then_some("loadkeys");
            }
            Place::Desktop => {
                let query = (system.run)("setxkbmap", &["-query"]).unwrap_or_default();
                found.layout =
                    value(&query, "layout", ':').map(|name| (name, "setxkbmap -query".to_owned()));
                found.changer = system.has("setxkbmap").then_some("setxkbmap");
            }
        }
        found
    }

    /// What is known, in a sentence or two.
    pub fn words(&self) -> String {
        match self.place {
            Place::Network => {
                return "You type over the network: the layout is that of the far end, and nothing \
                        here changes it."
                    .to_owned();
            }
            Place::Serial => {
                return "You type over a serial line: the layout is that of the far end, and \
                        nothing here changes it."
                    .to_owned();
            }
            _ => {}
        }
        let letters = self
            .letters
            .map(|letters| format!("The keys give {letters}."));
        let layout = match &self.layout {
            Some((name, source)) => format!("The layout is \"{name}\" (says {source})."),
            None if letters.is_some() => "The layout's name is not known here.".to_owned(),
            None => "The layout is not known here.".to_owned(),
        };
        [Some(layout), letters]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// Layouts to offer: the changer's names for them, and people's.
    pub fn choices(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let console = self.changer != Some("setxkbmap");
        COMMON.iter().map(move |(of_console, of_x, people)| {
            let name = if console { of_console } else { of_x };
            (*name, *people)
        })
    }

    /// Changes the layout. Returns the command, so that people can type it next time, and whether it worked.
    pub fn change(&self, system: &System<'_>, name: &str) -> Option<(String, bool)> {
        let program = self.changer?;
        let done = (system.run)(program, &[name]).is_some();
        Some((format!("{program} {name}"), done))
    }
}

/// Whether this can be the name of a layout, and nothing that a program takes for something else.
pub fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    (1..=NAME_LEN_MAX).contains(&name.len()) && name.chars().all(plain) && !name.starts_with('-')
}

fn place(system: &System<'_>) -> Place {
    let set = |name| (system.variable)(name).is_some();
    if set("SSH_CONNECTION") || set("SSH_TTY") {
        return Place::Network;
    }
    let mut terminal = file_name(&system.terminal);
    // The console is another name for the terminal that comes last here (sysfs-tty).
    let active = system.read("sys/class/tty/console/active");
    if terminal == "console"
        && let Some(last) = active.split_ascii_whitespace().last()
    {
        terminal = last;
    }
    let numbered = |prefix: &str| {
        let number = terminal.strip_prefix(prefix);
        number.is_some_and(|number| number.chars().all(|c| c.is_ascii_digit()))
    };
    let serial = ["ttyS", "ttyUSB", "ttyACM", "ttyAMA", "hvc", "xvc"];
    if serial.into_iter().any(numbered) {
        Place::Serial
    } else if numbered("tty") || terminal == "console" {
        Place::Console
    } else if set("DISPLAY") {
        Place::Desktop
    } else {
        Place::Unknown
    }
}

fn file_name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

fn console_layout(system: &System<'_>) -> Option<(String, String)> {
    let kernel = system.read("proc/cmdline");
    let of_kernel = PARAMETERS.iter().find_map(|name| {
        let mut words = kernel.split_ascii_whitespace();
        let value = words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?;
        Some((value.to_owned(), "/proc/cmdline"))
    });
    let of_file = |path: &'static str, name| {
        let value = value(&system.read(path.trim_start_matches('/')), name, '=')?;
        Some((value, path))
    };
    let (name, source) = of_file("/etc/vconsole.conf", "KEYMAP")
        .or(of_kernel)
        .or_else(|| of_file("/etc/default/keyboard", "XKBLAYOUT"))
        .or_else(|| {
            let status = (system.run)("localectl", &["status"])?;
            Some((value(&status, "VC Keymap", ':')?, "localectl"))
        })?;
    is_name(&name).then(|| (name, source.to_owned()))
}

/// The value of a line `name = value`, without quotes.
fn value(text: &str, name: &str, separator: char) -> Option<String> {
    text.lines().find_map(|line| {
        let (found, value) = line.trim().split_once(separator)?;
        let value = value.trim().trim_matches(['"', '\'']);
        // Of several, the first is the one that is on.
        let value = value.split(',').next().unwrap_or_default();
        (found.trim() == name && is_name(value)).then(|| value.to_owned())
    })
}

/// Which letters two telling keys give, by what dumpkeys(1) prints: key 16 is the first of the upper row of letters, key 21 the
/// sixth.
fn letters(dumped: &str) -> Option<&'static str> {
    let gives = |key: u32| {
        dumped.lines().find_map(|line| {
            let rest = line.trim().strip_prefix("keycode")?.trim_start();
            let (code, symbols) = rest.split_once('=')?;
            let symbol = symbols.split_ascii_whitespace().next()?;
            (code.trim().parse() == Ok(key)).then(|| symbol.trim_start_matches('+').to_owned())
        })
    };
    match (gives(16)?.as_str(), gives(21)?.as_str()) {
        ("q", "y") => Some("QWERTY"),
        ("q", "z") => Some("QWERTZ"),
        ("a", "y") => Some("AZERTY"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GERMAN: &str = "keymaps 0-127\nkeycode  16 = +q +Q at\nkeycode  21 = +z +Z\n";

    struct Room(tempfile::TempDir);

    impl Room {
        fn new(files: &[(&str, &str)]) -> Self {
            let room = tempfile::tempdir().unwrap();
            for (path, content) in files {
                let path = room.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            }
            Self(room)
        }

        fn find(
            &self,
            terminal: &str,
            variables: &[(&str, &str)],
            programs: &[(&str, &str)],
        ) -> Keyboard {
            let variable = |name: &str| {
                let mut all = variables.iter().chain(&[("PATH", "/none:/usr/bin")]);
                all.find(|(set, _)| *set == name)
                    .map(|(_, value)| (*value).to_owned())
            };
            let run = |program: &str, _: &[&str]| {
                let mut all = programs.iter();
                all.find(|(name, _)| *name == program)
                    .map(|(_, printed)| (*printed).to_owned())
            };
            Keyboard::find(&System {
                root: self.0.path().to_owned(),
                terminal: terminal.into(),
                variable: &variable,
                run: &run,
            })
        }
    }

    #[test]
    fn the_far_end_keeps_its_layout() {
        let room = Room::new(&[
            ("etc/vconsole.conf", "KEYMAP=de\n"),
            ("sys/class/tty/console/active", "tty0 ttyS0\n"),
        ]);
        for (terminal, variables, place) in [
            ("/dev/pts/0", &[("SSH_CONNECTION", "a")][..], Place::Network),
            ("/dev/tty1", &[("SSH_TTY", "/dev/tty1")], Place::Network),
            ("/dev/ttyS0", &[], Place::Serial),
            ("/dev/ttyUSB10", &[("DISPLAY", ":0")], Place::Serial),
            ("/dev/hvc0", &[], Place::Serial),
            ("/dev/console", &[], Place::Serial),
        ] {
            let found = room.find(terminal, variables, &[]);
            assert_eq!(found.place, place, "{terminal}");
            assert_eq!((&found.layout, found.changer), (&None, None), "{terminal}");
            assert!(found.words().contains("far end"), "{}", found.words());
        }
    }

    #[test]
    fn a_consoles_layout_is_what_was_configured_and_what_the_keys_give() {
        let room = Room::new(&[
            (
                "etc/vconsole.conf",
                "# made\nKEYMAP=\"de-latin1\"\nFONT=x\n",
            ),
            ("usr/bin/loadkeys", ""),
        ]);
        let found = room.find("/dev/tty1", &[], &[("dumpkeys", GERMAN)]);
        assert_eq!(found.place, Place::Console);
        assert_eq!(found.letters, Some("QWERTZ"));
        assert_eq!(found.changer, Some("loadkeys"));
        assert_eq!(
            found.words(),
            "The layout is \"de-latin1\" (says /etc/vconsole.conf). The keys give QWERTZ."
        );
        assert_eq!(found.choices().next(), Some(("us", "American")));

        let booted = Room::new(&[("proc/cmdline", "quiet setkmap=fr copytoram\n")]);
        let found = booted.find("/dev/tty63", &[], &[]);
        assert_eq!(
            found.layout,
            Some(("fr".to_owned(), "/proc/cmdline".to_owned()))
        );
        assert_eq!(found.changer, None);

        let debian = Room::new(&[("etc/default/keyboard", "XKBLAYOUT='se'\n")]);
        let found = debian.find("/dev/tty1", &[], &[]);
        assert_eq!(found.layout.unwrap().0, "se");

        let status = "System Locale: LANG=C\n    VC Keymap: uk\n   X11 Layout: gb\n";
        let found = Room::new(&[]).find("/dev/tty1", &[], &[("localectl", status)]);
        assert_eq!(found.layout.unwrap(), ("uk".into(), "localectl".into()));
        let hostile = Room::new(&[("etc/vconsole.conf", "KEYMAP=\u{1b}[2J\n")]);
        let found = hostile.find("/dev/tty1", &[], &[]);
        assert_eq!(found.words(), "The layout is not known here.");
    }

    #[test]
    fn a_desktop_is_asked_and_another_terminal_is_not_known() {
        let room = Room::new(&[("usr/bin/setxkbmap", "")]);
        let query = "rules:      evdev\nmodel:      pc105\nlayout:     gb,us\n";
        let found = room.find("/dev/pts/3", &[("DISPLAY", ":0")], &[("setxkbmap", query)]);
        assert_eq!(found.place, Place::Desktop);
        assert_eq!(found.layout.as_ref().unwrap().0, "gb");
        assert_eq!(found.choices().nth(1), Some(("gb", "British")));
        let found = room.find("/dev/pts/3", &[], &[]);
        assert_eq!(found.place, Place::Unknown);
        assert_eq!(found.changer, None);
    }

    #[test]
    fn letters_tell_the_great_families_apart() {
        assert_eq!(letters(GERMAN), Some("QWERTZ"));
        assert_eq!(letters("keycode 16 = a\nkeycode 21 = y\n"), Some("AZERTY"));
        assert_eq!(
            letters("keycode 21 = +y\nkeycode 16 = +q\n"),
            Some("QWERTY")
        );
        assert_eq!(letters("keycode 21 = +y\n"), None);
        assert_eq!(letters(""), None);
    }

    #[test]
    fn only_names_are_given_to_programs() {
        for name in ["de-latin1", "us", "sv_x"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "-h", "../us", "a b", "us;id", &"x".repeat(33)] {
            assert!(!is_name(name), "{name}");
        }
        for (of_console, of_x, _) in COMMON {
            assert!(is_name(of_console) && is_name(of_x));
        }
    }
}
