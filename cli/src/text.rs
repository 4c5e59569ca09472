//! Text that is safe and readable on any terminal: sizes, times, names that
//! came from a disk.
//!
//! A label, a path or a model name was written by somebody else, perhaps by
//! whoever damaged the disk. Nothing of it reaches a terminal before
//! [`visible`] made its control characters harmless.

use std::borrow::Cow;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use rustix::io::Errno;

/// Characters that move the cursor, colour the screen or reorder what is read.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// `text` with control characters, escapes and invisible marks in a visible form.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c if is_unsafe(c) => {
                write!(out, "\\u{{{:x}}}", u32::from(c)).expect("a String takes everything");
            }
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Whether a user's label can be taken as it is: printable.
pub fn is_printable(text: &str) -> bool {
    !text.contains(is_unsafe)
}

/// A path for people to read.
pub fn path(path: &Path) -> String {
    visible(&path.to_string_lossy()).into_owned()
}

/// A word as a shell takes it, for commands in hints.
pub fn shell(word: &str) -> String {
    shell_bytes(word.as_bytes())
}

/// A path as a shell takes it: also one that is no UTF-8.
pub fn shell_path(path: &Path) -> String {
    shell_bytes(path.as_os_str().as_bytes())
}

fn shell_bytes(word: &[u8]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%=,".contains(c);
    if let Ok(word) = str::from_utf8(word) {
        if !word.is_empty() && word.chars().all(plain) {
            return word.to_owned();
        }
        if is_printable(word) {
            return format!("'{}'", word.replace('\'', r"'\''"));
        }
    }
    let mut out = String::from("$'");
    let escape = |out: &mut String, bytes: &[u8]| {
        for byte in bytes {
            write!(out, "\\x{byte:02x}").expect("a String takes everything");
        }
    };
    for chunk in word.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\'' | '\\' => out.extend(['\\', c]),
                c if is_unsafe(c) => escape(&mut out, c.encode_utf8(&mut [0; 4]).as_bytes()),
                c => out.push(c),
            }
        }
        escape(&mut out, chunk.invalid());
    }
    out.push('\'');
    out
}

/// A number of bytes in binary units: `17 B`, `4.0 KiB`, `931.5 GiB`. Rounded
/// down, so that what is said to be free is free.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let power = (bytes.ilog2() / 10) as usize;
    let unit = 1u128 << (10 * power);
    let tenths = u128::from(bytes) * 10 / unit;
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[power - 1])
}

/// A number with its noun: `1 block`, `3 blocks`.
pub fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// A span of time, as coarse as anybody cares: `45 s`, `12 min 5 s`, `3 h 20 min`, `2 d 4 h`.
pub fn duration(span: Duration) -> String {
    let seconds = span.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    if minutes == 0 {
        format!("{seconds} s")
    } else if hours == 0 {
        format!("{minutes} min {} s", seconds % 60)
    } else if days == 0 {
        format!("{hours} h {} min", minutes % 60)
    } else {
        format!("{days} d {} h", hours % 24)
    }
}

/// Unix time in nanoseconds as UTC, to the second.
pub fn time(unix_ns: i64) -> String {
    let since = Duration::from_nanos(unix_ns.unsigned_abs());
    let moment = if unix_ns < 0 {
        UNIX_EPOCH.checked_sub(since)
    } else {
        UNIX_EPOCH.checked_add(since)
    };
    match moment {
        Some(moment) if moment >= UNIX_EPOCH => {
            humantime::format_rfc3339_seconds(moment).to_string()
        }
        _ => "before 1970".to_owned(),
    }
}

/// What a disk meant by refusing a read, by the errno that the kernel makes of it
/// (`blk_errors` in block/blk-core.c).
pub fn read_error(errno: i32) -> String {
    let words = match Errno::from_raw_os_error(errno) {
        Errno::NODATA => "medium error",
        Errno::IO => "input/output error",
        Errno::TIMEDOUT => "timed out",
        Errno::REMOTEIO => "target error",
        Errno::ILSEQ => "protection error",
        Errno::NOLINK => "transport error",
        _ => return format!("errno {errno}"),
    };
    format!("{words} (errno {errno})")
}

/// As much of `text` as fits `width` columns, marked where it was cut. One
/// character is taken for one column.
pub fn fit(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    // In ASCII: a serial line or a rescue system's console may show nothing else.
    let mark = &"..."[..width.min(3)];
    let kept: String = text.chars().take(width - mark.len()).collect();
    kept + mark
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn control_characters_become_visible() {
        assert_eq!(visible("plain ümlaut"), "plain ümlaut");
        assert_eq!(visible("\u{1b}[31mred\u{7}"), "\\u{1b}[31mred\\u{7}");
        assert_eq!(visible("a\nb\u{9b}c"), "a\\nb\\u{9b}c");
        assert_eq!(visible("\u{202e}gpj.exe"), "\\u{202e}gpj.exe");
    }

    #[test]
    fn sizes_round_down_in_binary_units() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1023.9 KiB"),
            (4 << 20, "4.0 MiB"),
            (1_000_204_886_016, "931.5 GiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn a_shell_takes_quoted_words_back() {
        for word in [
            "/mnt/usb",
            "a b",
            "it's",
            "",
            "x\u{1b}[2J",
            "$HOME `id`",
            "ü\n",
        ] {
            let echoed = std::process::Command::new("bash")
                .args(["-c", &format!("printf %s {}", shell(word))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(echoed.stdout).unwrap(), word);
        }
    }

    #[test]
    fn a_shell_takes_any_path_back() {
        for name in [&b"/mnt/\xff\xfe x"[..], b"\xc3", b"a\xffb'c\\\n\xf0\x9f"] {
            let path = Path::new(OsStr::from_bytes(name));
            let echoed = std::process::Command::new("bash")
                .args(["-c", &format!("printf %s {}", shell_path(path))])
                .output()
                .unwrap();
            assert_eq!(echoed.stdout, name);
        }
    }

    #[test]
    fn spans_and_times() {
        assert_eq!(duration(Duration::from_secs(59)), "59 s");
        assert_eq!(duration(Duration::from_secs(725)), "12 min 5 s");
        assert_eq!(duration(Duration::from_secs(12_000)), "3 h 20 min");
        assert_eq!(duration(Duration::from_secs(187_200)), "2 d 4 h");
        assert_eq!(time(1_700_000_000_000_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(time(-5), "before 1970");
        assert_eq!(time(i64::MAX), "2262-04-11T23:47:16Z");
    }

    #[test]
    fn refused_reads_are_told_in_words() {
        assert_eq!(read_error(61), "medium error (errno 61)");
        assert_eq!(read_error(5), "input/output error (errno 5)");
        assert_eq!(read_error(777), "errno 777");
    }

    #[test]
    fn long_text_is_cut_visibly() {
        assert_eq!(fit("abcdef", 6), "abcdef");
        assert_eq!(fit("abcdefg", 6), "abc...");
        assert_eq!(fit("äöüßäöü", 6), "äöü...");
        assert_eq!(fit("abcdefg", 2), "..");
    }
}
