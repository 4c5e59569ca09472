//! The Python that runs `docs/extract.py`, with the packages that this needs.
//!
//! There is no test without one: who has not run `scripts/setup` is told to.
#![allow(dead_code)]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// The root of the repository.
pub const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Whether a program is a Python with what the reader imports.
fn serves(python: &str) -> bool {
    let mut import = Command::new(python);
    import.args(["-c", "import blake3, zstandard"]);
    import.stdout(Stdio::null()).stderr(Stdio::null());
    import.status().is_ok_and(|status| status.success())
}

/// The one that `scripts/setup` made, if it did.
fn made_by_setup() -> Option<String> {
    let find = r#"source "$0" && venv_ready extract && venv_path extract"#;
    let common = Path::new(ROOT).join("scripts/lib/common.sh");
    let found = Command::new("bash")
        .arg("-c")
        .arg(find)
        .arg(common)
        .output();
    let found = found.ok().filter(|found| found.status.success())?;
    let path = String::from_utf8(found.stdout).ok()?;
    Some(format!("{}/bin/python", path.trim_end()))
}

/// What `ASL_PYTHON` names, the one of `scripts/setup`, or the system's: the first that is
/// there and has the packages. A wrong `ASL_PYTHON` is not passed over.
pub fn python() -> &'static str {
    static PYTHON: OnceLock<String> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let named = std::env::var("ASL_PYTHON").ok();
        let known = match &named {
            Some(named) => vec![named.clone()],
            None => made_by_setup()
                .into_iter()
                .chain(["python3".into()])
                .collect(),
        };
        let found = known.into_iter().find(|python| serves(python));
        found.unwrap_or_else(|| {
            let named = named.map_or(String::new(), |named| format!(" (ASL_PYTHON is {named})"));
            panic!("no Python with the packages blake3 and zstandard{named}: run scripts/setup")
        })
    })
}

/// Runs `docs/extract.py` on a store.
pub fn extract(store: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(python());
    command.arg(Path::new(ROOT).join("docs/extract.py"));
    command.arg(store).args(args);
    command.output().expect("this Python was run before")
}
