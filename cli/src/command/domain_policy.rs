//! `asl domain policy`: the six rules, shown or changed; and what the domain is called.
//!
//! Crash: see [`asl_bootstrap::govern`]. The same command goes on.

use std::collections::BTreeMap;
use std::io::{self, Write};

use asl_bootstrap::govern::Update;
use asl_bootstrap::policy::Rule;
use asl_bootstrap::{Domain, MintError};
use serde::Serialize;

use super::domain::failed;
use super::domain_govern::{Desk, set};
use crate::args::DomainPolicy;
use crate::error::{Exit, Result};
use crate::face::{Face, now};
use crate::report::{Outcome, facts};

const ACTION: &str = "change the policy";

/// The policy in force.
#[derive(Debug, Serialize)]
struct Rules {
    domain_id: String,
    version: u64,
    policy: BTreeMap<String, String>,
    #[serde(skip)]
    lines: Vec<(String, String)>,
}

impl Outcome for Rules {
    fn show(&self, out: &mut dyn Write) -> io::Result<()> {
        let lines = self.lines.iter();
        let lines: Vec<_> = lines
            .map(|(rule, value)| (rule.as_str(), value.clone()))
            .collect();
        facts(out, &lines)
    }
}

/// Shows the policy, or changes it.
pub fn run(face: &Face, args: &DomainPolicy) -> Result {
    if args.set.is_empty() && args.name.is_none() {
        return show(face);
    }
    let (desk, passphrase) = Desk::for_change(face, ACTION, &args.change)?;
    desk.update(&passphrase, |desk| {
        let mut policy = desk.domain.chain.head().policy;
        set(&mut policy, &args.set)?;
        Ok(Update {
            label: args.name.clone(),
            policy: Some(policy),
            despite_rivals: args.change.despite_fork,
            ..Update::none(now())
        })
    })
}

fn show(face: &Face) -> Result {
    let (path, store) = face.reader()?;
    let domain = Domain::read(&store)
        .and_then(|found| found.ok_or_else(|| MintError::NoDomain.into()))
        .map_err(|error| failed("read the store's domain", path, &error))?;
    let head = domain.chain.head();
    let rules = Rule::ALL.iter();
    let lines: Vec<_> = rules
        .map(|rule| (rule.to_string(), head.policy.value(*rule)))
        .collect();
    face.report.result(&Rules {
        domain_id: domain.id().to_string(),
        version: head.dam.version,
        policy: lines.iter().cloned().collect(),
        lines,
    })?;
    Ok(Exit::Complete)
}
