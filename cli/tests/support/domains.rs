//! Stores with a domain, founded as people found them.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{json, program};

/// Runs a command that must end well: its result object.
pub fn does(command: &mut Command) -> Value {
    let (code, value) = json(command);
    assert_eq!(code, 0, "{command:?}: {value}");
    value
}

/// Makes a store.
pub fn init(store: &Path, more: &[&str]) {
    let mut command = program("asl");
    does(command.args(["store", "init"]).arg(store).args(more));
}

/// Founds a domain in a store, whose keys open with what the file `pass` says: its id. The words that bring it back go to `paper`, if
/// anywhere.
pub fn mint(mut asl: Command, name: &str, pass: &Path, paper: Option<&Path>) -> String {
    asl.args(["domain", "mint", "--name", name, "--yes", "--ephemeral"]);
    match paper {
        Some(paper) => asl.arg("--recovery-out").arg(paper),
        None => asl.arg("--no-recovery"),
    };
    let minted = does(asl.arg("--passphrase-file").arg(pass));
    minted["domain_id"].as_str().unwrap().to_owned()
}
