//! `asl` alone on a terminal: the guided rescue.
//!
//! It leads from the list of disks to a verified capture, and does nothing that could not be typed: each step shows its command,
//! and what is shown is what is parsed and run. So whoever did it once can do it again by hand, or put it into a script.
//!
//! Nothing is written before the plan was agreed to. What a crash or Ctrl-C leaves is what it leaves of the commands shown;
//! begun again, the guide finds the store, and the capture goes on.

use std::path::{Path, PathBuf};
use std::process::Command;

use asl_capture::inventory::SystemPaths;
use clap::Parser;

use super::{capture_disk, domain_mint, store_init, store_verify};
use crate::args::{Asl, AslCapture, AslCommand, CaptureCommand, DomainCommand, StoreCommand};
use crate::error::{CliError, Exit, Result};
use crate::face::Face;
use crate::guide::look::{Found, look};
use crate::guide::patient::Patient;
use crate::guide::place::{self, Candidate, Reach, STORE_NAME};
use crate::machine::{self, BootMedium};
use crate::prompt::{Choice, Prompt};
use crate::report::talk;
use crate::start::without_command;
use crate::text;

/// Questions that are counted for the user: disk, place, name, plan.
const STEPS: usize = 4;

/// Leads through a rescue, or shows the help where nobody can be asked.
pub fn run(face: &Face) -> Result {
    let Some(prompt) = Prompt::open(face) else {
        return without_command::<Asl>(face);
    };
    let system = SystemPaths::default();
    talk("This leads through a rescue: pick the disk to read, pick a place for what");
    talk("is on it, read. Nothing is written before you agree to the plan, and");
    talk("nothing at all to the disk that is read. Ctrl-C stops at any time.");
    if let Some(words) = BootMedium::of(&system).words() {
        talk(&format!("Note: {words}."));
    }
    let patient = pick_patient(face, &prompt, &system)?;
    let (place, store) = pick_place(&prompt, &system, &patient)?;
    let label = pick_label(&prompt, &patient)?;
    let plan = Plan::of(&patient, &place, &store, label.as_deref());
    step(4, "The plan");
    for command in &plan.commands {
        talk(&format!("  $ {}", shell_line(command)));
    }
    talk("Afterwards what was written can be checked, and a domain can vouch for it.");
    if !prompt.confirm("Begin?", true)? {
        talk("Nothing was written.");
        return Ok(Exit::Failed);
    }
    prompt.writes_begin();
    plan.make_store()?;
    let exit = plan.capture(&prompt)?;
    let exit = worse(exit, plan.check(&prompt)?);
    plan.mint(&prompt)?;
    plan.conclude(&place);
    Ok(exit)
}

fn step(number: usize, title: &str) {
    talk("");
    talk(&format!("Step {number} of {STEPS}: {title}"));
}

/// Lets the user pick the disk to read.
fn pick_patient(face: &Face, prompt: &Prompt, system: &SystemPaths) -> Result<Patient> {
    loop {
        let disks = machine::survey(system);
        let patients: Vec<Patient> = disks
            .iter()
            .map(|disk| Patient::of(system, disk.clone()))
            .collect();
        step(1, "Which disk is to be read?");
        if patients.is_empty() {
            return Err(CliError::new("this machine shows no disks")
                .hint("check cables and power; the kernel's own words: dmesg | tail"));
        }
        let mut choices: Vec<Choice> = patients
            .iter()
            .map(|patient| match &patient.unfit {
                None => Choice::new(patient.title()),
                Some(why) => Choice::disabled(patient.title(), why),
            })
            .collect();
        choices.push(Choice::new(
            "look again: a disk was plugged in or unmounted",
        ));
        let picked = prompt.select("The disk", &choices)?;
        let Some(patient) = patients.get(picked) else {
            continue;
        };
        for line in patient.details() {
            talk(&format!("  {line}"));
        }
        for words in &patient.advice {
            face.report.warn(words);
        }
        let question = format!("Read {}?", patient.surveyed.disk.path);
        if prompt.confirm(&question, true)? {
            return Ok(patient.clone());
        }
    }
}

/// Lets the user pick where the store is or will be.
fn pick_place(
    prompt: &Prompt,
    system: &SystemPaths,
    patient: &Patient,
) -> Result<(Candidate, PathBuf)> {
    loop {
        step(2, "Where shall it go?");
        let disks = machine::survey(system);
        let places = place::candidates(system, &disks, &patient.surveyed);
        let mut choices: Vec<Choice> = places
            .iter()
            .map(|place| match &place.unfit {
                None => Choice::new(&place.title),
                Some(why) => Choice::disabled(&place.title, why),
            })
            .collect();
        choices.push(Choice::new("look again: a disk was plugged in or mounted"));
        if places.iter().all(|place| place.unfit.is_some()) {
            talk("No place was found. Plug in a disk with room, or mount one, for example:");
            talk("  mount /dev/sdX1 /mnt      sshfs user@host:/dir /mnt");
            if let Some((stick, room_bytes)) = place::rest_of_stick(&disks) {
                talk(&format!(
                    "Or take the rest of the stick that this system came from, {}:",
                    text::size(room_bytes)
                ));
                talk(&format!(
                    "  echo ',+,L' | sfdisk --append {}",
                    text::shell(stick)
                ));
            }
        }
        let picked = prompt.select("The place", &choices)?;
        let Some(place) = places.get(picked) else {
            continue;
        };
        for words in &place.notes {
            talk(&format!("Note: {words}"));
        }
        if let Reach::ToMount { device, is_known } = &place.reach {
            if !is_known && !is_seen_to_fit(device) {
                continue;
            }
            talk(&format!(
                "{} will be mounted on {}.",
                text::visible(device),
                text::path(&place.mount_point)
            ));
        }
        let store = match &place.stores[..] {
            [] | [_] => place.store(),
            several => {
                let mut choices: Vec<Choice> = several
                    .iter()
                    .map(|store| Choice::new(format!("the store {}", text::path(store))))
                    .collect();
                choices.push(Choice::new("a new store"));
                let picked = prompt.select("There are stores already; use", &choices)?;
                several
                    .get(picked)
                    .cloned()
                    .unwrap_or_else(|| unused(&place.mount_point))
            }
        };
        if place.stores.contains(&store) {
            talk(&format!("The store {} will be used.", text::path(&store)));
        }
        return Ok((place.clone(), store));
    }
}

/// Looks at what is on a device that was chosen, and tells.
fn is_seen_to_fit(device: &str) -> bool {
    let name = text::visible(device);
    talk(&format!("Looking at what is on {name} ..."));
    match look(device) {
        Found::Filesystem { fs_type, label } => {
            let label = label.map_or(String::new(), |label| format!(" \"{label}\""));
            talk(&format!("It is {fs_type}{}.", text::visible(&label)));
            true
        }
        Found::Unfit { why } => {
            talk(&format!("It cannot be taken: {}.", text::visible(&why)));
            false
        }
        Found::Unknown => true,
    }
}

/// A directory name for a new store beside others.
fn unused(mount_point: &Path) -> PathBuf {
    let plain = mount_point.join(STORE_NAME);
    let numbered = (2..).map(|n: u32| mount_point.join(format!("{STORE_NAME}-{n}")));
    let mut names = std::iter::once(plain).chain(numbered);
    names
        .find(|path| std::fs::symlink_metadata(path).is_err())
        .unwrap_or_else(|| mount_point.join(STORE_NAME))
}

fn pick_label(prompt: &Prompt, patient: &Patient) -> Result<Option<String>> {
    step(3, "A name for it");
    talk("Your own words, to find it by later: whose disk it is, from which machine.");
    let disk = &patient.surveyed.disk;
    let proposed = disk
        .model
        .as_deref()
        .map_or_else(String::new, |model| text::visible(model).trim().to_owned());
    let label = prompt.input("The name", &proposed)?;
    let label = label.trim();
    Ok((!label.is_empty()).then(|| label.to_owned()))
}

/// What was agreed to, as the commands that do it.
struct Plan {
    store: PathBuf,
    commands: Vec<Vec<String>>,
    capture: Vec<String>,
}

impl Plan {
    fn of(patient: &Patient, place: &Candidate, store: &Path, label: Option<&str>) -> Self {
        let at = store.to_string_lossy().into_owned();
        let words = |words: &[&str]| {
            words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>()
        };
        let mut commands = Vec::new();
        if let Some(mount) = place.mount_command() {
            commands.push(words(&[
                "mkdir",
                "-p",
                &place.mount_point.to_string_lossy(),
            ]));
            commands.push(mount);
        }
        if !place.stores.iter().any(|known| known == store) {
            commands.push(words(&["asl", "store", "init", &at]));
        }
        let mut capture = words(&[
            "asl-capture",
            "disk",
            &patient.surveyed.disk.path,
            "--store",
            &at,
        ]);
        if let Some(label) = label {
            capture.extend(words(&["--label", label]));
        }
        commands.push(capture.clone());
        Self {
            store: store.to_owned(),
            commands,
            capture,
        }
    }

    /// Everything before the capture.
    fn make_store(&self) -> Result<()> {
        for command in self
            .commands
            .iter()
            .filter(|command| **command != self.capture)
        {
            if self.is_there_already(command) {
                talk("");
                talk("There is a store already, which is used.");
                continue;
            }
            let exit = perform(command)?;
            if exit != Exit::Complete {
                return Err(
                    CliError::new(format!("this failed: {}", shell_line(command)))
                        .hint("mend what it says, then begin again: asl"),
                );
            }
        }
        Ok(())
    }

    /// Whether the command would make a store that has come to light since it was planned: on a filesystem that was mounted only
    /// now, from a rescue that was begun earlier.
    fn is_there_already(&self, command: &[String]) -> bool {
        let makes_store = command
            .get(..3)
            .is_some_and(|words| words == ["asl", "store", "init"]);
        makes_store && place::is_store(&self.store)
    }

    /// Reads the disk, again and again if it stops and the user wishes so.
    fn capture(&self, prompt: &Prompt) -> Result {
        loop {
            let exit = perform(&self.capture);
            match &exit {
                Ok(Exit::Complete | Exit::Unreadable) => return exit,
                Ok(_) => {}
                // Told already, as the command itself does.
                Err(error) => self.tell(error),
            }
            talk("");
            talk("Reading stopped early. What was read is safe; the same command goes on.");
            if !prompt.confirm("Go on reading now?", true)? {
                return Err(CliError::new("the disk was not read to its end")
                    .hint(format!("go on with: {}", shell_line(&self.capture))));
            }
        }
    }

    fn tell(&self, error: &CliError) {
        talk(error.render().trim_end());
    }

    /// Reads back what was written, if the user wishes so.
    fn check(&self, prompt: &Prompt) -> Result {
        talk("");
        talk("Reading everything back shows whether the destination kept it right.");
        if !prompt.confirm("Check it now?", true)? {
            return Ok(Exit::Complete);
        }
        let store = self.store.to_string_lossy().into_owned();
        let words = ["asl", "store", "verify", "--store", &store];
        // What is damaged was told; the way on is the same.
        perform(&words.map(str::to_owned)).or_else(|error| {
            self.tell(&error);
            Ok(error.exit_code())
        })
    }

    /// Founds a domain, unless the store has one.
    fn mint(&self, prompt: &Prompt) -> Result<()> {
        let store = self.store.to_string_lossy().into_owned();
        let words = ["asl", "domain", "mint", "--store", &store].map(str::to_owned);
        if has_domain(&self.store) {
            talk("The store has a domain already. To sign what was read now:");
            talk(&format!(
                "  $ asl domain attest --store {}",
                text::shell_path(&self.store)
            ));
            return Ok(());
        }
        talk("");
        talk("A domain can vouch for the store: keys of yours sign what is in it, so that");
        talk("years later you can prove that nothing was changed. It takes two minutes.");
        if !prompt.confirm("Mint one now?", true)? {
            talk(&format!(
                "It can be done at any time: {}",
                shell_line(&words)
            ));
            return Ok(());
        }
        if let Err(error) = perform(&words) {
            // The capture is safe whatever becomes of the domain.
            self.tell(&error);
            talk(&format!(
                "Begin it again at any time: {}",
                shell_line(&words)
            ));
        }
        Ok(())
    }

    fn conclude(&self, place: &Candidate) {
        let store = text::shell_path(&self.store);
        talk("");
        talk(&format!(
            "Everything is in the store {}.",
            text::path(&self.store)
        ));
        talk("What is in it, and how to get it back as an image:");
        talk(&format!("  $ asl captures --store {store}"));
        talk(&format!(
            "  $ asl export CAPTURE disk.img --sparse --store {store}"
        ));
        talk("Before the disk with the store is pulled out:");
        talk(&format!(
            "  $ umount {}",
            text::shell_path(&place.mount_point)
        ));
    }
}

/// Whether somebody minted a domain in the store. A store that cannot be opened now has told so elsewhere.
fn has_domain(store: &Path) -> bool {
    let vfs = asl_store::vfs::real::RealVfs::open(store);
    let handle = vfs
        .ok()
        .and_then(|vfs| asl_store::StoreHandle::open(std::sync::Arc::new(vfs)).ok());
    handle.is_some_and(|handle| !matches!(asl_bootstrap::Domain::read(&handle), Ok(None)))
}

/// Runs one command of the plan: ours in this process, as its own program would, others as they are.
fn perform(words: &[String]) -> Result {
    talk("");
    talk(&format!("$ {}", shell_line(words)));
    let unreadable = |error: &clap::Error| {
        CliError::usage("the guide made a command that is none").caused_by(error)
    };
    match words.first().map(String::as_str) {
        Some("asl") => {
            let asl = Asl::try_parse_from(words).map_err(|error| unreadable(&error))?;
            let face = Face::new(&asl.global);
            match asl.command {
                Some(AslCommand::Store(StoreCommand::Init(args))) => store_init::run(&face, &args),
                Some(AslCommand::Store(StoreCommand::Verify(args))) => {
                    store_verify::run(&face, &args)
                }
                Some(AslCommand::Domain(DomainCommand::Mint(args))) => {
                    domain_mint::run(&face, &args)
                }
                _ => Err(CliError::usage("the guide does not know this command")),
            }
        }
        Some("asl-capture") => {
            let capture = AslCapture::try_parse_from(words).map_err(|error| unreadable(&error))?;
            let face = Face::new(&capture.global);
            match capture.command {
                Some(CaptureCommand::Disk(args)) => capture_disk::run(&face, &args),
                _ => Err(CliError::usage("the guide does not know this command")),
            }
        }
        Some(program) => {
            let status = Command::new(program)
                .args(&words[1..])
                .status()
                .map_err(|error| CliError::of_io("run", Path::new(program), &error))?;
            Ok(if status.success() {
                Exit::Complete
            } else {
                Exit::Failed
            })
        }
        None => Err(CliError::usage("the guide made an empty command")),
    }
}

fn shell_line(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| text::shell(word)).collect();
    words.join(" ")
}

/// Of two ends of commands, the one that a script must hear of.
fn worse(first: Exit, second: Exit) -> Exit {
    if second == Exit::Complete {
        first
    } else {
        second
    }
}
