//! Whether guests run on the hardware or are translated.

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use crate::host::root;

/// How QEMU runs a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// Hardware virtualisation.
    Kvm,
    /// Translated, some ten times slower.
    Tcg,
}

/// How long a guest on the hardware may take to say its first words.
const FIRST_WORDS: Duration = Duration::from_secs(8);

/// KVM where a guest really runs under it, found out once: `/dev/kvm` may exist and
/// its guests hang all the same. `ASL_QEMU_ACCEL` (kvm or tcg) overrides.
pub fn accel() -> Accel {
    static FOUND: OnceLock<Accel> = OnceLock::new();
    *FOUND.get_or_init(|| match env::var("ASL_QEMU_ACCEL").as_deref() {
        Ok("kvm") => Accel::Kvm,
        Ok("tcg") => Accel::Tcg,
        _ if Path::new("/dev/kvm").exists() && speaks_under_kvm() => Accel::Kvm,
        _ => Accel::Tcg,
    })
}

/// Starts the medium's kernel alone and listens.
fn speaks_under_kvm() -> bool {
    let kernel = root().join("dist/asl-rescue.vmlinuz");
    let log = env::temp_dir().join(format!("asl-qemu-kvm-{}.log", std::process::id()));
    let started = Command::new("qemu-system-x86_64")
        .args([
            "-accel",
            "kvm",
            "-m",
            "256",
            "-display",
            "none",
            "-no-reboot",
            "-monitor",
            "none",
        ])
        .arg("-serial")
        .arg(format!("file:{}", log.display()))
        .arg("-kernel")
        .arg(&kernel)
        .args(["-append", "console=ttyS0 panic=-1"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = started else { return false };
    let until = Instant::now() + FIRST_WORDS;
    let mut spoke = false;
    while Instant::now() < until && !spoke {
        thread::sleep(Duration::from_millis(100));
        spoke = fs::read(&log)
            .is_ok_and(|said| said.windows(13).any(|words| words == b"Linux version"));
        if !spoke && child.try_wait().is_ok_and(|status| status.is_some()) {
            break;
        }
    }
    // Neither matters: it is gone already, or goes now.
    let _ = child.kill();
    let _ = child.wait();
    let _ = fs::remove_file(&log);
    spoke
}
