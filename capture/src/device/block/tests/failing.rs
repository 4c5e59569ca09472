//! Against a real block device that fails as a disk does: a loop device over a
//! file that a QEMU storage daemon serves with chosen errors.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Stdio};

use super::*;

/// The device is there until this is dropped.
struct Failing {
    script: Child,
    answers: BufReader<ChildStdout>,
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Failing {
    /// `bad` has a line `SECTOR [ERRNO [once]]` for each bad sector. `None`, with the
    /// reason printed, where such a device cannot be made.
    fn over(bytes: &[u8], bad: &str) -> Option<Self> {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/lib");
        let qemu = Command::new("qemu-storage-daemon")
            .arg("--version")
            .output();
        if !rustix::process::geteuid().is_root() || qemu.is_err() {
            println!("skipped: needs root and qemu-storage-daemon");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("disk.img");
        let list = directory.path().join("bad");
        fs::write(&image, bytes).unwrap();
        fs::write(&list, bad).unwrap();
        let mut script = Command::new("bash")
            .args(["-c", CONTROL, "failing-disk-of-a-test"])
            .args([&scripts, &image, &list])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = BufReader::new(script.stdout.take().unwrap());
        let mut disk = Self {
            script,
            answers,
            path: PathBuf::new(),
            _directory: directory,
        };
        disk.path = PathBuf::from(disk.answer());
        if disk.path.as_os_str().is_empty() {
            println!("skipped: no failing device to be had");
            return None;
        }
        Some(disk)
    }

    fn die(&mut self) {
        writeln!(self.script.stdin.as_mut().unwrap(), "die").unwrap();
        assert_eq!(self.answer(), "dead");
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn open(&self) -> BlockDevice {
        BlockDevice::open(&self.path, &OpenOptions::default())
            .unwrap()
            .0
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        // The end of its input ends the script, which takes the device away.
        drop(self.script.stdin.take());
        let _ = self.script.wait();
    }
}

const CONTROL: &str = r#"
set -euo pipefail
source "$1/common.sh"
source "$1/failing-disk"
failing_disk_start "$2" "$3"
echo "$FAILING_DISK"
while read -r _; do
  failing_disk_die
  echo dead
done
"#;

fn sector(device: &BlockDevice, number: u64) -> Result<(), ReadFailure> {
    device.read_at(number * 512, &mut buffer(512))
}

#[test]
fn bad_sectors_are_unreadable_with_their_errno_and_good_neighbours_read() {
    let bytes = pattern(1 << 20);
    let Some(disk) = Failing::over(&bytes, "100 61\n200 5\n300 110\n400 84 once\n") else {
        return;
    };
    let device = disk.open();
    for (number, errno) in [(100, 61), (200, 5), (300, 110), (400, 84)] {
        let unreadable = Err(ReadFailure::Unreadable { errno });
        assert_eq!(sector(&device, number), unreadable, "sector {number}");
        assert_eq!(sector(&device, number - 1), Ok(()));
        assert_eq!(sector(&device, number + 1), Ok(()));
    }
    assert_eq!(
        sector(&device, 400),
        Ok(()),
        "a weak one reads the second time"
    );
    let mut all = buffer(1 << 20);
    assert!(matches!(
        device.read_at(0, &mut all),
        Err(ReadFailure::Unreadable { .. })
    ));
    let mut part = buffer(99 * 512);
    device.read_at(512, &mut part).unwrap();
    assert!(part[..] == bytes[512..100 * 512]);
}

/// Every read of a loop device answers EIO once its daemon has died, and its
/// size stays: what a tool that believes errno maps as bad from end to end.
#[test]
fn a_device_that_died_behind_its_node_is_gone() {
    let Some(mut disk) = Failing::over(&pattern(1 << 20), "100 61\n") else {
        return;
    };
    let device = disk.open();
    assert_eq!(sector(&device, 7), Ok(()));
    // From here on the kernel remembers the file, for a second or so.
    assert!(device.alive());
    disk.die();
    assert!(!device.alive());
    for number in [7, 100, 1000] {
        let outcome = sector(&device, number);
        assert!(
            matches!(outcome, Err(ReadFailure::Gone { .. })),
            "sector {number}: {outcome:?}"
        );
    }
}
