//! `asl domain host list` and `remove`: whose keys sign for the domain, and the end of that.
//!
//! Crash: see [`asl_bootstrap::govern`]. The same command goes on.

use std::io::{self, Write};

use asl_bootstrap::dam::Revocation;
use asl_bootstrap::govern::Update;
use asl_bootstrap::host::{Listed, listed, this_host};
use asl_bootstrap::{Domain, KeyId, MintError, beside};
use asl_store::{Key, LogPosition};
use serde::Serialize;

use super::domain;
use super::domain_govern::Desk;
use crate::args::HostRemove;
use crate::error::{CliError, Exit, Result};
use crate::face::{Face, now};
use crate::report::Outcome;
use crate::text;

/// Shortest beginning of a key that names its host.
const PREFIX_MIN: usize = 4;

/// The keys that sign for the domain.
#[derive(Debug, Serialize)]
struct Hosts {
    domain_id: String,
    name: String,
    keys: Vec<HostKey>,
    /// This machine's key, where it asked to be listed and is not.
    not_listed_yet: Option<String>,
}

/// One of them.
#[derive(Debug, Serialize)]
struct HostKey {
    key_id: String,
    roles: String,
    /// What its host is called; null where no request is here that says so.
    host: Option<String>,
    since_version: u64,
    listed: bool,
    revoked: bool,
    this_host: bool,
}

impl HostKey {
    fn state(&self) -> &'static str {
        match (self.revoked, self.listed, self.this_host) {
            (true, ..) => "revoked",
            (false, false, _) => "left",
            (false, true, true) => "this host",
            (false, true, false) => "",
        }
    }
}

impl Outcome for Hosts {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "{:<16}  {:<10}  {:<24}  {:>8}",
            "key", "may", "host", "manifest"
        )?;
        for key in &self.keys {
            let host = key.host.as_deref().unwrap_or("-");
            let line = format!(
                "{:<16.16}  {:<10}  {:<24}  {:>8}  {}",
                key.key_id,
                key.roles,
                text::fit(&text::visible(host), 24),
                key.since_version,
                key.state()
            );
            writeln!(out, "{}", line.trim_end())?;
        }
        if let Some(key) = &self.not_listed_yet {
            writeln!(
                out,
                "this host ({key:.16}) is not listed yet: sync with the machine"
            )?;
            writeln!(out, "that ran asl domain host add")?;
        }
        Ok(())
    }
}

/// Lists the keys that sign for the domain.
pub fn list(face: &Face) -> Result {
    let action = "list the hosts";
    let (path, store) = face.reader()?;
    let failed = |error: &asl_bootstrap::Error| domain::failed(action, path, error);
    let domain = Domain::read(&store)
        .and_then(|found| found.ok_or_else(|| MintError::NoDomain.into()))
        .map_err(|error| failed(&error))?;
    let keys = listed(&store, &domain).map_err(|error| failed(&error))?;
    let this = this_host(&**store.vfs(), &domain.id()).map_err(|error| failed(&error))?;
    let came_with = |key: KeyId| keys.iter().find(|known| known.key == key);
    let this_manifest = this.and_then(came_with).map(|known| known.manifest);
    let not_listed_yet = this.filter(|_| this_manifest.is_none());
    face.report.result(&Hosts {
        domain_id: domain.id().to_string(),
        name: domain.chain.head().dam.label.clone(),
        not_listed_yet: not_listed_yet.map(|key| key.to_string()),
        keys: keys
            .iter()
            .map(|key| HostKey {
                key_id: key.key.to_string(),
                roles: key.roles.to_string(),
                host: key.name.clone(),
                since_version: key.version,
                listed: key.in_force,
                revoked: key.revoked,
                this_host: Some(key.manifest) == this_manifest,
            })
            .collect(),
    })?;
    Ok(Exit::Complete)
}

/// Revokes all keys of a host, from what they have signed in the logs that are here on.
pub fn remove(face: &Face, args: &HostRemove) -> Result {
    let (desk, passphrase) = Desk::for_change(face, "remove the host", &args.change)?;
    desk.update(&passphrase, |desk| {
        let store = desk.writer.handle();
        let all = listed(store, &desk.domain).map_err(|error| desk.failed(&error))?;
        let keys = keys_of(desk, &all, &args.host)?;
        let others = beside::beside(store, &desk.domain).into_iter();
        // Where no place is named for a key, nothing that it signed counts.
        let mut places: Vec<_> = others
            .filter(|other| {
                let mut signed = (other.checkpoint_by.iter())
                    .chain(other.receipts.keys())
                    .chain(&other.refused);
                signed.any(|key| keys.contains(key))
            })
            .map(|other| (other.store, LogPosition(other.records)))
            .collect();
        places.push((desk.domain.store, LogPosition(desk.domain.tree.size())));
        let revocations = keys.iter().flat_map(|key| {
            places.iter().map(|(store, position)| Revocation {
                key: *key,
                store: *store,
                position: *position,
                reason: args.reason.into(),
            })
        });
        Ok(Update {
            revoke: revocations.collect(),
            despite_rivals: args.change.despite_fork,
            ..Update::none(now())
        })
    })
}

/// The listed keys of the host that goes by a name, or that has a key with this beginning.
fn keys_of(desk: &Desk<'_>, all: &[Listed], host: &str) -> Result<Vec<KeyId>> {
    let place = text::shell_path(desk.path);
    let begins = |known: &Listed| {
        host.len() >= PREFIX_MIN
            && known
                .key
                .to_string()
                .starts_with(&host.to_ascii_lowercase())
    };
    let mut manifests: Vec<Key> = (all.iter())
        .filter(|known| known.in_force)
        .filter(|known| known.name.as_deref() == Some(host) || begins(known))
        .map(|known| known.manifest)
        .collect();
    manifests.dedup();
    let see = format!("list them: asl domain host list --store {place}");
    match manifests[..] {
        [manifest] => Ok(all
            .iter()
            .filter(|known| known.in_force && known.manifest == manifest)
            .map(|known| known.key)
            .collect()),
        [] => {
            let host = text::visible(host);
            Err(CliError::usage(format!("the domain lists no host {host}")).hint(see))
        }
        _ => Err(
            CliError::usage(format!("several hosts go by {}", text::visible(host)))
                .hint(format!("name one by the digits of a key; {see}")),
        ),
    }
}
