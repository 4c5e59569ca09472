//! The domain that `asl-promote --as-new` founds on its way.
//!
//! Order: the place is looked up; `domains` is made, and locked; a store in `domains/.minting`; the mint (see `domain_mint`), with its
//! questions; the store gets the domain's name.
//!
//! Crash: before the name, `domains/.minting` goes on with the same command. After it there is a domain with nothing in it, and the
//! same command promotes into that. A refusal or a "no" before any key was kept takes the store back.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use asl_bootstrap::mint::{self, Begun};
use asl_bootstrap::{Domain, DomainId};
use asl_capture::inventory::SystemPaths;
use asl_store::StoreHandle;
use asl_store::vfs::real::RealVfs;
use zeroize::Zeroizing;

use super::promote::Run;
use super::promote_target::Target;
use super::store_init::MadeDirs;
use super::{domain, domain_mint, domain_phrase, store_init, wizard};
use crate::args::{DomainMint, StoreInit};
use crate::error::{CliError, Result};
use crate::face::Face;
use crate::probe::{self, Allowed, Destination};
use crate::root::DOMAINS;
use crate::text;

/// Where a new domain lies until it has a name.
const MINTING: &str = ".minting";

/// A domain that was founded.
pub(super) struct Founded {
    /// Its store.
    pub(super) path: PathBuf,
    /// What unlocks its keys.
    pub(super) passphrase: Zeroizing<String>,
}

impl Run<'_> {
    /// Refuses, before anything is made, a place that cannot have a domain, for example the inside of the rescue store.
    pub(super) fn survey(&self, root: &Path) -> Result<Destination> {
        let allowed = Allowed {
            ephemeral: self.args.ephemeral,
            unmounted: false,
        };
        let place = root.join(DOMAINS).join(MINTING);
        Ok(probe::survey(&SystemPaths::default(), &place, allowed)?)
    }

    /// Refuses what the flags say of a new domain where it cannot be.
    pub(super) fn check_flags(&self) -> Result<()> {
        if let Some(file) = &self.args.passphrase_file {
            domain::passphrase(file)?;
        }
        if let Some(name) = &self.args.name {
            wizard::check_name(name).map_err(CliError::usage)?;
        }
        match &self.args.recovery_out {
            // The mint warns, where there is something to warn of.
            Some(file) => domain_phrase::objection(file).map(drop),
            None => Ok(()),
        }
    }

    /// Founds a domain below the root.
    pub(super) fn found(&self, root: &Path) -> Result<Founded> {
        let domains = root.join(DOMAINS);
        let path = domains.join(MINTING);
        let quiet = self.face.at(&path);
        let begun = path.join("log").is_dir();
        let made = MadeDirs::before(&domains);
        let _alone = self.found_alone(root, &domains)?;
        if !begun {
            store_init::make(
                &quiet,
                &StoreInit {
                    path: path.clone(),
                    shards: None,
                    block_size: None,
                    small_threshold: None,
                    max_packed: None,
                    ephemeral: self.args.ephemeral,
                    unmounted_ok: false,
                },
            )
            .inspect_err(|_| made.remove())?;
        }
        let minted = self.minted(&quiet, &path, &domains).inspect_err(|_| {
            if !begun && is_unused(&path) && fs::remove_dir_all(&path).is_ok() {
                made.remove();
            }
        });
        let (domain, passphrase) = minted?;
        let named = domains.join(domain.to_string());
        let rename = || -> std::io::Result<()> {
            fs::rename(&path, &named)?;
            fs::File::open(&domains)?.sync_all()
        };
        rename().map_err(|error| CliError::of_io("name", &named, &error))?;
        if let Some(prompt) = self.prompt {
            prompt.writes_begin();
        }
        Ok(Founded {
            path: named,
            passphrase,
        })
    }

    /// The domain of the store that waits for its name, and what unlocks its keys.
    fn minted(
        &self,
        quiet: &Face,
        path: &Path,
        domains: &Path,
    ) -> Result<(DomainId, Zeroizing<String>)> {
        let known = read(path)?;
        let known =
            Domain::read(&known).map_err(|error| self.sides(path).refused(self.face, &error))?;
        // It was founded, and cut off before it got its name.
        if let Some(domain) = known {
            let id = domain.id();
            return Ok((id, self.unlock(path, &id)?.1));
        }
        let now = domain_mint::found(quiet, &self.mint(domains))?;
        let now = match self.prompt {
            Some(_) => now.tell(self.face)?,
            None => now,
        };
        Ok((now.domain, now.passphrase))
    }

    /// Makes `domains`, and keeps others from founding a domain there until the lock is dropped.
    fn found_alone(&self, root: &Path, domains: &Path) -> Result<fs::File> {
        let made = RealVfs::create(domains).and_then(|_| fs::File::open(domains));
        let lock = made.map_err(|error| CliError::of_io("make", domains, &error))?;
        let again = "repeat the command when that is done: it goes into the domain that is there";
        // A filesystem that cannot lock directories (NFS) must do without.
        if let Err(fs::TryLockError::WouldBlock) = lock.try_lock() {
            return Err(CliError::new(format!(
                "somebody else founds a domain below {} just now",
                text::path(root)
            ))
            .hint(again));
        }
        match Target::find(root, self.args)? {
            Target::New(_) => Ok(lock),
            Target::Store(_) => Err(CliError::new(format!(
                "somebody else founded a domain below {} meanwhile",
                text::path(root)
            ))
            .hint(again)),
        }
    }

    /// The mint that the flags describe, of a domain whose store goes below `domains`.
    fn mint(&self, domains: &Path) -> DomainMint {
        DomainMint {
            name: self.args.name.clone(),
            kind: Some(crate::args::DomainKind::Personal),
            passphrase_file: self.args.passphrase_file.clone(),
            recovery_out: self.args.recovery_out.clone(),
            no_recovery: self.args.no_recovery,
            time: None,
            witnesses: Vec::new(),
            witness_threshold: None,
            ephemeral: self.args.ephemeral,
            yes: self.args.yes,
            place: Some(domains.to_owned()),
            proposed_name: Some(own_name()),
        }
    }
}

fn read(path: &Path) -> Result<StoreHandle> {
    let vfs = RealVfs::open(path).map_err(|error| CliError::of_io("open", path, &error))?;
    StoreHandle::open(Arc::new(vfs))
        .map_err(|error| CliError::of_store("open the new domain's store", path, &error))
}

/// Whether no key, and no manifest that a phrase on paper may belong to, was kept in the store that waits for its name.
fn is_unused(path: &Path) -> bool {
    let Ok(store) = read(path) else { return false };
    matches!(mint::begun_in(&store), Ok(Begun::Nothing))
        && mint::pending(&**store.vfs()).is_ok_and(|pending| pending.is_empty())
}

/// What somebody would call a domain of their own: as they log in, unless that is everybody's name.
fn own_name() -> String {
    let names = ["SUDO_USER", "USER", "LOGNAME"].into_iter();
    let mut names = names.filter_map(|name| std::env::var(name).ok());
    let is_own = |name: &String| name != "root" && wizard::check_name(name).is_ok();
    names.find(is_own).unwrap_or_else(|| "personal".to_owned())
}
