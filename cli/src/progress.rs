//! Progress of long work: lines that redraw on a terminal, one line at an interval
//! elsewhere, events for scripts.
//!
//! The kernel prints read errors on the console that a rescue runs on. Each redraw
//! begins on a fresh line start, so such messages scroll by and the display stays
//! whole; [`console_hint`] tells how to silence them.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use asl_capture::disk::{Observer, Progress};
use asl_capture::export::ExportObserver;
use asl_store::VerifyObserver;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::report::{Report, talk};
use crate::text;

/// Between lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(30);
/// Between events.
const EVENT_INTERVAL: Duration = Duration::from_secs(1);
/// Width of the bar.
const BAR: usize = 20;

/// A display that several kinds of work write to.
pub struct Display<'a> {
    report: &'a Report,
    bar: Option<ProgressBar>,
    state: Mutex<State>,
}

struct State {
    last_line: Instant,
    last_event: Option<Instant>,
    rate: Rate,
}

/// Bytes a second over the last seconds.
#[derive(Default)]
struct Rate {
    samples: std::collections::VecDeque<(Duration, u64)>,
}

impl Rate {
    fn add(&mut self, at: Duration, bytes: u64) -> f64 {
        self.samples.push_back((at, bytes));
        while self.samples.len() > 2
            && at.saturating_sub(self.samples[0].0) > Duration::from_secs(10)
        {
            self.samples.pop_front();
        }
        let (first, before) = self.samples[0];
        let span = at.saturating_sub(first).as_secs_f64();
        if span > 0.0 {
            bytes.saturating_sub(before) as f64 / span
        } else {
            0.0
        }
    }
}

impl<'a> Display<'a> {
    /// A display on standard error, where progress is wanted.
    pub fn new(report: &'a Report) -> Self {
        let terminal = std::io::stderr().is_terminal()
            && std::env::var_os("TERM").is_some_and(|term| term != "dumb" && !term.is_empty());
        let bar = (report.shows_progress() && terminal).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(5));
            bar.set_style(
                ProgressStyle::with_template("{msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner()),
            );
            bar
        });
        let state = State {
            last_line: Instant::now(),
            last_event: None,
            rate: Rate::default(),
        };
        Self {
            report,
            bar,
            state: Mutex::new(state),
        }
    }

    /// Takes the display away, so that other words can follow.
    pub fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn show(&self, lines: &str, line: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar {
            bar.set_message(lines.to_owned());
            bar.tick();
            return;
        }
        if !self.report.shows_progress() {
            return;
        }
        let mut state = self.state();
        if state.last_line.elapsed() >= LINE_INTERVAL {
            state.last_line = Instant::now();
            talk(&line());
        }
    }
}

/// A capture's progress as an event.
#[derive(Serialize)]
struct ProgressEvent {
    stage: &'static str,
    size_bytes: u64,
    rescued_bytes: u64,
    durable_bytes: u64,
    unreadable_bytes: u64,
    untried_bytes: u64,
    pending_bytes: u64,
    new_bytes: u64,
    stored_bytes: u64,
    reads: u64,
    read_errors: u64,
    elapsed_seconds: f64,
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        100.0
    } else {
        100.0 * part as f64 / whole as f64
    }
}

fn bar(part: u64, whole: u64) -> String {
    let filled = (percent(part, whole) / 100.0 * BAR as f64) as usize;
    format!(
        "[{}{}]",
        "#".repeat(filled.min(BAR)),
        "-".repeat(BAR - filled.min(BAR))
    )
}

fn rate(bytes_a_second: f64) -> String {
    format!("{}/s", text::size(bytes_a_second as u64))
}

impl Observer for Display<'_> {
    fn progress(&self, p: &Progress) {
        let settled = p.rescued_bytes + p.unreadable_bytes;
        let now = self.state().rate.add(p.run_elapsed, p.run_bytes);
        let average = p.run_bytes as f64 / p.run_elapsed.as_secs_f64().max(0.001);
        let left = p.size_bytes.saturating_sub(settled);
        let eta = match now.min(average) > 1.0 {
            true => text::duration(Duration::from_secs_f64(
                (left as f64 / now.min(average)).min(1e9),
            )),
            false => "unknown".to_owned(),
        };
        let good = match p.stuck {
            Some((since, at)) => format!(
                "a read at {} has hung for {}",
                text::size(at),
                text::duration(since)
            ),
            None => format!("last good read {} ago", text::duration(p.since_good)),
        };
        let stored = match p.new_bytes {
            0 => "nothing new to store".to_owned(),
            new => format!(
                "{} new, stored in {}",
                text::size(new),
                text::size(p.stored_bytes)
            ),
        };
        let first = format!(
            "{:9} {} {:5.1} %  {} of {}  {}  left {eta}",
            p.stage,
            bar(settled, p.size_bytes),
            percent(settled, p.size_bytes),
            text::size(p.rescued_bytes),
            text::size(p.size_bytes),
            rate(now),
        );
        let second = format!(
            "bad {} in {}, {} not settled, {}; {good}",
            text::size(p.unreadable_bytes),
            text::count(p.error_areas, "area"),
            text::size(p.untried_bytes + p.pending_bytes),
            text::count(p.read_errors, "error"),
        );
        let third = format!("{stored}; safe on disk: {}", text::size(p.durable_bytes));
        let lines = [&first, &second, &third]
            .map(|line| text::fit(line, 79))
            .join("\n");
        self.show(&lines, || {
            format!(
                "{} {:.1} %, bad {}, {}, {}",
                p.stage,
                percent(settled, p.size_bytes),
                text::size(p.unreadable_bytes),
                rate(now),
                good
            )
        });
        let due = {
            let mut state = self.state();
            let due = state
                .last_event
                .is_none_or(|last| last.elapsed() >= EVENT_INTERVAL);
            if due {
                state.last_event = Some(Instant::now());
            }
            due
        };
        if due {
            // A reader of events that went away does not end a rescue.
            let _ = self.report.event(
                "progress",
                &ProgressEvent {
                    stage: p.stage,
                    size_bytes: p.size_bytes,
                    rescued_bytes: p.rescued_bytes,
                    durable_bytes: p.durable_bytes,
                    unreadable_bytes: p.unreadable_bytes,
                    untried_bytes: p.untried_bytes,
                    pending_bytes: p.pending_bytes,
                    new_bytes: p.new_bytes,
                    stored_bytes: p.stored_bytes,
                    reads: p.reads,
                    read_errors: p.read_errors,
                    elapsed_seconds: p.elapsed.as_secs_f64(),
                },
            );
        }
    }

    fn resumed(&self, rescued_bytes: u64) {
        self.report.note(&format!(
            "going on: {} were read before and are not read again",
            text::size(rescued_bytes)
        ));
    }

    fn notes_lost(&self, what: &str) {
        self.report
            .warn(&format!("{what}; what only that told is read again"));
    }

    fn finishing(&self) {
        if let Some(bar) = &self.bar {
            bar.set_message("reading is over; writing what it gave");
            bar.tick();
        }
    }
}

impl Display<'_> {
    /// Shows how much of a known amount is done.
    fn amount(&self, verb: &str, done_bytes: u64, total_bytes: u64) {
        let line = || {
            format!(
                "{verb:9} {} {:5.1} %  {} of {}",
                bar(done_bytes, total_bytes),
                percent(done_bytes, total_bytes),
                text::size(done_bytes),
                text::size(total_bytes)
            )
        };
        if self.bar.is_some() || self.report.shows_progress() {
            let text = line();
            self.show(&text, line);
        }
    }
}

impl ExportObserver for Display<'_> {
    fn progress(&self, done_bytes: u64, total_bytes: u64) {
        self.amount("writing", done_bytes, total_bytes);
    }
}

impl VerifyObserver for Display<'_> {
    fn progress(&self, done_bytes: u64, total_bytes: u64) {
        self.amount("verifying", done_bytes, total_bytes);
    }
}

/// What to type if the kernel's messages will be printed over the progress: only on
/// a console that the kernel writes to, at a level that shows errors.
pub fn console_hint() -> Option<&'static str> {
    let terminal = std::fs::read_link("/proc/self/fd/2").ok()?;
    let name = terminal.to_str()?.strip_prefix("/dev/")?;
    let console = name == "console"
        || name.starts_with("ttyS")
        || name
            .strip_prefix("tty")
            .is_some_and(|n| n.parse::<u8>().is_ok());
    let levels = std::fs::read_to_string("/proc/sys/kernel/printk").ok()?;
    let level: u8 = levels.split_ascii_whitespace().next()?.parse().ok()?;
    (console && level > 3)
        .then_some("the kernel will print read errors over this display; to silence it: dmesg -n 1")
}
