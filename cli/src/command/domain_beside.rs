//! What `asl domain verify` says of the other instances of a store: the logs of the domain's other hosts.

use std::collections::BTreeMap;
use std::io::{self, Write};

use asl_bootstrap::beside::{Beside, History, beside};
use asl_bootstrap::domain::Class;
use asl_bootstrap::host::listed;
use asl_bootstrap::mint::Done;
use asl_bootstrap::{Domain, KeyId};
use asl_store::StoreHandle;
use serde::Serialize;

use super::domain::exit_of_class;
use crate::text;

/// One other instance.
#[derive(Debug, Serialize)]
pub(super) struct BesideObject {
    store_id: String,
    history: &'static str,
    log_position: u64,
    checkpointed_position: u64,
    checkpoint_by: Vec<SignerObject>,
    receipts: Vec<ReceiptsObject>,
    /// Keys of which signatures there do not count here.
    refused: Vec<SignerObject>,
    exit: u8,
    #[serde(skip)]
    class: Option<Class>,
}

#[derive(Debug, Serialize)]
struct SignerObject {
    key_id: String,
    host: Option<String>,
}

#[derive(Debug, Serialize)]
struct ReceiptsObject {
    #[serde(flatten)]
    by: SignerObject,
    signed: usize,
}

impl SignerObject {
    /// `0123456789abcdef (cellar)`.
    fn words(&self) -> String {
        let key = &self.key_id;
        match &self.host {
            Some(host) => format!("{key:.16} ({})", text::fit(&text::visible(host), 24)),
            None => format!("{key:.16}"),
        }
    }
}

/// Takes out of `sessions` those that another host's log vouches for. Where our own log has no domain, nothing is vouched for.
///
/// # Errors
/// As [`Domain::read`].
pub(super) fn leave_to_others(
    store: &StoreHandle,
    sessions: &mut Vec<Done>,
) -> Result<(), asl_bootstrap::Error> {
    if store.instances().len() == 1 {
        return Ok(());
    }
    let Some(domain) = Domain::read(store)? else {
        return Ok(());
    };
    let others = beside(store, &domain);
    sessions.retain(|done| {
        let key = (done.session, done.root);
        !others.iter().any(|other| other.vouched.contains(&key))
    });
    Ok(())
}

/// Judges the other instances by the domain of our own log.
pub(super) fn of(store: &StoreHandle, domain: &Domain) -> Vec<BesideObject> {
    // Names are for people: without them there are the keys.
    let keys = listed(store, domain).unwrap_or_default();
    let names: BTreeMap<KeyId, String> = (keys.into_iter())
        .filter_map(|key| Some((key.key, key.name?)))
        .collect();
    let signer = |key: &KeyId| SignerObject {
        key_id: key.to_string(),
        host: names.get(key).cloned(),
    };
    let object = |other: Beside| {
        let class = class_of(&other);
        BesideObject {
            store_id: other.store.to_string(),
            history: match other.history {
                History::Same => "same",
                History::Behind => "behind",
                History::Ahead => "ahead",
                History::Forked { .. } => "forked",
                History::Other(_) => "other-domain",
                History::None => "no-domain",
                History::Unknown => "unknown",
            },
            log_position: other.records,
            checkpointed_position: other.signed,
            checkpoint_by: other.checkpoint_by.iter().map(signer).collect(),
            receipts: (other.receipts.iter())
                .map(|(key, signed)| ReceiptsObject {
                    by: signer(key),
                    signed: *signed,
                })
                .collect(),
            refused: other.refused.iter().map(signer).collect(),
            exit: class.map_or(0, |class| exit_of_class(class).code()),
            class,
        }
    };
    beside(store, domain).into_iter().map(object).collect()
}

/// How bad it is that a log is as it is. That nobody signed it is not bad: its host may have no keys yet.
fn class_of(other: &Beside) -> Option<Class> {
    let of_history = match other.history {
        History::Forked { .. } => Some(Class::Fork),
        History::Other(_) => Some(Class::Authority),
        _ => None,
    };
    let refused = !other.refused.is_empty() && other.history != History::Ahead;
    let of_refused = refused.then_some(Class::Authority);
    other.class.max(of_history).max(of_refused)
}

impl BesideObject {
    /// How bad it is.
    pub(super) fn class(&self) -> Option<Class> {
        self.class
    }

    /// Whether another manifest than ours is in force there, and neither leads to the other.
    pub(super) fn is_forked(&self) -> bool {
        self.history == "forked"
    }

    pub(super) fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let records = text::count(self.log_position, "record");
        let signed = match (self.history, self.checkpointed_position) {
            ("no-domain", _) => "says nothing of the domain".to_owned(),
            ("unknown", _) => "cannot be read".to_owned(),
            ("other-domain", _) => "is of ANOTHER domain".to_owned(),
            ("forked", _) => format!("{records}; ANOTHER manifest is in force there"),
            (_, 0) => format!("{records}, not signed"),
            (_, 1) => format!("{records}; the first is as it was signed"),
            (_, size) => format!("{records}; the first {size} are as they were signed"),
        };
        writeln!(out, "{:.8}  {signed}", self.store_id)?;
        for by in &self.checkpoint_by {
            writeln!(out, "{:>8}  by checkpoint key {}", "", by.words())?;
        }
        for of in &self.receipts {
            let receipts = text::count(of.signed as u64, "receipt");
            writeln!(out, "{:>8}  {receipts} by host key {}", "", of.by.words())?;
        }
        for by in &self.refused {
            writeln!(out, "{:>8}  NOT counted here: signed by {}", "", by.words())?;
        }
        match self.history {
            "behind" => writeln!(out, "{:>8}  it lacks the newest manifest", ""),
            "ahead" => writeln!(out, "{:>8}  it has a newer manifest than this log", ""),
            _ => Ok(()),
        }
    }
}
