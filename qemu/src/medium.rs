//! Which medium a story starts from.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    error::{Error, Result},
    host::{have_program, host, root},
};

/// Whose system is on the medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The one that `scripts/build-iso` makes.
    Ours,
    /// A real SystemRescue that `scripts/customize-iso` added the tools to.
    SystemRescue,
}

/// A bootable image.
#[derive(Debug, Clone)]
pub struct Medium {
    /// The image.
    pub path: PathBuf,
    /// Whose system it holds.
    pub kind: Kind,
    /// Whether the machine may write to it, as to a stick.
    pub(crate) writable: bool,
}

impl Medium {
    /// The medium that stories run on: `ASL_MEDIUM` where that is set, which
    /// `scripts/test` does for a real SystemRescue, else ours.
    pub fn of_the_day() -> Result<Self> {
        match env::var_os("ASL_MEDIUM") {
            Some(path) => Self::at(path.into(), Kind::SystemRescue),
            None => Self::ours(),
        }
    }

    /// `dist/asl-rescue.iso`.
    pub fn ours() -> Result<Self> {
        Self::at(root().join("dist/asl-rescue.iso"), Kind::Ours)
    }

    /// A copy with files put in or replaced: pairs of a host's file and where it goes. Label and boot records stay.
    pub fn altered(&self, copy: &Path, files: &[(&Path, &str)]) -> Result<Self> {
        if !have_program("xorriso") {
            return Err(Error::Missing("there is no xorriso".to_owned()));
        }
        let mut xorriso = Command::new("xorriso");
        xorriso
            .args([
                "-return_with",
                "FAILURE",
                "32",
                "-overwrite",
                "on",
                "-indev",
            ])
            .arg(&self.path);
        xorriso
            .arg("-outdev")
            .arg(copy)
            .args(["-boot_image", "any", "replay"]);
        for (file, place) in files {
            xorriso.arg("-update").arg(file).arg(place);
        }
        host(&mut xorriso, &[0])?;
        Ok(Self {
            path: copy.to_owned(),
            ..*self
        })
    }

    /// A copy on a stick of so many MiB, which can be written to and has room behind the image.
    pub fn on_a_stick(&self, copy: &Path, mib: u64) -> Result<Self> {
        let copied = fs::copy(&self.path, copy)
            .and_then(|_| fs::File::options().write(true).open(copy))
            .and_then(|file| file.set_len(mib << 20));
        copied.map_err(Error::host("cannot make", copy))?;
        Ok(Self {
            path: copy.to_owned(),
            writable: true,
            ..*self
        })
    }

    fn at(path: PathBuf, kind: Kind) -> Result<Self> {
        if !path.is_file() {
            return Err(Error::Missing(format!(
                "there is no {}; scripts/build-iso makes our medium",
                path.display()
            )));
        }
        Ok(Self {
            path,
            kind,
            writable: false,
        })
    }

    /// A copy to which `scripts/customize-iso` added the tools.
    pub fn customized(&self, copy: &Path) -> Result<Self> {
        host(
            Command::new(root().join("scripts/customize-iso"))
                .arg(&self.path)
                .arg(copy),
            &[0],
        )?;
        Ok(Self {
            path: copy.to_owned(),
            ..*self
        })
    }

    /// The memory that a machine needs to start from it, in MiB.
    pub fn memory_mib(&self) -> u32 {
        match self.kind {
            Kind::Ours => 512,
            Kind::SystemRescue => 2048,
        }
    }

    /// QEMU's arguments that start the kernel by itself, with a serial console, where
    /// the medium's own menu would start it without one: SystemRescue's does. The
    /// options are those of the entry that `scripts/customize-iso` added.
    pub(crate) fn direct(&self, directory: &Path) -> Result<Vec<String>> {
        if self.kind == Kind::Ours {
            return Ok(Vec::new());
        }
        let places = [
            ("vmlinuz", "/sysresccd/boot/x86_64/vmlinuz"),
            ("initrd", "/sysresccd/boot/x86_64/sysresccd.img"),
            ("menu", "/sysresccd/boot/syslinux/sysresccd_custom.cfg"),
        ];
        let mut xorriso = Command::new("xorriso");
        xorriso.args(["-osirrox", "on", "-indev"]).arg(&self.path);
        for (name, place) in places {
            xorriso.args(["-extract", place]).arg(directory.join(name));
        }
        host(&mut xorriso, &[0])?;
        let menu = directory.join("menu");
        let text = fs::read_to_string(&menu).map_err(Error::host("cannot read", &menu))?;
        let options = text
            .lines()
            .skip_while(|line| *line != "LABEL asl")
            .find_map(|line| line.strip_prefix("APPEND "))
            .ok_or_else(|| {
                Error::Missing(format!(
                    "{} has no entry of ours in its menu",
                    self.path.display()
                ))
            })?;
        let argument = |name: &str| directory.join(name).display().to_string();
        Ok(vec![
            "-kernel".to_owned(),
            argument("vmlinuz"),
            "-initrd".to_owned(),
            argument("initrd"),
            "-append".to_owned(),
            format!("{options} console=tty0 console=ttyS0,115200n8"),
        ])
    }

    /// The words that stand before the cursor once somebody may type.
    pub(crate) fn prompt(&self) -> &'static str {
        "root@sysrescue "
    }
}
