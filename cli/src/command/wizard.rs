//! The questions of `asl domain mint`: what a person is asked and shown before a domain is founded.
//!
//! Every question has a flag, and a flag that was given silences its question. The order: keyboard, name, clock (only if it cannot
//! be right), passphrase, recovery, plan, and the recovery phrase.
//!
//! Invariants
//! - Nothing is written before the last question is answered: whoever leaves at any of them leaves the store as it was.
//! - The recovery phrase, and a passphrase that was made up, are on the screen only behind a [`Curtain`](crate::prompt::Curtain), and
//!   not at all while the session is recorded.
//! - A phrase that was shown is asked back. Doing without one is a choice of its own, never the consequence of haste.
//!
//! Crash: nothing was written. Keys of an interrupted mint are found again, and only their passphrase is asked for.

use std::path::{Path, PathBuf};

use asl_bootstrap::dam::LABEL_MAX;
use asl_bootstrap::keyfile::{KeyFile, key_file_path};
use asl_bootstrap::mint::{self, Begun, Plan};
use asl_bootstrap::phrase::{PHRASE_WORDS, generate_passphrase};
use asl_bootstrap::{DomainId, KeyFileError, MintError, Phrase, Random};
use asl_store::{Error as StoreError, LOCK_PATH, StoreHandle};
use rustix::fs::{Access, access, statvfs};
use zeroize::Zeroizing;

use super::domain::{failed, passphrase};
use super::domain_mint::{Found, Order, Recovery, check_place, is_absurd, request};
use super::domain_phrase;
use crate::args::{DomainMint, Moment};
use crate::error::{CliError, Exit, Result};
use crate::face::{Face, now};
use crate::keyboard::{self, Keyboard, System};
use crate::prompt::{self, Choice, Prompt};
use crate::{secret, text};

/// A name for a domain that nobody thinks about at night.
const NAME: &str = "rescue";
/// Words of the phrase that are asked back.
const ASKED_BACK: usize = 3;
/// The phrase's words in a row on the screen.
const WORDS_A_ROW: usize = 4;
/// Lengths of passphrases, in characters, up to which they are called short, and fair.
const SHORT: usize = 9;
const FAIR: usize = 15;
/// Free space below which a mint is not begun: its files and records take a tenth of it.
const ROOM_MIN_BYTES: u64 = 1 << 20;

/// Asks for everything that the flags do not say.
pub(super) fn ask(face: &Face, args: &DomainMint, prompt: &Prompt) -> Result<Order> {
    let (path, store) = face.reader()?;
    let begun = mint::begun_in(&store).map_err(|error| failed("mint a domain", path, &error))?;
    let wizard = Wizard {
        face,
        args,
        prompt,
        path,
    };
    match begun {
        Begun::Unfinished(domain) => wizard.resume(&store, &domain),
        Begun::Nothing => {
            let pending = mint::pending(&**store.vfs());
            let pending = pending.map_err(|error| failed("mint a domain", path, &error))?;
            if !pending.is_empty() {
                prompt.say(
                    "An earlier mint was interrupted before its keys were kept. If you wrote down \
                     a recovery phrase then, cross it out: it belongs to nothing.",
                );
            }
            if let Some(file) = &args.recovery_out {
                domain_phrase::check_place(face, file)?;
                // What such a mint left is told from other files later, and replaced.
                if pending.is_empty() && file.symlink_metadata().is_ok() {
                    return Err(
                        CliError::new(format!("{} exists already", text::path(file))).hint(
                            "name a new file: a recovery phrase is never written over anything",
                        ),
                    );
                }
            }
            wizard.found(now())
        }
    }
}

struct Wizard<'w> {
    face: &'w Face,
    args: &'w DomainMint,
    prompt: &'w Prompt,
    path: &'w Path,
}

/// Which step of how many.
struct Steps {
    at: usize,
    of: usize,
}

impl Steps {
    fn next(&mut self, prompt: &Prompt, title: &str) {
        self.at += 1;
        prompt.say(&format!("\nStep {} of {}: {title}", self.at, self.of));
    }
}

impl Wizard<'_> {
    fn resume(&self, store: &StoreHandle, domain: &DomainId) -> Result<Order> {
        let vfs = &**store.vfs();
        let opens = |passphrase: &str| KeyFile::load(vfs, &key_file_path(domain), passphrase);
        let failed = |error: KeyFileError| failed("mint a domain", self.path, &error.into());
        self.prompt.say(&format!(
            "The mint of this domain was interrupted, and goes on now:\n  {domain}\n\
             Its keys are kept and its recovery phrase, if you wrote one down, stays good. \
             Only the passphrase is needed."
        ));
        let passphrase = match &self.args.passphrase_file {
            Some(file) => {
                let passphrase = passphrase(file)?;
                opens(&passphrase).map_err(failed)?;
                passphrase
            }
            None => loop {
                let passphrase = self.prompt.secret("passphrase")?;
                match opens(&passphrase) {
                    Ok(_) => break passphrase,
                    Err(KeyFileError::WrongPassphrase) => self
                        .prompt
                        .say("The passphrase is wrong. Mind the keyboard's layout; Ctrl-C leaves."),
                    Err(error) => return Err(failed(error)),
                }
            },
        };
        Ok(Order {
            found: Found::Resume,
            passphrase,
            recovery: match &self.args.recovery_out {
                Some(file) => Recovery::File(file.clone()),
                None if self.args.no_recovery => Recovery::None,
                None => Recovery::Before,
            },
        })
    }

    fn found(&self, clock: i64) -> Result<Order> {
        let (args, prompt) = (self.args, self.prompt);
        let types = args.passphrase_file.is_none();
        let asks_recovery = args.recovery_out.is_none() && !args.no_recovery;
        let asks_time = args.time.is_none() && is_absurd(clock);
        let asks_kind = args.kind.is_none() && !args.yes;
        let asked = [
            types,
            args.name.is_none(),
            asks_kind,
            asks_time,
            types,
            asks_recovery,
        ];
        let mut steps = Steps {
            at: 0,
            of: 1 + asked.iter().filter(|asked| **asked).count() + usize::from(asks_recovery),
        };
        prompt.say(&format!(
            "A domain vouches for what the store {} holds: its keys sign it, so that later it can \
             be told from anything else. Until the plan is agreed to, nothing is written; Ctrl-C \
             or Esc leaves at any question.",
            match &self.args.place {
                Some(place) => format!("that gets its place below {}", text::path(place)),
                None => text::path(self.path),
            }
        ));
        if types {
            steps.next(prompt, "the keyboard");
            self.keyboard(&System::live())?;
        }
        let name = match &args.name {
            Some(name) => check_name(name).map_err(CliError::usage)?,
            None => {
                steps.next(prompt, "a name");
                prompt.say("What do you call the domain? Others will see it.");
                let proposed = self.args.proposed_name.as_deref().unwrap_or(NAME);
                prompt.input_that("name", proposed, check_name)?
            }
        };
        if asks_kind {
            steps.next(prompt, "the kind");
            self.kind()?;
        }
        let created_hint = match args.time {
            Some(time) => time.unix_ns,
            None if asks_time => {
                steps.next(prompt, "the clock");
                wall_time(clock, &mut |words, check| {
                    prompt.say(words);
                    prompt.input_that("time now, in UTC", "", check)
                })?
            }
            None => clock,
        };
        let mut random = secret::random(&self.face.report);
        let passphrase = match &args.passphrase_file {
            Some(file) => passphrase(file)?,
            None => {
                steps.next(prompt, "a passphrase for the keys");
                self.passphrase(&mut random)?
            }
        };
        let recovery = match &args.recovery_out {
            Some(file) => Recovery::File(file.clone()),
            None if args.no_recovery => Recovery::None,
            None => {
                steps.next(prompt, "recovery");
                self.recovery()?
            }
        };
        if recovery != Recovery::Paper && asks_recovery {
            steps.of -= 1;
        }
        let plan = Plan::draw(&mut random, &request(args, &name, created_hint)?)
            .map_err(|error| failed("mint a domain", self.path, &error))?;
        steps.next(prompt, "the plan");
        prompt.say(&self.plan(&plan.domain(), &name, &recovery));
        if !args.yes && !prompt.confirm("Write this?", true)? {
            return Err(prompt::PromptError::Stopped.into());
        }
        let recovery = match recovery {
            Recovery::Paper => {
                // Before somebody copies words for nothing.
                self.check_writable()?;
                steps.next(prompt, "the recovery phrase, on paper");
                self.paper(&plan, &mut random)?
            }
            other => other,
        };
        Ok(Order {
            found: Found::Drawn(Box::new(plan)),
            passphrase,
            recovery,
        })
    }

    /// Says what kinds of domain there are. One that several people speak for needs a key of each of them, from their own machines.
    fn kind(&self) -> Result<()> {
        let together = "see: asl domain draft --help";
        self.prompt.select(
            "Who speaks for it",
            &[
                Choice::new("personal: you alone"),
                Choice::disabled("group: several people", together),
                Choice::disabled("common: everybody", together),
            ],
        )?;
        Ok(())
    }

    /// Says which layout the keyboard has, and lets it be tried and changed.
    fn keyboard(&self, system: &System<'_>) -> Result<()> {
        let prompt = self.prompt;
        loop {
            let keyboard = Keyboard::find(system);
            prompt.say(&format!(
                "{}\nA passphrase that was typed with another layout than you think is lost.",
                keyboard.words()
            ));
            let typed =
                prompt.input(&format!("Type {} to see what comes", keyboard::TELLING), "")?;
            if bare(&typed) == bare(keyboard::TELLING) {
                prompt.say("The keys give what is printed on them.");
                return Ok(());
            }
            if !typed.is_empty() {
                prompt.say(&format!("That is not {}, but {typed}", keyboard::TELLING));
            }
            let mut choices = vec![
                Choice::new("go on with this layout"),
                Choice::new("try the keys again"),
            ];
            if keyboard.changer.is_some() {
                choices.push(Choice::new("change the layout"));
            }
            match prompt.select("The keyboard", &choices)? {
                0 => return Ok(()),
                1 => {}
                _ => self.change_layout(&keyboard, system)?,
            }
        }
    }

    fn change_layout(&self, keyboard: &Keyboard, system: &System<'_>) -> Result<()> {
        let prompt = self.prompt;
        let known: Vec<(&str, &str)> = keyboard.choices().collect();
        let mut choices: Vec<Choice> = known
            .iter()
            .map(|(name, people)| Choice::new(format!("{name:<10} {people}")))
            .collect();
        choices.push(Choice::new("another one"));
        let chosen = prompt.select("Which layout", &choices)?;
        let name = match known.get(chosen) {
            Some((name, _)) => (*name).to_owned(),
            None => prompt.input_that("its name", "", |name| match keyboard::is_name(name) {
                true => Ok(name.to_owned()),
                false => Err("a name is letters, digits, - and _".to_owned()),
            })?,
        };
        match keyboard.change(system, &name) {
            Some((command, true)) => prompt.say(&format!("done with: {command}")),
            Some((command, false)) => prompt.say(&format!("this failed: {command}")),
            None => {}
        }
        Ok(())
    }

    fn passphrase(&self, random: &mut dyn Random) -> Result<Zeroizing<String>> {
        let prompt = self.prompt;
        prompt.say(
            "The private keys are kept in the store, encrypted. Whoever finds the disk can try \
             passphrases for as long as they like.",
        );
        let mut choices = vec![Choice::new("a passphrase of my own")];
        if secret::is_recorded() {
            prompt.say("This session is recorded, so none is made up here: it would be seen.");
        } else {
            choices.insert(
                0,
                Choice::new("a passphrase made up here: six words (66 bits)"),
            );
        }
        loop {
            let own = prompt.select("Protect them with", &choices)? + 1 == choices.len();
            let passphrase = match own {
                true => self.own_passphrase()?,
                false => self.made_up_passphrase(random)?,
            };
            if let Some(passphrase) = passphrase {
                return Ok(passphrase);
            }
        }
    }

    /// `None` if it was thought better of.
    fn own_passphrase(&self) -> Result<Option<Zeroizing<String>>> {
        let prompt = self.prompt;
        let passphrase = prompt.new_secret("passphrase", "the same again")?;
        let (words, is_short) = judge_length(&passphrase);
        prompt.say(&words);
        if !passphrase.is_ascii() {
            prompt.say(
                "It has letters beyond ASCII, which another keyboard may not have, or may send \
                 as other bytes.",
            );
        }
        let taken = !is_short || prompt.confirm("Take it all the same?", false)?;
        Ok(taken.then_some(passphrase))
    }

    /// `None` if it was thought better of.
    fn made_up_passphrase(&self, random: &mut dyn Random) -> Result<Option<Zeroizing<String>>> {
        let prompt = self.prompt;
        let made_up = generate_passphrase(random).map_err(no_random)?;
        self.warn_of_traces()?;
        loop {
            let curtain = prompt.curtain();
            curtain.show("The passphrase of the keys:\n\n    ");
            curtain.show(&made_up);
            curtain.show(
                "\n\nCopy it to paper, or learn it. It is needed whenever the domain signs,\n\
                 and it is shown only now.\n\n",
            );
            prompt.pause("Enter when you have it")?;
            drop(curtain);
            let typed = prompt.secret("now type it")?;
            if *typed == *made_up {
                prompt.say("That is it.");
                return Ok(Some(made_up));
            }
            let choices = ["show it again", "another one"].map(Choice::new);
            if prompt.select("That is not the same", &choices)? == 1 {
                return Ok(None);
            }
        }
    }

    fn recovery(&self) -> Result<Recovery> {
        let prompt = self.prompt;
        prompt.say(&format!(
            "{PHRASE_WORDS} words give you the domain back if the keys are lost or stolen. They \
             belong on paper, away from this disk; the store does not have them."
        ));
        let mut paper = Choice::new("show them now; I have pen and paper");
        if secret::is_recorded() {
            paper = Choice::disabled("show them now", "this session is recorded");
        }
        let choices = [
            paper,
            Choice::new("write them to a file on another disk"),
            Choice::new("none: lost keys are lost for good"),
        ];
        loop {
            match prompt.select("The recovery phrase", &choices)? {
                0 => return Ok(Recovery::Paper),
                1 => {
                    let file = prompt.input("new file (Enter: choose again)", "")?;
                    let file = PathBuf::from(file);
                    if file.as_os_str().is_empty() {
                        continue;
                    }
                    match domain_phrase::objection(&file) {
                        _ if file.exists() => prompt.say("That file exists already."),
                        Err(error) => prompt.say(&error.in_one_line()),
                        Ok(None) => return Ok(Recovery::File(file)),
                        Ok(Some(words)) => {
                            prompt.say(&format!("{words}."));
                            if prompt.confirm("Write them there all the same?", false)? {
                                return Ok(Recovery::File(file));
                            }
                        }
                    }
                }
                _ if self.goes_without()? => return Ok(Recovery::None),
                _ => {}
            }
        }
    }

    /// What equals `--no-recovery`.
    fn goes_without(&self) -> Result<bool> {
        Ok(self.prompt.confirm(
            "Really without? A lost passphrase then loses the domain",
            false,
        )?)
    }

    fn plan(&self, domain: &DomainId, name: &str, recovery: &Recovery) -> String {
        let grouped = domain.grouped();
        let (first, second) = grouped.split_at(grouped.len().min(40));
        let recovery = match recovery {
            Recovery::File(file) => format!("written to {}", text::path(file)),
            Recovery::Paper => "shown in the next step, and written nowhere".to_owned(),
            Recovery::None | Recovery::Before => "none".to_owned(),
        };
        format!(
            "  store     {}\n  domain    {first}\n            {second}\n  name      {}\n  \
             kind      personal: your keys alone\n  keys      4 are drawn; 3 go encrypted into a \
             new file in\n            meta/keys/priv/, the fourth is the recovery phrase\n  \
             log       the domain's manifest, and a signature of the log so far\n  cache     \
             meta/dam, meta/policy, meta/keys/pub, meta/host\n  recovery  {recovery}",
            match &self.args.place {
                // The whole name is on the next line.
                Some(place) => text::path(&place.join(format!("{:.12}...", domain.to_string()))),
                None => text::path(self.path),
            },
            text::visible(name),
        )
    }

    /// Refuses what would fail after the phrase was copied: a store that is locked, read-only or full, or has got a domain.
    fn check_writable(&self) -> Result<()> {
        check_place(self.face, self.args)?;
        let (_, store) = self.face.reader()?;
        let begun = mint::begun_in(&store).and_then(|begun| match begun {
            Begun::Nothing => Ok(()),
            Begun::Unfinished(domain) => Err(MintError::Unfinished { domain }.into()),
        });
        begun.map_err(|error| failed("mint a domain", self.path, &error))?;
        let failed = |error| CliError::of_io("write to the store", self.path, &error);
        access(self.path, Access::WRITE_OK).map_err(|errno| failed(errno.into()))?;
        let stat = statvfs(self.path).map_err(|errno| failed(errno.into()))?;
        if stat.f_bavail.saturating_mul(stat.f_frsize) < ROOM_MIN_BYTES {
            return Err(failed(rustix::io::Errno::NOSPC.into()));
        }
        match store.vfs().lock(LOCK_PATH) {
            Ok(None) => {
                let holder = std::fs::read_to_string(self.path.join(LOCK_PATH));
                let holder = holder.unwrap_or_default();
                let error = StoreError::Locked {
                    holder: format!(": {}", holder.trim()),
                };
                Err(CliError::of_store("mint a domain", self.path, &error))
            }
            // Where there are no locks, or other trouble, opening the store says so.
            _ => Ok(()),
        }
    }

    /// A terminal without a second screen, and whatever keeps what was on it.
    fn warn_of_traces(&self) -> Result<()> {
        if self.prompt.moves() {
            return Ok(());
        }
        self.prompt.say(
            "This terminal cannot take back what it shows: clear its memory of old lines later, \
             and go on only if nobody logs it.",
        );
        match self.prompt.confirm("Show it here?", false)? {
            true => Ok(()),
            false => Err(prompt::PromptError::Stopped.into()),
        }
    }

    fn recorded(&self) -> CliError {
        let error = CliError::new("a recovery phrase is not shown while the session is recorded")
            .exit(Exit::Input);
        let how = "write it to a file on another disk";
        error.hint(match self.args.place {
            // Another command founds it.
            Some(_) => format!("{how}: add --recovery-out FILE"),
            None => format!(
                "{how}: asl domain mint --recovery-out FILE --store {}",
                text::shell_path(self.path)
            ),
        })
    }

    /// Shows the phrase and asks some of it back.
    fn paper(&self, plan: &Plan, random: &mut dyn Random) -> Result<Recovery> {
        let prompt = self.prompt;
        let phrase = plan.phrase().ok_or_else(|| {
            CliError::new("the recovery phrase is gone").hint("repeat the command")
        })?;
        if secret::is_recorded() {
            return Err(self.recorded());
        }
        self.warn_of_traces()?;
        loop {
            if self.show_and_ask(&phrase, random)? {
                prompt.say("The words on your paper are right.");
                return Ok(Recovery::Paper);
            }
            let choices = [
                Choice::new("show the words again"),
                Choice::new("go on without: lost keys are lost for good"),
            ];
            let again = prompt.select("What you typed is not in the phrase", &choices)? == 0;
            if !again && self.goes_without()? {
                return Ok(Recovery::None);
            }
        }
    }

    /// Whether the words that were asked back are right. All of it goes with the curtain.
    fn show_and_ask(&self, phrase: &Phrase, random: &mut dyn Random) -> Result<bool> {
        let prompt = self.prompt;
        let curtain = prompt.curtain();
        curtain.show("The recovery phrase, shown only now:\n\n");
        curtain.show(&sheet(phrase));
        curtain.show(
            "\nCopy the words to paper, with their numbers, and keep it away from this disk.\n\
             Whoever has them has the domain.\n\n",
        );
        prompt.pause("Enter when they are on paper")?;
        curtain.clear();
        prompt.say("From your paper:");
        let mut right = true;
        for n in places(random).map_err(no_random)? {
            let typed = prompt.seen_secret(&format!("word {n}"))?;
            let word = phrase.word(n);
            right &= word.is_some_and(|word| typed.trim().eq_ignore_ascii_case(word));
        }
        Ok(right)
    }
}

fn no_random(error: std::io::Error) -> CliError {
    CliError::new("no random numbers could be drawn").caused_by(&error)
}

fn bare(typed: &str) -> String {
    typed.chars().filter(|c| !c.is_whitespace()).collect()
}

/// A name that a domain can have.
pub(super) fn check_name(name: &str) -> Result<String, String> {
    if name.is_empty() {
        Err("a name, please".to_owned())
    } else if name.len() > LABEL_MAX {
        Err(format!(
            "that is {} bytes long; {LABEL_MAX} are the most",
            name.len()
        ))
    } else if !text::is_printable(name) {
        Err("a name has no control characters".to_owned())
    } else {
        Ok(name.to_owned())
    }
}

/// What is said about a passphrase's length, and whether it is short. Nothing else can be judged: what looks random to a program
/// may be somebody's birthday.
fn judge_length(passphrase: &str) -> (String, bool) {
    let length = passphrase.chars().count();
    let word = match length {
        0..=SHORT => "short",
        _ if length <= FAIR => "fair",
        _ => "long",
    };
    let characters = text::count(length as u64, "character");
    (
        format!("{characters}: {word}. (Only the length is judged.)"),
        length <= SHORT,
    )
}

type CheckTime<'c> = &'c dyn Fn(&str) -> Result<i64, String>;

/// Asks for the time, once; whoever does not know it leaves what the clock says.
fn wall_time(
    clock: i64,
    ask: &mut dyn FnMut(&str, CheckTime<'_>) -> prompt::Result<i64>,
) -> Result<i64> {
    let words = format!(
        "The clock says {}, which cannot be. The domain's manifest tells when it was made; nothing \
         depends on it. Write it like 2026-11-21 14:30; Enter alone leaves what the clock says.",
        text::time(clock)
    );
    let check = |typed: &str| match typed.parse::<Moment>() {
        _ if typed.is_empty() => Ok(clock),
        Ok(moment) if is_absurd(moment.unix_ns) => Err("that cannot be either".to_owned()),
        Ok(moment) => Ok(moment.unix_ns),
        Err(why) => Err(why),
    };
    Ok(ask(&words, &check)?)
}

/// The phrase as rows of numbered words.
fn sheet(phrase: &Phrase) -> Zeroizing<String> {
    let mut sheet = Zeroizing::new(String::with_capacity(PHRASE_WORDS * 20));
    for (at, word) in phrase.words().enumerate() {
        let number = at + 1;
        if number < 10 {
            sheet.push(' ');
        }
        sheet.push_str(&format!("   {number}  "));
        sheet.push_str(word);
        if number % WORDS_A_ROW == 0 {
            sheet.push('\n');
        } else {
            sheet.extend(std::iter::repeat_n(' ', 10usize.saturating_sub(word.len())));
        }
    }
    sheet
}

/// Different places in the phrase, in order.
fn places(random: &mut dyn Random) -> std::io::Result<Vec<usize>> {
    let mut places = Vec::new();
    while places.len() < ASKED_BACK {
        let mut byte = [0];
        random.fill(&mut byte)?;
        // The largest multiple of 24 in a byte is 240: beyond, some places would come more often.
        let place = usize::from(byte[0]) % PHRASE_WORDS + 1;
        if byte[0] < 240 && !places.contains(&place) {
            places.push(place);
        }
    }
    places.sort();
    Ok(places)
}

#[cfg(test)]
mod tests;
