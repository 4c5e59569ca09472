//! Progress of long work: lines that redraw on a terminal, one line at an interval
//! elsewhere, events for scripts.
//!
//! The kernel prints read errors on the console that a rescue runs on; [`crate::foot`]
//! keeps them apart from the display, [`crate::console`] tells how to silence them.
//! Everything here is talk: what cannot be written is lost, and nothing stops.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use asl_capture::disk::{Observer, Progress};
use asl_capture::export::ExportObserver;
use asl_store::{SyncObserver, SyncProgress, VerifyObserver};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustix::fs::statvfs;
use serde::Serialize;

use crate::foot::Foot;
use crate::report::{Report, Style, talk};
use crate::signal::{self, StopRequest};
use crate::text;

/// Between lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(30);
/// Between events.
const EVENT_INTERVAL: Duration = Duration::from_secs(1);
/// Over which the present rate is taken.
const RATE_WINDOW: Duration = Duration::from_secs(20);
/// Between looks at the destination's free space.
const SPACE_INTERVAL: Duration = Duration::from_secs(5);
/// Width of the bar.
const BAR: usize = 20;
/// Redraws a second: a slow serial console takes about a thousand characters in one.
const REDRAWS_PER_SECOND: u8 = 2;

/// A display that several kinds of work write to.
pub struct Display<'a> {
    report: &'a Report,
    bar: Option<ProgressBar>,
    /// Where a capture goes, to say what is free there.
    destination: Option<PathBuf>,
    /// Whether somebody asked the capture to stop.
    stop: Option<StopRequest>,
    state: Mutex<State>,
}

struct State {
    last_line: Instant,
    last_event: Option<Instant>,
    space: Option<(Instant, Option<u64>)>,
    rate: Rate,
}

/// Bytes a second of late.
#[derive(Default)]
struct Rate {
    samples: VecDeque<(Duration, u64)>,
}

impl Rate {
    /// Adds how many bytes were read after how long; gives the present rate.
    fn add(&mut self, at: Duration, bytes: u64) -> u64 {
        self.samples.push_back((at, bytes));
        while self.samples.len() > 2
            && self
                .samples
                .get(1)
                .is_some_and(|(then, _)| at.saturating_sub(*then) >= RATE_WINDOW)
        {
            self.samples.pop_front();
        }
        let (first, before) = self.samples[0];
        let span = at.saturating_sub(first).as_secs_f64();
        if span > 0.0 {
            (bytes.saturating_sub(before) as f64 / span) as u64
        } else {
            0
        }
    }
}

impl<'a> Display<'a> {
    /// A display on standard error, where progress is wanted.
    pub fn new(report: &'a Report) -> Self {
        // Events on the same terminal would run into the display, and say the same.
        let shares = report.style() == Style::Events && std::io::stdout().is_terminal();
        let terminal = std::io::stderr().is_terminal()
            && !shares
            && std::env::var_os("TERM").is_some_and(|term| term != "dumb" && !term.is_empty());
        let bar = (report.shows_progress() && terminal).then(|| {
            let bar = ProgressBar::with_draw_target(
                None,
                ProgressDrawTarget::term_like_with_hz(
                    Box::new(Foot::new(signal::continued())),
                    REDRAWS_PER_SECOND,
                ),
            );
            bar.set_style(
                ProgressStyle::with_template("{msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner()),
            );
            bar
        });
        let state = State {
            last_line: Instant::now(),
            last_event: None,
            space: None,
            rate: Rate::default(),
        };
        Self {
            report,
            bar,
            destination: None,
            stop: None,
            state: Mutex::new(state),
        }
    }

    /// A display of a capture, which also says what is free at `destination` and that
    /// it heard the request to stop.
    pub fn of_capture(report: &'a Report, destination: &Path, stop: StopRequest) -> Self {
        Self {
            destination: Some(destination.to_owned()),
            stop: Some(stop),
            ..Self::new(report)
        }
    }

    fn free_bytes(&self) -> Option<u64> {
        let destination = self.destination.as_ref()?;
        let known = self.state().space;
        match known {
            Some((at, free)) if at.elapsed() < SPACE_INTERVAL => free,
            _ => {
                let stat = statvfs(destination).ok();
                let free = stat.map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize));
                self.state().space = Some((Instant::now(), free));
                free
            }
        }
    }

    fn is_event_due(&self) -> bool {
        let mut state = self.state();
        let due = state
            .last_event
            .is_none_or(|last| last.elapsed() >= EVENT_INTERVAL);
        if due {
            state.last_event = Some(Instant::now());
        }
        due
    }

    /// Takes the display away, so that other words can follow.
    pub fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Lets something be said above the display.
    fn beside(&self, say: impl FnOnce()) {
        match &self.bar {
            Some(bar) => bar.suspend(say),
            None => say(),
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

/// What is shown of a moment of a capture.
struct Moment<'a> {
    progress: &'a Progress,
    rate: u64,
    to_go: Option<Duration>,
    free_bytes: Option<u64>,
}

/// A moment for scripts.
#[derive(Serialize)]
struct ProgressEvent {
    stage: &'static str,
    size_bytes: u64,
    rescued_bytes: u64,
    durable_bytes: u64,
    unreadable_bytes: u64,
    untried_bytes: u64,
    pending_bytes: u64,
    zero_bytes: u64,
    new_bytes: u64,
    stored_bytes: u64,
    reads: u64,
    read_errors: u64,
    error_areas: u64,
    elapsed_seconds: f64,
    seconds_since_good: f64,
    seconds_to_go: Option<u64>,
    rate_bytes: u64,
    available_bytes: Option<u64>,
}

impl Moment<'_> {
    fn to_go(&self) -> String {
        self.to_go.map_or("unknown".to_owned(), text::duration)
    }

    fn bad(&self) -> String {
        format!(
            "bad {} in {}",
            text::size(self.progress.unreadable_bytes),
            text::count(self.progress.error_areas, "area")
        )
    }

    fn failed(&self) -> String {
        text::count(self.progress.read_errors, "read") + " failed"
    }

    fn last_good(&self) -> String {
        match self.progress.stuck {
            Some((since, at)) => format!(
                "read at {} hangs for {}",
                text::size(at),
                text::duration(since)
            ),
            None => format!(
                "last good read {} ago",
                text::duration(self.progress.since_good)
            ),
        }
    }

    fn free(&self) -> String {
        match self.free_bytes {
            Some(bytes) => format!(", {} free there", text::size(bytes)),
            None => String::new(),
        }
    }

    /// Lines for a terminal, each shorter than 80 columns.
    fn lines(&self) -> String {
        let p = self.progress;
        let settled = p.rescued_bytes + p.unreadable_bytes;
        let lines = [
            format!(
                "{:9} {} {:5.1} %  {} of {}",
                p.stage,
                bar(settled, p.size_bytes),
                percent(settled, p.size_bytes),
                text::size(p.rescued_bytes),
                text::size(p.size_bytes),
            ),
            format!(
                "  {}/s, to go {}, {}",
                text::size(self.rate),
                self.to_go(),
                self.last_good()
            ),
            format!(
                "  {}, {}, not settled {}",
                self.bad(),
                self.failed(),
                text::size(p.untried_bytes + p.pending_bytes)
            ),
            format!(
                "  safe {}; stored {} for {} new{}",
                text::size(p.durable_bytes),
                text::size(p.stored_bytes),
                text::size(p.new_bytes),
                self.free()
            ),
        ];
        lines.map(|line| text::fit(&line, 79)).join("\n")
    }

    /// The same in one line, for logs.
    fn line(&self) -> String {
        let p = self.progress;
        let settled = p.rescued_bytes + p.unreadable_bytes;
        format!(
            "{} {:.1} %, {} of {}, {}/s, to go {}, {}, {}, {}, safe {}{}",
            p.stage,
            percent(settled, p.size_bytes),
            text::size(p.rescued_bytes),
            text::size(p.size_bytes),
            text::size(self.rate),
            self.to_go(),
            self.bad(),
            self.failed(),
            self.last_good(),
            text::size(p.durable_bytes),
            self.free(),
        )
    }

    fn event(&self) -> ProgressEvent {
        let p = self.progress;
        ProgressEvent {
            stage: p.stage,
            size_bytes: p.size_bytes,
            rescued_bytes: p.rescued_bytes,
            durable_bytes: p.durable_bytes,
            unreadable_bytes: p.unreadable_bytes,
            untried_bytes: p.untried_bytes,
            pending_bytes: p.pending_bytes,
            zero_bytes: p.zero_bytes,
            new_bytes: p.new_bytes,
            stored_bytes: p.stored_bytes,
            reads: p.reads,
            read_errors: p.read_errors,
            error_areas: p.error_areas,
            elapsed_seconds: p.elapsed.as_secs_f64(),
            seconds_since_good: p.since_good.as_secs_f64(),
            seconds_to_go: self.to_go.map(|span| span.as_secs()),
            rate_bytes: self.rate,
            available_bytes: self.free_bytes,
        }
    }
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

impl Observer for Display<'_> {
    fn progress(&self, progress: &Progress) {
        let settled = progress.rescued_bytes + progress.unreadable_bytes;
        let left = progress.size_bytes.saturating_sub(settled);
        let rate = self
            .state()
            .rate
            .add(progress.run_elapsed, progress.run_bytes);
        let moment = Moment {
            progress,
            rate,
            to_go: left.checked_div(rate).map(Duration::from_secs),
            free_bytes: self.free_bytes(),
        };
        self.show(&moment.lines(), || moment.line());
        if self.is_event_due() {
            // A reader of events that went away does not end a rescue.
            let _ = self.report.event("progress", &moment.event());
        }
    }

    fn resumed(&self, rescued_bytes: u64) {
        let words = format!(
            "going on: {} were read before and are not read again",
            text::size(rescued_bytes)
        );
        self.beside(|| self.report.note(&words));
    }

    fn notes_lost(&self, what: &str) {
        let words = format!("{what}; what only that told is read again");
        self.beside(|| self.report.warn(&words));
    }

    fn finishing(&self) {
        if let Some(bar) = &self.bar {
            bar.set_message(match &self.stop {
                Some(stop) if stop.is_made() => {
                    "stopping: saving what was read (Ctrl-C again does not wait for that)"
                }
                _ => "reading is over; saving what it gave",
            });
            bar.tick();
        }
    }
}

impl Display<'_> {
    /// Shows how much of a known amount is done; `verb` is what is being done.
    pub fn amount(&self, verb: &str, done_bytes: u64, total_bytes: u64) {
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

impl SyncObserver for Display<'_> {
    fn progress(&self, progress: &SyncProgress) {
        // What is brought again is found while the rest is read.
        let verb = match progress.verify_bytes {
            0 => "bringing",
            _ => "verifying",
        };
        self.amount(
            verb,
            progress.bytes_done.saturating_add(progress.verified_bytes),
            progress.bytes.saturating_add(progress.verify_bytes),
        );
    }

    fn is_stopped(&self) -> bool {
        self.stop.as_ref().is_some_and(StopRequest::is_made)
    }
}

impl VerifyObserver for Display<'_> {
    fn progress(&self, done_bytes: u64, total_bytes: u64) {
        self.amount("verifying", done_bytes, total_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_present_rate_forgets_the_past() {
        let mut rate = Rate::default();
        for second in 1..=60 {
            rate.add(Duration::from_secs(second), 1000 * second);
        }
        assert_eq!(rate.add(Duration::from_secs(61), 61_000), 1000);
        for second in 62..=120 {
            rate.add(Duration::from_secs(second), 61_000);
        }
        assert_eq!(rate.add(Duration::from_secs(121), 61_000), 0);
        assert!(rate.samples.len() < 30);
    }

    #[test]
    fn the_lines_fit_80_columns_uncut_with_large_numbers() {
        let progress = Progress {
            stage: "scraping",
            size_bytes: 20_000_588_955_648,
            rescued_bytes: 19_900_588_955_648,
            durable_bytes: 19_900_588_955_000,
            unreadable_bytes: 1023 << 20,
            untried_bytes: 1000 << 30,
            pending_bytes: 1023 << 20,
            zero_bytes: 1 << 40,
            new_bytes: 1023 << 30,
            stored_bytes: 1023 << 30,
            reads: 400_000_000,
            read_errors: 999_999,
            error_areas: 99_999,
            elapsed: Duration::from_secs(400_000),
            since_good: Duration::from_secs(86_000),
            stuck: Some((Duration::from_secs(3599), 1023 << 30)),
            run_bytes: 1 << 40,
            run_elapsed: Duration::from_secs(400_000),
        };
        let moment = Moment {
            progress: &progress,
            rate: 1023 << 20,
            to_go: Some(Duration::from_secs(86_399)),
            free_bytes: Some(1023 << 30),
        };
        let lines = moment.lines();
        assert!(!lines.contains('…'), "{lines}");
        assert!(moment.line().contains("hangs for 59 min 59 s"));
        assert!(moment.line().contains("1023.0 GiB free there"));
    }
}
