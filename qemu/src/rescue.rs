//! The road of a rescue, step by step, for stories that take all of it or part of it: a disk with damage, the wizard over
//! the serial line, and what is done at home afterwards.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;

use crate::{
    console::Console,
    disk::{Bus, Disk},
    error::{Error, Result},
    host::{Spread, host, program},
};

const SECTOR: usize = 512;
/// What stands in an export for what could not be read.
const FILL: u8 = 0x5a;
/// For the next question to be asked. Keys are derived slowly on purpose, and slower still in a translated guest.
const ASKS: Duration = Duration::from_secs(180);

/// A disk that is dying.
#[derive(Debug)]
pub struct Patient {
    /// What is on it, sectors that cannot be read included.
    pub bytes: Vec<u8>,
    /// Sectors that cannot be read, ascending.
    pub bad: Vec<u64>,
    /// Its image.
    pub image: PathBuf,
    /// What its capture is called.
    pub label: &'static str,
}

impl Patient {
    /// The serial number by which stories find it.
    pub const SERIAL: &str = "DYING001";

    /// A disk of so many MiB, a third of it empty, as disks are, with as many bad sectors as asked for.
    pub fn new(directory: &Path, seed: u64, mib: usize, bad_sectors: usize) -> Result<Self> {
        let size = mib << 20;
        let mut spread = Spread::new(seed);
        let mut bytes = spread.bytes(size);
        bytes[size / 3..size * 2 / 3].fill(0);
        let bad = spread.bad_sectors(bad_sectors, (size / SECTOR) as u64);
        let image = directory.join("patient.img");
        fs::write(&image, &bytes).map_err(Error::host("cannot write", &image))?;
        Ok(Self {
            bytes,
            bad,
            image,
            label: "patient",
        })
    }

    /// As a disk on this bus.
    pub fn disk(&self, bus: Bus) -> Disk {
        Disk::new(Self::SERIAL, &self.image, bus).bad_sectors(self.bad.iter().copied())
    }

    /// The bad sectors as ranges of bytes: start and length, as a report lists them.
    pub fn unreadable(&self) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for start in self.bad.iter().map(|sector| sector * SECTOR as u64) {
            match ranges.last_mut() {
                Some((from, length)) if *from + *length == start => *length += SECTOR as u64,
                _ => ranges.push((start, SECTOR as u64)),
            }
        }
        ranges
    }

    /// Fails unless the image has every byte that could be read, and the fill everywhere else.
    fn compare(&self, image: &Path) -> Result<()> {
        let home = fs::read(image).map_err(Error::host("cannot read", image))?;
        let mut expected = self.bytes.clone();
        for (start, length) in self.unreadable() {
            expected[start as usize..(start + length) as usize].fill(FILL);
        }
        let differs = home
            .chunks(SECTOR)
            .zip(expected.chunks(SECTOR))
            .position(|(one, other)| one != other);
        if home.len() == expected.len() && differs.is_none() {
            return Ok(());
        }
        Err(differing(
            image,
            &format!(
                "{} bytes, not {}; the first sector that differs: {differs:?}",
                home.len(),
                expected.len()
            ),
        ))
    }
}

fn differing(what: &Path, how: &str) -> Error {
    Error::Refused {
        order: format!("compare {}", what.display()),
        answer: how.to_owned(),
    }
}

/// What somebody who minted a domain has on paper.
#[derive(Debug, Clone)]
pub struct Minted {
    /// The domain's id.
    pub domain_id: String,
    /// The passphrase that was made up.
    pub passphrase: String,
    /// The words of the recovery phrase.
    pub phrase: Vec<String>,
}

/// Mints a domain in the store that is meant, by the wizard, as a person does who presses Enter where that will do.
pub fn mint(console: &mut Console) -> Result<Minted> {
    let end = console.start("asl domain mint")?;
    let mut answer = |question: &str, keys: &str| -> Result<String> {
        let shown = console.expect(question, ASKS)?;
        console.send(keys)?;
        Ok(shown)
    };
    answer("see what comes", "\r")?;
    answer("The keyboard (arrow", "\r")?;
    answer("name [rescue]", "\r")?;
    answer("Who speaks for it (arrow", "\r")?;
    answer("Protect them with (arrow", "\r")?;
    let shown = answer("Enter when you have it", "\r")?;
    let passphrase = shown
        .lines()
        .map(str::trim)
        .rfind(|line| line.matches('-').count() == 5 && !line.contains(' '))
        .ok_or_else(|| unseen("a passphrase", &shown))?
        .to_owned();
    answer("now type it: ", &format!("{passphrase}\r"))?;
    answer("The recovery phrase (arrow", "\r")?;
    answer("Write this? [Y/n]", "\r")?;
    let shown = answer("Enter when they are on paper", "\r")?;
    let phrase = words(&shown).ok_or_else(|| unseen("24 words", &shown))?;
    let mut last = None;
    for _ in 0..3 {
        let number = loop {
            console.expect("word ", ASKS)?;
            let asked = console.expect(":", ASKS)?;
            let asked = asked.rsplit("word ").next().unwrap_or_default();
            let number = asked.trim_end_matches(':').parse::<usize>().ok();
            if number.is_some() && number != last {
                break number;
            }
        };
        last = number;
        let nth = number.unwrap_or(0).wrapping_sub(1);
        let word = phrase
            .get(nth)
            .ok_or_else(|| unseen("that word", &format!("{number:?}")))?;
        console.send(&format!("{word}\r"))?;
    }
    let said = console.finish(&end, ASKS)?.ok()?;
    let id = said.split("--expect ").nth(1).unwrap_or_default();
    let domain_id = id.split_whitespace().next().unwrap_or_default().to_owned();
    if !domain_id.starts_with("asl1") {
        return Err(unseen("the domain's id", &said));
    }
    Ok(Minted {
        domain_id,
        passphrase,
        phrase,
    })
}

fn unseen(wanted: &str, shown: &str) -> Error {
    Error::Timeout {
        wanted: wanted.to_owned(),
        waited: Duration::ZERO,
        last: shown.to_owned(),
    }
}

/// The recovery phrase as it stands on the screen: rows of numbers and words.
fn words(shown: &str) -> Option<Vec<String>> {
    let numbered = |line: &&str| {
        let first = line.split_ascii_whitespace().next();
        first.is_some_and(|first| first.parse::<usize>().is_ok())
    };
    let rows = shown.lines().filter(numbered);
    let cells: Vec<&str> = rows.flat_map(str::split_ascii_whitespace).collect();
    let words: Vec<String> = cells
        .chunks_exact(2)
        .enumerate()
        .filter(|(nth, cell)| cell[0].parse() == Ok(nth + 1))
        .map(|(_, cell)| cell[1].to_owned())
        .collect();
    (words.len() == 24).then_some(words)
}

/// At home: the rescue store becomes part of a new domain of one's own, in the root that this gives.
pub fn promote(directory: &Path, store: &Path, minted: &Minted) -> Result<PathBuf> {
    let root = directory.join("home");
    let passphrase = directory.join("home.pass");
    fs::write(&passphrase, "a passphrase of one's own\n")
        .map_err(Error::host("cannot write", &passphrase))?;
    host(
        Command::new(program("asl-promote")?)
            .arg(store)
            .arg("--into")
            .arg(&root)
            .args(["--as-new", "--name", "home", "--no-recovery", "--yes"])
            .args(["--expect", &minted.domain_id, "--passphrase-file"])
            .arg(&passphrase)
            .env("ASL_STATE", directory.join("home.state")),
        &[0],
    )?;
    Ok(root)
}

/// Exports the disk's capture and compares: the unreadable list is exact, and every other byte is the disk's.
/// `place` is `--store` or `--root`.
pub fn export_and_compare(
    directory: &Path,
    place: &str,
    path: &Path,
    patient: &Patient,
) -> Result<()> {
    let asl = program("asl")?;
    let state = directory.join("home.state");
    let run = |words: &[&str], statuses: &[i32]| {
        let mut command = Command::new(&asl);
        command.args(words).arg(place).arg(path);
        host(command.env("ASL_STATE", &state), statuses)
    };
    let shown = run(&["show", patient.label, "--json"], &[0, 3])?;
    let shown: Value = serde_json::from_slice(&shown).map_err(|error| Error::Refused {
        order: "asl show".to_owned(),
        answer: error.to_string(),
    })?;
    let listed: Vec<(u64, u64)> = shown["unreadable"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|range| {
            // Start, length, the kernel's error number.
            let number = |at: usize| range[at].as_u64().unwrap_or(u64::MAX);
            (number(0), number(1))
        })
        .collect();
    if listed != patient.unreadable() {
        return Err(differing(path, &format!("unreadable: {shown}")));
    }
    let image = directory.join("exported.img");
    let out = image.display().to_string();
    let status = if patient.bad.is_empty() { 0 } else { 3 };
    let fill = format!("pattern:{FILL:02x}");
    run(&["export", patient.label, &out, "--fill", &fill], &[status])?;
    patient.compare(&image)?;
    fs::remove_file(&image).map_err(Error::host("cannot remove", &image))
}

/// The same with docs/extract.py, which knows the documented format and nothing else.
pub fn extract(directory: &Path, store: &Path, patient: &Patient) -> Result<()> {
    let Some(python) = env::var_os("ASL_PYTHON") else {
        return Err(Error::Missing(
            "ASL_PYTHON names no Python with what docs/extract.py needs".to_owned(),
        ));
    };
    let image = directory.join("extracted.img");
    host(
        Command::new(python)
            .arg(crate::host::root().join("docs/extract.py"))
            .arg(store)
            .args(["export", patient.label])
            .arg(&image)
            .args(["--fill", &format!("0x{FILL:02x}")]),
        &[0],
    )?;
    patient.compare(&image)?;
    fs::remove_file(&image).map_err(Error::host("cannot remove", &image))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_read_off_the_screen() {
        let mut shown = String::from("Write these down.\n\n");
        for row in 0..6 {
            for column in 0..4 {
                let number = row * 4 + column + 1;
                shown += &format!("{number:>4} w{number:<10}");
            }
            shown.push('\n');
        }
        let found = words(&shown).unwrap();
        assert_eq!((found[0].as_str(), found[23].as_str()), ("w1", "w24"));
        assert_eq!(words("1 one 2 two\n"), None);
    }

    #[test]
    fn neighbouring_sectors_are_one_range() {
        let patient = Patient {
            bytes: Vec::new(),
            bad: vec![3, 4, 5, 9],
            image: PathBuf::new(),
            label: "x",
        };
        assert_eq!(patient.unreadable(), [(1536, 1536), (4608, 512)]);
    }
}
