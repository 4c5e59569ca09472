//! What is on a device that nobody has looked at, asked when the user has chosen it.
//!
//! `blkid --probe` (util-linux, blkid(8)) reads a dozen places of it. A device that does not answer is not waited for: what was
//! asked is left behind, since a process in the kernel's hands cannot be ended.

use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::mountable::is_mountable;
use crate::text;

/// For a disk to spin up and answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Exit status of blkid where it knows nothing of what it saw.
const NOTHING_KNOWN: i32 = 2;
/// And where it saw several things at once.
const AMBIVALENT: i32 = 8;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A filesystem that can be mounted and written to.
    Filesystem {
        /// Its type.
        fs_type: String,
        /// Its label.
        label: Option<String>,
    },
    /// Something that takes no store as it is.
    Unfit {
        /// What and why, with what to do about it.
        why: String,
    },
    /// Nobody can say; mounting will tell.
    Unknown,
}

/// Looks at `device`.
pub fn look(device: &str) -> Found {
    let mut command = Command::new("blkid");
    command
        .args(["--probe", "--output", "export", device])
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    let (answer, answers) = channel();
    std::thread::spawn(move || {
        // Nobody may be waiting any more.
        let _ = answer.send(command.output());
    });
    match answers.recv_timeout(PATIENCE) {
        Err(_) => Found::Unfit {
            why: "it does not answer; check its cable and power".to_owned(),
        },
        // There is no blkid.
        Ok(Err(_)) => Found::Unknown,
        Ok(Ok(output)) => {
            let said = String::from_utf8_lossy(&output.stdout);
            judge(device, output.status.code(), &said)
        }
    }
}

/// Makes sense of blkid's answer: lines `KEY=value`, odd characters after a backslash.
fn judge(device: &str, status: Option<i32>, said: &str) -> Found {
    let value = |key: &str| {
        let mut lines = said.lines();
        let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
        Some(value.replace('\\', ""))
    };
    let device = text::shell(device);
    let why = match (status, value("TYPE")) {
        (Some(0), Some(fs_type)) if is_mountable(&fs_type) => {
            let label = value("LABEL");
            return Found::Filesystem { fs_type, label };
        }
        (Some(0), Some(kind)) if kind == "crypto_LUKS" => {
            format!(
                "it is encrypted (LUKS); open it (cryptsetup open {device} opened), mount /dev/mapper/opened"
            )
        }
        (Some(0), Some(kind)) => format!("it holds {kind}, which is not mounted to be written to"),
        (Some(0), None) => "it holds a partition table; take one of the partitions".to_owned(),
        (Some(NOTHING_KNOWN), _) => format!(
            "there is no file system on it. If it is new, make one, which erases what is on it: mkfs.ext4 {device}"
        ),
        (Some(AMBIVALENT), _) => {
            format!("it bears the marks of several file systems at once; see: wipefs {device}")
        }
        _ => return Found::Unknown,
    };
    Found::Unfit { why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(found: Found) -> String {
        match found {
            Found::Unfit { why } => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_blkid_says_is_understood() {
        let said = "DEVNAME=/dev/sdb1\nLABEL=My\\ disk\nUUID=1-2\nTYPE=exfat\n";
        let found = judge("/dev/sdb1", Some(0), said);
        let label = Some("My disk".to_owned());
        let fs_type = "exfat".to_owned();
        assert_eq!(found, Found::Filesystem { fs_type, label });
        for (status, said, word) in [
            (0, "TYPE=crypto_LUKS\n", "cryptsetup open /dev/sdb1"),
            (0, "TYPE=LVM2_member\n", "LVM2_member"),
            (0, "PTTYPE=gpt\n", "partition"),
            (2, "", "mkfs.ext4 /dev/sdb1"),
            (8, "", "wipefs /dev/sdb1"),
        ] {
            let why = why(judge("/dev/sdb1", Some(status), said));
            assert!(why.contains(word), "{why}");
        }
        assert_eq!(judge("/dev/sdb1", Some(1), ""), Found::Unknown);
        assert_eq!(judge("/dev/sdb1", None, ""), Found::Unknown);
    }

    #[test]
    fn a_file_is_looked_at_for_what_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        std::fs::write(&image, vec![0; 1 << 20]).unwrap();
        let path = image.to_str().unwrap();
        // Where there is no blkid, nobody can say.
        let nothing = look(path);
        if nothing == Found::Unknown {
            return;
        }
        assert!(why(nothing).contains("no file system"));
        let mut bytes = vec![0; 1 << 20];
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        bytes[446..462].copy_from_slice(&[0, 0, 2, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0]);
        std::fs::write(&image, bytes).unwrap();
        assert!(why(look(path)).contains("partition"));
    }
}
