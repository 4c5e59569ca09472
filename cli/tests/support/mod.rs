//! The real programs, run: those that cargo built, or those in the directory that `ASL_TEST_BIN_DIR` names.

use std::path::Path;
use std::process::Command;

/// A program of the toolkit.
pub fn program(name: &str) -> Command {
    let built = match name {
        "asl" => env!("CARGO_BIN_EXE_asl"),
        "asl-capture" => env!("CARGO_BIN_EXE_asl-capture"),
        "asl-promote" => env!("CARGO_BIN_EXE_asl-promote"),
        name => panic!("there is no program {name}"),
    };
    match std::env::var("ASL_TEST_BIN_DIR") {
        Ok(dir) => Command::new(Path::new(&dir).join(name)),
        Err(_) => Command::new(built),
    }
}

/// Its exit code and its result object.
pub fn json(command: &mut Command) -> (i32, serde_json::Value) {
    let output = command.arg("--json").arg("--quiet").output().unwrap();
    let value = serde_json::from_slice(&output.stdout);
    let value = value
        .unwrap_or_else(|_| panic!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), value)
}
