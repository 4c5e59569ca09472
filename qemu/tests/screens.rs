//! What the machine's own screen shows, and the pictures of it in docs/GUIDE.md.
//!
//! `ASL_SCREENSHOTS=docs` in the environment makes them anew, else they stay with the story's logs.
//!
//! Each test boots a machine: `scripts/test --qemu` runs them.

use std::{
    env, fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use asl_qemu::{Bus, Disk, Error, FileSystem, Machine, Medium, Result, Running, story};

/// For something to appear on the screen of a translated guest.
const APPEARS: Duration = Duration::from_secs(120);
/// What a picture in the repository may weigh.
const PICTURE_MAX_BYTES: u64 = 60_000;

/// Waits until the words stand on the screen. They are read where the kernel keeps the text of the first console.
fn see(machine: &mut Running, words: &str) -> Result<()> {
    let until = Instant::now() + APPEARS;
    loop {
        let shown = machine
            .console
            .run("fold -w $(stty -F /dev/tty1 size | cut -d ' ' -f 2) /dev/vcs1")?
            .ok()?;
        if shown.contains(words) {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(Error::Timeout {
                wanted: words.to_owned(),
                waited: APPEARS,
                last: shown,
            });
        }
        thread::sleep(Duration::from_millis(500));
    }
}

fn picture(machine: &mut Running, name: &str) -> Result<()> {
    let directory = match env::var_os("ASL_SCREENSHOTS") {
        Some(directory) => PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .join(directory),
        None => machine.directory().to_owned(),
    };
    let directory = directory.canonicalize().map_err(|source| Error::Host {
        what: "cannot find",
        path: directory.clone(),
        source,
    })?;
    let file = directory.join(format!("{name}.png"));
    machine.screenshot(&file)?;
    let bytes = fs::read(&file).expect("QEMU wrote it");
    assert!(bytes.starts_with(b"\x89PNG"), "{}", file.display());
    assert!(
        bytes.len() as u64 <= PICTURE_MAX_BYTES,
        "{}: {} bytes",
        file.display(),
        bytes.len()
    );
    Ok(())
}

/// Covers K2, K5, K7.
#[test]
#[ignore = "boots a machine"]
fn the_greeting_and_the_wizard_fill_a_screen() {
    let name = "screens";
    story(name, |directory| {
        // The disks of the guide, as large as they would be: files with nothing in them take no space.
        let patient = directory.join("patient.img");
        fs::File::create(&patient)
            .and_then(|file| file.set_len(1_000_204_886_016))
            .expect("the story's directory can be written");
        let image = directory.join("destination.img");
        FileSystem::Exfat.disk_image(&image, 1_907_727)?;
        let mut machine = Machine::new(name, Medium::ours()?)
            .disk(Disk::new("S314JA0F", patient, Bus::Sata).named("ST1000LM024", "HN-M101MBB"))
            .disk(Disk::new("WXK1E32V", &image, Bus::Uas).named("WD", "Elements"))
            .start()?;
        machine.log_in()?;
        see(&mut machine, "What to type:")?;
        see(&mut machine, "root@sysrescue")?;
        picture(&mut machine, "greeting")?;

        machine
            .console
            .run("mount /dev/sdb1 /mnt/asl/local; export ASL_STORE=/mnt/asl/local/rescue")?
            .ok()?;
        machine.console.run("asl store init $ASL_STORE")?.ok()?;
        machine.type_keys("clear\nasl domain mint --store /mnt/asl/local/rescue\n")?;
        for question in [
            "see what comes",
            "The keyboard",
            "name [rescue]",
            "Who speaks for it",
        ] {
            see(&mut machine, question)?;
            machine.type_keys("\n")?;
        }
        see(&mut machine, "Protect them with")?;
        picture(&mut machine, "wizard")?;
        machine.power_off()
    });
}
