//! Reads a source as the planner says and hands on what came of it.
//!
//! One reader works at a time, because a disk has one head and a read that is
//! under way cannot be cancelled. It never waits for hashing, compressing or
//! writing but for a free buffer.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use asl_store::Bytes;

use crate::buffer::{Buffer, BufferPool};
use crate::device::{ReadFailure, Source};
use crate::map::{Outcome, StateKind};
use crate::pass::{Planner, Stage, StopReason};

/// Time, as the face gives it: libraries know no clock.
pub trait Clock: Send + Sync {
    /// Time since some fixed moment; never goes back.
    fn monotonic(&self) -> Duration;
    /// Unix time in nanoseconds.
    fn unix_ns(&self) -> i64;
}

/// Shared between the reader's thread and whoever watches it.
#[derive(Debug, Default)]
pub struct Control {
    stop: Arc<AtomicBool>,
    /// Monotonic nanoseconds when the read under way began; 0 for none.
    reading_since: AtomicU64,
    reading_at: AtomicU64,
    stage: AtomicU8,
}

impl Control {
    /// A control that stops when `stop` becomes true: a signal handler's flag.
    pub fn with_flag(stop: Arc<AtomicBool>) -> Self {
        Self {
            stop,
            ..Self::default()
        }
    }
    /// Asks for an orderly stop after the read under way.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
    /// Whether a stop was asked for.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
    /// What the reader does, in a word.
    pub fn stage(&self) -> &'static str {
        STAGES[usize::from(self.stage.load(Ordering::Relaxed)) % STAGES.len()]
    }
    /// The read under way: since when (monotonic) and at which byte.
    pub fn reading(&self) -> Option<(Duration, u64)> {
        let since = self.reading_since.load(Ordering::Relaxed);
        (since != 0).then(|| {
            (
                Duration::from_nanos(since),
                self.reading_at.load(Ordering::Relaxed),
            )
        })
    }
}

const STAGES: [&str; 4] = ["copying", "trimming", "scraping", "retrying"];

fn stage_number(stage: Stage) -> u8 {
    match stage {
        Stage::Copy { .. } | Stage::Done => 0,
        Stage::Trim => 1,
        Stage::Scrape => 2,
        Stage::Retry { .. } => 3,
    }
}

/// Why reading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// Nothing is left that the options allow.
    Finished,
    /// A limit that the options set was reached.
    Limit,
    /// The device is no longer there.
    Gone,
    /// Somebody asked for a stop.
    Interrupted,
    /// This process cannot read here at all.
    Fatal {
        /// Where.
        offset: u64,
        /// The errno.
        errno: i32,
    },
}

/// What a reader hands on, in order.
#[derive(Debug)]
pub enum Message {
    /// Bytes that were read.
    Data {
        /// Where.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
        /// In how many reads.
        reads: u64,
        /// How long the last of them took.
        latency: Duration,
    },
    /// What the first bytes that could be read are: the source's fingerprint.
    First {
        /// Where.
        offset: u64,
        /// One physical sector, or what there is of it.
        bytes: Vec<u8>,
    },
    /// Whole chunks that the source knows to be zero; nothing was read.
    Hole {
        /// Where; aligned to chunks.
        offset: u64,
        /// How much; whole chunks but for the image's end.
        len: u64,
    },
    /// The medium refused a read.
    Failure {
        /// Where.
        offset: u64,
        /// How much.
        len: u64,
        /// The errno.
        errno: i32,
        /// How long it took.
        latency: Duration,
    },
    /// Nothing follows.
    End {
        /// Why.
        reason: EndReason,
        /// Stretches that were too slow.
        slow_reads: u64,
    },
}

/// Limits on reading.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// Longest time without a good read.
    pub timeout: Option<Duration>,
}

/// Reads below this size are gathered, so that a scraped stretch becomes one piece.
const SMALL_READ: u64 = 64 << 10;
/// Gathered bytes are handed on after this long: a slow disk must not hold them back.
pub const GATHER_TIME: Duration = Duration::from_millis(200);
/// Chunks in one message about a hole.
const HOLE_CHUNKS: u64 = 256;

#[derive(Debug)]
struct Gathered {
    offset: u64,
    bytes: Vec<u8>,
    reads: u64,
    since: Duration,
    latency: Duration,
}

impl From<Gathered> for Message {
    fn from(gathered: Gathered) -> Self {
        Message::Data {
            offset: gathered.offset,
            bytes: gathered.bytes.into(),
            reads: gathered.reads,
            latency: gathered.latency,
        }
    }
}

/// What a reader has gathered from small reads and not handed on yet. The next read may
/// take minutes or never return: whoever writes takes the bytes without waiting for it.
#[derive(Debug, Clone, Default)]
pub struct Gathering(Arc<Mutex<Option<Gathered>>>);

impl Gathering {
    fn lock(&self) -> MutexGuard<'_, Option<Gathered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what has lain for [`GATHER_TIME`] at `now`.
    pub fn take_old(&self, now: Duration) -> Option<Message> {
        let mut gathered = self.lock();
        let old = gathered
            .as_ref()
            .is_some_and(|gathered| now.saturating_sub(gathered.since) > GATHER_TIME);
        old.then(|| gathered.take())?.map(Message::from)
    }

    /// Takes everything.
    pub fn take(&self) -> Option<Message> {
        self.lock().take().map(Message::from)
    }
}

/// The reading side of a capture.
pub struct Reader {
    source: Arc<dyn Source>,
    planner: Planner,
    pool: BufferPool,
    chunk_bytes: u64,
    clock: Arc<dyn Clock>,
    control: Arc<Control>,
    limits: Limits,
    data_range: Option<Range<u64>>,
    gathered: Gathering,
    scratch: Option<Buffer>,
    scratch_pool: BufferPool,
    queue: VecDeque<Message>,
    last_good: Duration,
    wants_first: bool,
    ended: bool,
}

impl Reader {
    /// A reader; the planner's clusters must fit the pool's buffers. `wants_first`
    /// asks for [`Message::First`].
    #[expect(
        clippy::too_many_arguments,
        reason = "all of them are needed and of different types"
    )]
    pub fn new(
        source: Arc<dyn Source>,
        planner: Planner,
        pool: BufferPool,
        chunk_bytes: u32,
        clock: Arc<dyn Clock>,
        control: Arc<Control>,
        limits: Limits,
        wants_first: bool,
    ) -> Self {
        let last_good = clock.monotonic();
        Self {
            source,
            planner,
            pool,
            chunk_bytes: chunk_bytes.into(),
            clock,
            control,
            limits,
            data_range: None,
            gathered: Gathering::default(),
            scratch: None,
            scratch_pool: BufferPool::new(SMALL_READ as usize, 1),
            queue: VecDeque::new(),
            last_good,
            wants_first,
            ended: false,
        }
    }

    /// What this reader gathers, for whoever writes it.
    pub fn gathering(&self) -> Gathering {
        self.gathered.clone()
    }

    /// The next message; `None` after [`Message::End`].
    pub fn step(&mut self) -> Option<Message> {
        while self.queue.is_empty() && !self.ended {
            self.advance();
        }
        self.queue.pop_front()
    }

    fn end(&mut self, reason: EndReason) {
        self.flush();
        let slow_reads = self.planner.counters().slow_reads;
        self.queue.push_back(Message::End { reason, slow_reads });
        self.ended = true;
    }

    fn flush(&mut self) {
        self.queue.extend(self.gathered.take());
    }

    fn advance(&mut self) {
        let now = self.clock.monotonic();
        if self.control.is_stopped() {
            return self.end(EndReason::Interrupted);
        }
        if self
            .limits
            .timeout
            .is_some_and(|timeout| now.saturating_sub(self.last_good) > timeout)
        {
            return self.end(EndReason::Limit);
        }
        let Some(read) = self.planner.next_read() else {
            return self.end(match self.planner.stop_reason() {
                Some(StopReason::Limit) => EndReason::Limit,
                _ => EndReason::Finished,
            });
        };
        self.control
            .stage
            .store(stage_number(self.planner.stage()), Ordering::Relaxed);
        if self.skip_hole(read.offset) {
            return;
        }
        let ends_at = |gathered: &Gathered| gathered.offset + gathered.bytes.len() as u64;
        let apart = self
            .gathered
            .lock()
            .as_ref()
            .is_some_and(|gathered| ends_at(gathered) != read.offset);
        if apart {
            self.flush();
        }
        self.queue.extend(self.gathered.take_old(now));
        if !self.queue.is_empty() {
            // Handed on before a read that may take minutes.
            return;
        }
        let small = read.len < SMALL_READ.min(self.chunk_bytes);
        let mut buffer = match small {
            true => self
                .scratch
                .take()
                .unwrap_or_else(|| self.scratch_pool.get()),
            false => self.pool.get(),
        };
        buffer.set_len(read.len as usize);
        let began = self.clock.monotonic();
        self.control
            .reading_at
            .store(read.offset, Ordering::Relaxed);
        self.control
            .reading_since
            .store(began.as_nanos().max(1) as u64, Ordering::Relaxed);
        let result = self.source.read_at(read.offset, &mut buffer);
        self.control.reading_since.store(0, Ordering::Relaxed);
        let ended = self.clock.monotonic();
        let latency = ended.saturating_sub(began);
        match result {
            Ok(()) => {
                self.last_good = ended;
                self.planner.report(read, Outcome::Good, latency);
                if std::mem::take(&mut self.wants_first) {
                    let sector = self.source.geometry().physical_sector_bytes as usize;
                    let bytes = buffer[..buffer.len().min(sector)].to_vec();
                    self.queue.push_back(Message::First {
                        offset: read.offset,
                        bytes,
                    });
                }
                if small {
                    self.gather(read.offset, &buffer, ended, latency);
                    self.scratch = Some(buffer);
                } else {
                    self.flush();
                    let bytes = Bytes::from_owner(buffer);
                    self.queue.push_back(Message::Data {
                        offset: read.offset,
                        bytes,
                        reads: 1,
                        latency,
                    });
                }
            }
            Err(ReadFailure::Unreadable { errno }) => {
                self.planner.report(read, Outcome::Bad { errno }, latency);
                self.flush();
                self.queue.push_back(Message::Failure {
                    offset: read.offset,
                    len: read.len,
                    errno,
                    latency,
                });
                if small {
                    self.scratch = Some(buffer);
                }
            }
            Err(ReadFailure::Gone { .. }) => self.end(EndReason::Gone),
            Err(ReadFailure::Fatal { errno }) => self.end(EndReason::Fatal {
                offset: read.offset,
                errno,
            }),
        }
    }

    fn gather(&mut self, offset: u64, bytes: &[u8], now: Duration, latency: Duration) {
        let mut held = self.gathered.lock();
        let gathered = held.get_or_insert_with(|| Gathered {
            offset,
            bytes: Vec::with_capacity(SMALL_READ as usize),
            reads: 0,
            since: now,
            latency,
        });
        gathered.bytes.extend_from_slice(bytes);
        gathered.reads += 1;
        gathered.latency = latency;
        let full = gathered.bytes.len() as u64 >= SMALL_READ;
        drop(held);
        if full {
            self.flush();
        }
    }

    /// Skips whole chunks that the source knows to be zero. Returns whether it did.
    fn skip_hole(&mut self, offset: u64) -> bool {
        if !matches!(self.planner.stage(), Stage::Copy { .. })
            || !offset.is_multiple_of(self.chunk_bytes)
        {
            return false;
        }
        if self
            .data_range
            .as_ref()
            .is_some_and(|range| range.contains(&offset))
        {
            return false;
        }
        let size = self.planner.map().size();
        self.data_range = self.source.next_data(offset);
        let data = self
            .data_range
            .as_ref()
            .map_or(size, |range| range.start.max(offset));
        let untried = self.planner.map().next_run(StateKind::Untried, offset);
        let Some(untried) = untried.filter(|run| run.start <= offset) else {
            return false;
        };
        let Some(wanted) = self.planner.domain().next(offset) else {
            return false;
        };
        let mut end = data.min(untried.end()).min(wanted.end);
        if end < size {
            end -= end % self.chunk_bytes;
        }
        if end <= offset {
            return false;
        }
        self.flush();
        self.planner.mark_copied(offset..end);
        let mut at = offset;
        while at < end {
            let len = (end - at).min(self.chunk_bytes * HOLE_CHUNKS);
            self.queue.push_back(Message::Hole { offset: at, len });
            at += len;
        }
        self.last_good = self.clock.monotonic();
        true
    }
}
