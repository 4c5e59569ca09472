//! Whether the kernel prints over our progress.
//!
//! On a rescue system's own console, or a serial one, the kernel prints each
//! read error of a dying disk: several lines a second, over whatever is shown.
//! Nothing is lost by that, but nobody can read it. `dmesg -n 1` ends it.

use std::fs;
use std::path::{Path, PathBuf};

/// Console log level at which the kernel's messages about failed reads (KERN_ERR, 3) are
/// printed: above that number (proc_sys_kernel(5), `printk`).
const READ_ERRORS_LEVEL: u32 = 3;

/// What to say to a user whose screen the kernel will print on.
pub fn advice() -> Option<&'static str> {
    let stderr = fs::read_link("/proc/self/fd/2").ok()?;
    let active = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
    let printk = fs::read_to_string("/proc/sys/kernel/printk").unwrap_or_default();
    prints_over(&stderr, &active, &printk).then_some(
        "the kernel may print its read errors over this screen; to stop that: dmesg -n 1",
    )
}

fn prints_over(stderr: &Path, active: &str, printk: &str) -> bool {
    let level = printk.split_ascii_whitespace().next();
    let prints = level
        .and_then(|level| level.parse::<u32>().ok())
        .is_some_and(|level| level > READ_ERRORS_LEVEL);
    prints && is_console(stderr, active)
}

fn is_console(terminal: &Path, active: &str) -> bool {
    if terminal == Path::new("/dev/console") {
        return true;
    }
    let is_virtual = terminal
        .to_str()
        .and_then(|path| path.strip_prefix("/dev/tty"))
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()));
    active.split_ascii_whitespace().any(|console| {
        // `tty0` is whichever virtual terminal is in front.
        terminal == PathBuf::from("/dev").join(console) || (console == "tty0" && is_virtual)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_console_that_is_loud_is_warned_about() {
        let loud = "7\t4\t1\t7\n";
        for (terminal, active, printk, expected) in [
            ("/dev/ttyS0", "tty0 ttyS0\n", loud, true),
            ("/dev/tty2", "tty0\n", loud, true),
            ("/dev/console", "", loud, true),
            ("/dev/pts/0", "tty0 ttyS0\n", loud, false),
            ("/dev/ttyS1", "tty0 ttyS0\n", loud, false),
            ("/dev/ttyS0", "tty0 ttyS0\n", "1 4 1 7", false),
            ("/dev/ttyS0", "ttyS0", "3 4 1 7", false),
            ("/dev/ttyS0", "ttyS0", "", false),
            ("pipe:[17]", "tty0", loud, false),
        ] {
            assert_eq!(
                prints_over(Path::new(terminal), active, printk),
                expected,
                "{terminal} {active} {printk}"
            );
        }
    }
}
