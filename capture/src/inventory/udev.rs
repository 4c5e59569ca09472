//! udev's database: what udev and blkid found out when a device appeared, kept
//! in `/run/udev/data`, so that nobody has to ask the disk again.
//!
//! The format is udev's own (a line `E:KEY=VALUE` for each property) and is read
//! leniently: an unknown line is skipped, a missing file is an empty record.

use std::collections::BTreeMap;
use std::fs;

use super::{DevNumber, SystemPaths};

/// The properties of one block device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UdevRecord {
    properties: BTreeMap<String, String>,
}

impl UdevRecord {
    /// What udev knows of the device; nothing where udev does not run.
    pub fn read(system: &SystemPaths, number: DevNumber) -> Self {
        let path = system.run.join("udev/data").join(format!("b{number}"));
        let bytes = fs::read(path).unwrap_or_default();
        Self::parse(&String::from_utf8_lossy(&bytes))
    }

    fn parse(text: &str) -> Self {
        let properties = text
            .lines()
            .filter_map(|line| line.strip_prefix("E:")?.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        Self { properties }
    }

    /// Whether udev had blkid look at what is on the device. Rules can forbid that, as our medium's do
    /// (60-persistent-storage.rules knows the property); then nothing here says what is on it.
    pub fn was_probed(&self) -> bool {
        let forbidden = self.get("UDEV_DISABLE_PERSISTENT_STORAGE_BLKID_FLAG");
        !self.properties.is_empty() && forbidden.as_deref() != Some("1")
    }

    /// A property; empty is `None`.
    pub fn get(&self, key: &str) -> Option<String> {
        self.properties.get(key).cloned()
    }

    /// A property whose `_ENC` form, with `\x20` for a space and so on, is more
    /// faithful than the plain one, where udev replaced spaces by underscores.
    pub fn text(&self, key: &str) -> Option<String> {
        let encoded = self.properties.get(&format!("{key}_ENC"));
        let decoded = encoded.map(|value| decode(value).trim().to_owned());
        decoded
            .filter(|value| !value.is_empty())
            .or_else(|| self.get(key))
    }
}

fn decode(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = rest.find("\\x") {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let code = rest.get(at + 2..at + 4);
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[at + 4..];
            }
            None => {
                bytes.extend_from_slice(b"\\x");
                rest = &rest[at + 2..];
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_looked_at_is_not_taken_for_empty() {
        assert!(!UdevRecord::default().was_probed());
        let rest = "E:ID_SERIAL_SHORT=ABC\n";
        assert!(UdevRecord::parse(rest).was_probed());
        let flag = "E:UDEV_DISABLE_PERSISTENT_STORAGE_BLKID_FLAG=";
        assert!(!UdevRecord::parse(&format!("{flag}1\n{rest}")).was_probed());
        assert!(UdevRecord::parse(&format!("{flag}0\n{rest}")).was_probed());
    }

    #[test]
    fn properties_are_read_and_the_rest_is_skipped() {
        let record = UdevRecord::parse(
            "S:disk/by-id/x\nW:3\nI:123\nE:ID_SERIAL_SHORT=ABC=1\nE:ID_WWN=\nE:ODD\nG:systemd\n",
        );
        assert_eq!(record.get("ID_SERIAL_SHORT").as_deref(), Some("ABC=1"));
        assert_eq!(record.get("ID_WWN"), None);
        assert_eq!(record.get("ODD"), None);
    }

    #[test]
    fn the_encoded_form_is_decoded() {
        let record = UdevRecord::parse(
            "E:ID_MODEL=My_Disk\nE:ID_MODEL_ENC=My\\x20Disk\\x20\\x20\n\
             E:ID_FS_LABEL=plain\nE:ID_VENDOR_ENC=a\\xzz\\xc3\\xa9\n",
        );
        assert_eq!(record.text("ID_MODEL").as_deref(), Some("My Disk"));
        assert_eq!(record.text("ID_FS_LABEL").as_deref(), Some("plain"));
        assert_eq!(record.text("ID_VENDOR").as_deref(), Some("a\\xzzé"));
    }
}
