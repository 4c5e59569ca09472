//! Which medium a story starts from.

use std::{
    env,
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
            kind: self.kind,
        })
    }

    fn at(path: PathBuf, kind: Kind) -> Result<Self> {
        if !path.is_file() {
            return Err(Error::Missing(format!(
                "there is no {}; scripts/build-iso makes our medium",
                path.display()
            )));
        }
        Ok(Self { path, kind })
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
            kind: self.kind,
        })
    }

    /// The memory that a machine needs to start from it, in MiB.
    pub fn memory_mib(&self) -> u32 {
        match self.kind {
            Kind::Ours => 512,
            Kind::SystemRescue => 2048,
        }
    }

    /// The words that stand before the cursor once somebody may type.
    pub(crate) fn prompt(&self) -> &'static str {
        "root@sysrescue "
    }
}
