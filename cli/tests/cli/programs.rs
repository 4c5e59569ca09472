//! Running the programs: those that cargo built, or those in `ASL_TEST_BIN_DIR`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The directory that holds the programs.
pub fn dir() -> PathBuf {
    match std::env::var_os("ASL_TEST_BIN_DIR") {
        Some(dir) => dir.into(),
        None => {
            let asl = Path::new(env!("CARGO_BIN_EXE_asl"));
            asl.parent()
                .expect("a program is in a directory")
                .to_owned()
        }
    }
}

/// One of the programs, in a clean environment.
pub fn program(name: &str) -> Command {
    let mut command = Command::new(dir().join(name));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("TERM", "dumb")
        .env("LC_ALL", "C");
    command
}

/// `asl` with these arguments.
pub fn asl(arguments: &[&str]) -> Output {
    let mut command = program("asl");
    command.args(arguments).output().expect("asl starts")
}

/// What a run printed and returned, for messages.
pub fn shown(output: &Output) -> String {
    format!(
        "exit {:?}\n{}{}",
        output.status.code(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Whether this process may mount things.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
