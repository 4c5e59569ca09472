//! `asl` alone: the guided rescue, on a terminal whose lists are numbered, with real disks behind loop devices.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::devices::Loop;
use super::place::{Mount, json, skipped};
use super::programs::{asl, program, shown};
use super::terminal::{SIZE, Terminal};

/// Bytes of the disk that is rescued.
const DISK_BYTES: usize = 8 << 20;

/// A guided rescue under way.
struct Guide {
    terminal: Terminal,
    /// Bytes of what was seen already.
    seen: usize,
}

impl Guide {
    fn start() -> Self {
        let mut command = program("asl");
        command.env_remove("CI");
        Self {
            // A terminal that cannot move its cursor numbers its lists.
            terminal: Terminal::run(&command, Some("dumb"), SIZE, SIZE),
            seen: 0,
        }
    }

    /// Waits for `words`; gives what was shown before them since the last time.
    fn see(&mut self, words: &str) -> String {
        let seen = self.seen;
        let place = |terminal: &Terminal| {
            let mut windows = terminal.raw[seen..].windows(words.len());
            windows.position(|window| window == words.as_bytes())
        };
        let came = self.terminal.until(|terminal| place(terminal).is_some());
        let at = place(&self.terminal);
        assert!(came && at.is_some(), "never {words:?}:\n{}", self.all());
        let end = seen + at.unwrap_or(0) + words.len();
        self.seen = end;
        String::from_utf8_lossy(&self.terminal.raw[seen..end]).into_owned()
    }

    fn answer(&mut self, question: &str, keys: &str) -> String {
        let shown = self.see(question);
        self.terminal.typed(&format!("{keys}\r"));
        shown
    }

    /// Picks the line of a numbered list that has `name`.
    fn pick(&mut self, list: &str, name: &str) -> String {
        let lines = self.list(list);
        self.choose(&lines, name)
    }

    /// Waits for a numbered list.
    fn list(&mut self, list: &str) -> String {
        self.see(list);
        self.see("number [")
    }

    fn choose(&mut self, lines: &str, name: &str) -> String {
        let line = lines.lines().find(|line| line.contains(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in:\n{lines}"));
        let number = line.trim().split(')').next().unwrap().to_owned();
        self.terminal.typed(&format!("{number}\r"));
        line.to_owned()
    }

    fn all(&self) -> String {
        String::from_utf8_lossy(&self.terminal.raw).into_owned()
    }
}

/// A disk with something on it, and a mounted one with room.
struct Machine {
    disk: Loop,
    content: Vec<u8>,
    place: Mount,
    place_disk: Loop,
    _room: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let room = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let image = room.path().join("disk.img");
        let mut content = vec![0; DISK_BYTES];
        let mut noise = blake3::Hasher::new().finalize_xof();
        noise.fill(&mut content[..DISK_BYTES / 2]);
        fs::write(&image, &content).unwrap();
        let roomy = room.path().join("roomy.img");
        fs::File::create(&roomy).unwrap().set_len(3 << 30).unwrap();
        let made = Command::new("mkfs.ext4").arg("-q").arg(&roomy).status();
        assert!(made.is_ok_and(|status| status.success()), "mkfs.ext4");
        let place_disk = Loop::over(&roomy);
        let place = Mount::of(&[place_disk.path().to_str().unwrap()]);
        Self {
            disk: Loop::over(&image),
            content,
            place,
            place_disk,
            _room: room,
        }
    }
}

/// A path as one word of a list, so that `/dev/loop1` is not `/dev/loop10`.
fn word(path: &Path) -> String {
    format!("{} ", path.display())
}

/// Covers K3, K4: from the list of disks to a capture that was checked, with the commands that did it.
#[test]
fn a_rescue_is_led_from_the_disk_to_the_image() {
    if skipped() {
        return;
    }
    let machine = Machine::new();
    let mut guide = Guide::start();
    // The one with the destination is in use: shown, with what to do, and not to be had.
    let line = guide.pick(
        "Which disk is to be read?",
        &word(machine.place_disk.path()),
    );
    assert!(line.contains("(no: in use"), "{line}");
    guide.see("cannot be chosen: in use; first: umount");
    guide.pick("The disk", &word(machine.disk.path()));
    guide.answer("Read /dev/", "y");
    let at = machine.place.at.to_str().unwrap().to_owned();
    let line = guide.pick("Where shall it go?", &at);
    assert!(line.contains(" free ") && !line.contains("(no:"), "{line}");
    guide.answer("The name", "Anna's disk");
    let plan = guide.answer("Begin?", "y");
    let store = machine.place.path("asl-rescue");
    let capture = format!(
        "asl-capture disk {} --store {store} --label 'Anna'\\''s disk'",
        machine.disk.path().display()
    );
    let flat = plan.replace("\r\n", " ");
    assert!(
        flat.contains(&format!("$ asl store init {store}")),
        "{plan}"
    );
    assert!(words_of(&flat).contains(&words_of(&capture)), "{plan}");
    guide.answer("Check it now?", "y");
    guide.answer("Mint one now?", "n");
    let code = guide.terminal.end();
    let all = guide.all();
    assert_eq!(code, Some(0), "{all}");
    assert!(all.contains("every byte is as it was written"), "{all}");
    let image = machine.place.path("out.img");
    let got = asl(&["export", "Anna's disk", &image, "--store", &store]);
    assert!(got.status.success(), "{}", shown(&got));
    assert!(fs::read(&image).unwrap() == machine.content);

    // Led again, it finds the store; stopped before the plan was agreed to, it has done nothing.
    let before = json(&asl(&["store", "state", "--store", &store, "--json"]));
    let mut guide = Guide::start();
    guide.pick("Which disk is to be read?", &word(machine.disk.path()));
    guide.answer("Read /dev/", "y");
    guide.pick("Where shall it go?", &at);
    guide.see("will be used");
    guide.answer("The name", "again");
    let plan = guide.answer("Begin?", "n");
    assert!(!plan.contains("store init"), "{plan}");
    assert_ne!(guide.terminal.end(), Some(0));
    assert!(guide.all().contains("Nothing was written."));
    let after = json(&asl(&["store", "state", "--store", &store, "--json"]));
    assert_eq!(before, after);
}

/// The words of a command, however the terminal broke its line.
fn words_of(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A place on the disk that is to be read is shown, and not to be had.
#[test]
fn the_disk_that_is_read_takes_nothing() {
    if skipped() {
        return;
    }
    let machine = Machine::new();
    let read_only = Command::new("mount")
        .args(["-o", "remount,ro"])
        .arg(&machine.place.at)
        .status();
    assert!(read_only.is_ok_and(|status| status.success()));
    let mut guide = Guide::start();
    guide.pick(
        "Which disk is to be read?",
        &word(machine.place_disk.path()),
    );
    guide.answer("Read /dev/", "y");
    let line = guide.pick("Where shall it go?", machine.place.at.to_str().unwrap());
    assert!(
        line.contains("(no: on the disk that is to be read"),
        "{line}"
    );
    guide.see("cannot be chosen");
    guide.terminal.typed("\x03");
    assert_eq!(guide.terminal.end(), Some(1), "{}", guide.all());
    assert!(
        guide.all().contains("nothing was written"),
        "{}",
        guide.all()
    );
}

/// A disk that is not mounted is offered, looked at when it was chosen, and mounted once the plan is agreed to. What cannot be
/// mounted is told with what to do.
#[test]
fn a_place_that_is_not_mounted_is_looked_at_when_it_is_chosen() {
    if skipped() {
        return;
    }
    let room = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let disk = |name: &str, bytes: u64| {
        let image = room.path().join(name);
        fs::File::create(&image).unwrap().set_len(bytes).unwrap();
        image
    };
    let roomy = disk("roomy.img", 3 << 30);
    let made = Command::new("mkfs.ext4")
        .args(["-q", "-L", "Annas"])
        .arg(&roomy)
        .status();
    assert!(made.is_ok_and(|status| status.success()), "mkfs.ext4");
    let patient = Loop::over(&disk("patient.img", 8 << 20));
    let blank = Loop::over(&disk("blank.img", 3 << 30));
    let mut guide = Guide::start();
    guide.pick("Which disk is to be read?", &word(patient.path()));
    guide.answer("Read /dev/", "y");
    // Where udev looks at every disk, a blank one is known to be blank, and not offered.
    if !Path::new("/run/udev/control").exists() {
        let line = guide.pick("Where shall it go?", &word(blank.path()));
        assert!(line.contains("(not mounted)"), "{line}");
        let why = guide.see("mkfs.ext4");
        assert!(why.contains("It cannot be taken"), "{why}");
    }
    // What is plugged in now is there when one looks again.
    let lines = guide.list("Where shall it go?");
    let roomy = Loop::over(&roomy);
    assert!(!lines.contains(&word(roomy.path())), "{lines}");
    guide.choose(&lines, "look again");
    guide.pick("Where shall it go?", &word(roomy.path()));
    let told = guide.answer("The name", "disk");
    assert!(told.contains("will be mounted on"), "{told}");
    let plan = guide.answer("Begin?", "n");
    let at = format!(
        "/mnt/asl/local/{}",
        roomy.path().file_name().unwrap().to_str().unwrap()
    );
    let flat = words_of(&plan);
    for command in [
        format!("$ mkdir -p {at}"),
        format!("$ mount {} {at}", roomy.path().display()),
        format!("$ asl store init {at}/asl-rescue"),
    ] {
        assert!(flat.contains(&command), "{command} is not in:\n{plan}");
    }
    assert_eq!(guide.terminal.end(), Some(1), "{}", guide.all());
    assert!(!Path::new(&at).exists());
}

/// Where nobody can be asked, the help is shown, as an error.
#[test]
fn without_anybody_to_ask_there_is_help() {
    let output = program("asl").stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", shown(&output));
    assert!(shown(&output).contains("Usage: asl"), "{}", shown(&output));
    let mut scripted = program("asl");
    scripted.env("CI", "1");
    let mut terminal = Terminal::run(&scripted, Some("dumb"), SIZE, SIZE);
    assert_eq!(terminal.end(), Some(2));
}
