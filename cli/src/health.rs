//! What the kernel tells of a disk's health without asking the disk.
//!
//! Reading SMART attributes sends commands to the disk, which may be the last it
//! takes. What is in sysfs anyway is free: whether the device still answers, how
//! many requests failed, how worn an eMMC says it is.

use asl_capture::inventory::BlockNode;
use serde::Serialize;

/// How a disk seems to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing says so, nothing denies it.
    Unknown,
    /// The drive has no medium.
    Empty,
    /// It counts as used up.
    Worn,
    /// The kernel has given it up.
    Offline,
}

/// What is known of a disk's health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Health {
    /// How it seems to be.
    pub verdict: Verdict,
    /// Requests that failed since the system started, where the kernel counts them.
    /// A few are normal: drives refuse commands that they do not know.
    pub failed_requests: Option<u64>,
}

impl Health {
    /// Looks up what sysfs says of the disk.
    pub fn of(node: &BlockNode) -> Self {
        let read = |name: &str| node.attribute(name);
        Self::from_attributes(node.size_bytes(), &read)
    }

    fn from_attributes(size_bytes: u64, read: &dyn Fn(&str) -> Option<String>) -> Self {
        // SCSI and ATA: `running`; NVMe: `live`.
        let gone = ["offline", "transport-offline", "dead", "deleting"];
        let offline = read("device/state").is_some_and(|state| gone.contains(&state.as_str()));
        // eMMC 5.0: 1 normal, 2 and 3 most reserve blocks are used up.
        let spent = read("device/pre_eol_info")
            .and_then(|value| hex(&value))
            .is_some_and(|value| value >= 2);
        let verdict = if offline {
            Verdict::Offline
        } else if size_bytes == 0 {
            Verdict::Empty
        } else if spent {
            Verdict::Worn
        } else {
            Verdict::Unknown
        };
        Self {
            verdict,
            failed_requests: read("device/ioerr_cnt").and_then(|value| hex(&value)),
        }
    }

    /// In words, where there is something to say.
    pub fn words(&self) -> Option<&'static str> {
        match self.verdict {
            Verdict::Unknown => None,
            Verdict::Empty => Some("no medium in the drive"),
            Verdict::Worn => Some("says that it is worn out"),
            Verdict::Offline => Some("does not answer any more"),
        }
    }
}

fn hex(text: &str) -> Option<u64> {
    let digits = text.trim().strip_prefix("0x")?;
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(size_bytes: u64, attributes: &[(&str, &str)]) -> Health {
        let read = |name: &str| {
            let mut attributes = attributes.iter();
            attributes
                .find(|(of, _)| *of == name)
                .map(|(_, value)| (*value).to_owned())
        };
        Health::from_attributes(size_bytes, &read)
    }

    #[test]
    fn only_what_sysfs_says_is_said() {
        assert_eq!(health(1, &[]).verdict, Verdict::Unknown);
        assert_eq!(health(1, &[]).words(), None);
        assert_eq!(health(0, &[]).verdict, Verdict::Empty);
        assert_eq!(
            health(1, &[("device/state", "running")]).verdict,
            Verdict::Unknown
        );
        assert_eq!(
            health(0, &[("device/state", "offline")]).verdict,
            Verdict::Offline
        );
        assert_eq!(
            health(1, &[("device/pre_eol_info", "0x03")]).verdict,
            Verdict::Worn
        );
        assert_eq!(
            health(1, &[("device/pre_eol_info", "0x01")]).verdict,
            Verdict::Unknown
        );
        let counted = health(1, &[("device/ioerr_cnt", "0x1f")]);
        assert_eq!(counted.failed_requests, Some(31));
    }
}
