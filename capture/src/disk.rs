//! A capture of a disk or an image, from the first read to the session's record.
//!
//! Threads: one reads, some work out (hash, look up, compress), the caller's
//! writes. Queues are bounded by the buffers of one pool. With no worker threads
//! everything happens in the caller's, in the same order each time: that is how
//! crash sweeps run it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use asl_store::{Compression, Key, SessionId, StoreHandle, StoreWriter, format};
use crossbeam_channel::{RecvTimeoutError, bounded};

use crate::buffer::BufferPool;
use crate::commit::{Committer, SyncPolicy};
use crate::device::Source;
use crate::digests::{self, ExtraDigests};
use crate::error::{Error, Result};
use crate::manifest::{CAPTURE_FORMAT, CaptureDoc, FAN_OUT, levels_for};
use crate::map::{RescueMap, StateKind, UnreadableRun};
use crate::pass::{PlanOptions, Planner};
use crate::reader::{Clock, Control, EndReason, Limits, Message, Reader};
use crate::session::{self, Capture, SESSION_FORMAT, Sameness, SessionDoc};
use crate::worker::{Chunking, Worked, Worker};

/// How to capture.
#[derive(Debug, Clone)]
pub struct DiskOptions {
    /// The user's words for it.
    pub label: Option<String>,
    /// How artifacts are compressed.
    pub compression: Compression,
    /// Chunk size in bytes; a power of two from 4096, at most the cluster size.
    pub chunk_bytes: u32,
    /// Threads that hash and compress; 0 for none.
    pub threads: usize,
    /// What to read in which order.
    pub plan: PlanOptions,
    /// When to stop reading.
    pub limits: Limits,
    /// A single read that takes longer than this ends the run.
    pub read_timeout: Option<Duration>,
    /// When to sync.
    pub sync: SyncPolicy,
    /// Further digests of the image.
    pub digests: ExtraDigests,
    /// Program and version, for the record.
    pub tool: String,
    /// Bounds on memory.
    pub tuning: Tuning,
}

/// Bounds on memory; the defaults are measured, others are for tests.
#[derive(Debug, Clone, Copy)]
pub struct Tuning {
    /// Read buffers beyond those that wait for a sync; at least 1.
    pub queue_buffers: usize,
    /// Unfinished manifest leaves in memory before the least recently touched is
    /// spilled; at least 1.
    pub open_leaves: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            queue_buffers: 24,
            open_leaves: 256,
        }
    }
}

/// Where a running capture stands. Bytes are of the source but where said otherwise.
#[derive(Debug, Clone)]
pub struct Progress {
    /// What is being done: `copying`, `trimming`, `scraping`, `retrying`.
    pub stage: &'static str,
    /// Size of the source.
    pub size_bytes: u64,
    /// Read so far.
    pub rescued_bytes: u64,
    /// Of these, safe from a power cut.
    pub durable_bytes: u64,
    /// Refused by the medium, sector by sector.
    pub unreadable_bytes: u64,
    /// Never tried.
    pub untried_bytes: u64,
    /// In failed reads that are not narrowed down yet.
    pub pending_bytes: u64,
    /// Zeros among the bytes read.
    pub zero_bytes: u64,
    /// Bytes of new artifacts.
    pub new_bytes: u64,
    /// Bytes that these take in the store.
    pub stored_bytes: u64,
    /// Reads, over all runs.
    pub reads: u64,
    /// Failed reads, over all runs.
    pub read_errors: u64,
    /// Separate bad areas.
    pub error_areas: u64,
    /// Time spent, over all runs.
    pub elapsed: Duration,
    /// Time since a read last succeeded.
    pub since_good: Duration,
    /// A read that has been under way for longer than a second: since when, where.
    pub stuck: Option<(Duration, u64)>,
    /// Bytes read in this run.
    pub run_bytes: u64,
    /// Time of this run.
    pub run_elapsed: Duration,
}

/// Told how a capture goes on.
pub trait Observer: Sync {
    /// Several times a second.
    fn progress(&self, progress: &Progress);
    /// Once an earlier run was folded: bytes that need not be read again.
    fn resumed(&self, rescued_bytes: u64);
    /// Reading is over; the manifest is being written.
    fn finishing(&self);
    /// After each sync: what the map says of any byte but untried is durable, and no
    /// resumed run learns it again.
    fn synced(&self, _map: &RescueMap) {}
    /// Notes of an earlier run that cannot be read: what only they told is read again.
    fn notes_lost(&self, _what: &str) {}
}

/// What came of a capture's run.
#[derive(Debug)]
pub struct DiskReport {
    /// Its id.
    pub session: SessionId,
    /// How it went; the same as in the store, if it got there.
    pub doc: CaptureDoc,
    /// Of the bytes read, those that no power cut can take: all of them, unless the
    /// destination had no room for the last.
    pub durable_bytes: u64,
    /// Root artifact; none where not even the manifest fitted.
    pub root: Option<Key>,
    /// What the medium refused, merged and ascending.
    pub unreadable: Vec<UnreadableRun>,
    /// Why it ended.
    pub end: End,
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Reading ended; see the reason.
    Reading(EndReason),
    /// The destination is full.
    DestinationFull,
    /// One read took longer than the options allow, or than a stop can wait for.
    Stuck,
}

impl End {
    /// The word for it in results; `None` where nothing was left to do.
    pub fn stopped(self) -> Option<&'static str> {
        match self {
            End::Reading(EndReason::Finished) => None,
            End::Reading(EndReason::Limit) | End::Stuck => Some("limit"),
            End::Reading(EndReason::Gone) => Some("device-gone"),
            End::Reading(EndReason::Interrupted) => Some("interrupted"),
            End::Reading(EndReason::Fatal { .. }) => Some("source-error"),
            End::DestinationFull => Some("destination-full"),
        }
    }
}

/// How long an asked-for stop waits for a read that is under way.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// How often progress is told and the time looked at.
const TICK: Duration = Duration::from_millis(100);

/// Captures `source` into the store of `writer`, going on with `resume` if given.
/// Closes the writer.
pub fn capture_disk(
    source: Arc<dyn Source>,
    mut writer: StoreWriter,
    resume: Option<&Capture>,
    options: &DiskOptions,
    clock: Arc<dyn Clock>,
    control: Arc<Control>,
    observer: &dyn Observer,
) -> Result<DiskReport> {
    let geometry = source.geometry();
    let begun = match resume {
        Some(capture) => {
            let same = session::same_source(&capture.begun.source, source.identity(), &geometry);
            if let Sameness::Other(why) = same {
                return Err(Error::OtherSource {
                    session: capture.session.to_string(),
                    why,
                });
            }
            capture.begun.clone()
        }
        None => SessionDoc {
            format: SESSION_FORMAT.to_owned(),
            kind: "disk".to_owned(),
            label: options.label.clone(),
            source: session::source_doc(source.identity(), &geometry),
            chunk_bytes: options.chunk_bytes,
            started_unix_ns: clock.unix_ns(),
            tool: options.tool.clone(),
        },
    };
    let session = match resume {
        Some(capture) => capture.session,
        None => SessionId(writer.random16()),
    };
    let chunking = Chunking {
        chunk_bytes: begun.chunk_bytes,
        size: geometry.size_bytes,
    };
    let body = serde_json::to_vec(&begun).expect("a document of numbers and texts");
    let store = writer.handle().clone();
    if resume.is_some() {
        // Before anything is written: another disk must leave no trace in this capture.
        check_fingerprint(&*source, &begun, session, &store)?;
    }
    writer.begin_session(session, &body)?;
    if resume.is_none() {
        writer.note(format::NOTE_SESSION, body)?;
    }
    let sector_bytes = options.plan.sector_bytes;
    let mut committer = Committer::new(
        writer,
        session,
        chunking,
        sector_bytes,
        clock.clone(),
        options.sync,
        options.tuning.open_leaves,
    );
    if resume.is_some() {
        let folded = session::fold(&store, session, &mut |entry| committer.fold(&entry))?;
        committer.continue_notes(session, folded.next);
        folded
            .lost
            .iter()
            .for_each(|what| observer.notes_lost(what));
        observer.resumed(committer.map().copied_bytes());
    }
    let cluster = options.plan.cluster_bytes as usize;
    let queue = options.tuning.queue_buffers.max(1);
    // Artifacts that are stored as they are are the read buffers themselves, until they are
    // synced; when half as many wait, a sync comes early.
    let held = options.sync.bytes as usize / cluster / 2;
    let pool = BufferPool::new(cluster, queue + held);
    let mut run = Run {
        committer,
        observer,
        clock: clock.clone(),
        control: control.clone(),
        pool: pool.clone(),
        reserve: (queue / 2).max(1),
        syncs: 0,
        read_timeout: options.read_timeout,
        started: clock.monotonic(),
        copied_before: 0,
        last_good: clock.monotonic(),
        last_copied: 0,
        last_told: None,
    };
    run.copied_before = run.committer.map().copied_bytes();
    run.last_copied = run.copied_before;
    let planner = Planner::new(run.committer.map().clone(), options.plan.clone());
    let wants_first = run.committer.fingerprint().is_none();
    let reader = Reader::new(
        source,
        planner,
        pool,
        begun.chunk_bytes,
        clock.clone(),
        control,
        options.limits,
        wants_first,
    );
    let worker = || Worker::new(chunking, store.clone(), options.compression);
    let ended = match options.threads {
        0 => run.alone(reader, worker()),
        threads => run.threaded(reader, worker(), (0..threads).map(|_| worker()).collect()),
    };
    let end = match ended {
        Ok(end) => end,
        Err(Error::Store(error)) if error.is_full() => End::DestinationFull,
        Err(error) => return Err(error),
    };
    observer.finishing();
    finish(
        run.committer,
        session,
        &begun,
        options,
        &*clock,
        observer,
        Closing {
            end,
            for_good: false,
        },
    )
}

/// Writes the manifest of a capture that was cut off, from what is in the store
/// alone, and ends its session: for a disk that will not come back.
pub fn close_unfinished(
    mut writer: StoreWriter,
    capture: &Capture,
    options: &DiskOptions,
    clock: Arc<dyn Clock>,
    observer: &dyn Observer,
) -> Result<DiskReport> {
    let store = writer.handle().clone();
    let begun = &capture.begun;
    let body = serde_json::to_vec(begun).expect("a document of numbers and texts");
    writer.begin_session(capture.session, &body)?;
    let chunking = Chunking {
        chunk_bytes: begun.chunk_bytes,
        size: begun.source.size_bytes,
    };
    let sector_bytes = begun.source.physical_sector_bytes;
    let mut committer = Committer::new(
        writer,
        capture.session,
        chunking,
        sector_bytes,
        clock.clone(),
        options.sync,
        options.tuning.open_leaves,
    );
    let folded = session::fold(&store, capture.session, &mut |entry| committer.fold(&entry))?;
    committer.continue_notes(capture.session, folded.next);
    folded
        .lost
        .iter()
        .for_each(|what| observer.notes_lost(what));
    let end = match committer.map().is_finished() {
        true => End::Reading(EndReason::Finished),
        false => End::Reading(EndReason::Interrupted),
    };
    let closing = Closing {
        end,
        for_good: true,
    };
    let (session, clock) = (capture.session, &*clock);
    finish(committer, session, begun, options, clock, observer, closing)
}

/// A source without a serial is known by its first readable sector.
fn check_fingerprint(
    source: &dyn Source,
    begun: &SessionDoc,
    session: SessionId,
    store: &StoreHandle,
) -> Result<()> {
    let same = session::same_source(&begun.source, source.identity(), &source.geometry());
    if same != Sameness::Likely {
        return Ok(());
    }
    let Some((offset, len, digest)) = session::fingerprint(store, session)? else {
        return Ok(());
    };
    let pool = BufferPool::new((len as usize).next_multiple_of(4096).max(4096), 1);
    let mut buffer = pool.get();
    buffer.set_len(len as usize);
    // A sector that does not read any more proves nothing either way.
    if source.read_at(offset, &mut buffer).is_ok() && *blake3::hash(&buffer).as_bytes() != digest {
        let why = format!("its bytes at {offset} are not those that were captured");
        return Err(Error::OtherSource {
            session: session.to_string(),
            why,
        });
    }
    Ok(())
}

struct Run<'a> {
    committer: Committer,
    observer: &'a dyn Observer,
    clock: Arc<dyn Clock>,
    control: Arc<Control>,
    pool: BufferPool,
    /// Buffers that must be left to reading and working out.
    reserve: usize,
    syncs: u64,
    read_timeout: Option<Duration>,
    started: Duration,
    copied_before: u64,
    last_good: Duration,
    last_copied: u64,
    last_told: Option<Duration>,
}

impl Run<'_> {
    fn alone(&mut self, mut reader: Reader, mut worker: Worker) -> Result<End> {
        while let Some(message) = reader.step() {
            let end = end_of(&message);
            self.accept(worker.work(message), 0)?;
            self.tick()?;
            if let Some(reason) = end {
                return Ok(End::Reading(reason));
            }
        }
        Ok(End::Reading(EndReason::Finished))
    }

    fn threaded(
        &mut self,
        mut reader: Reader,
        mut own: Worker,
        workers: Vec<Worker>,
    ) -> Result<End> {
        let queue = self.pool.count_max();
        // What waits for a worker waits in the processor's cache: a reader that is faster than
        // they are must not fill all buffers in turn.
        let (to_workers, messages) = bounded::<(u64, Message)>(2 * workers.len());
        let (to_writer, worked) = bounded::<(u64, Worked)>(queue);
        // Compressed chunks hold no buffer: what is worked out while a thread is late with
        // what comes before it must be bounded as well.
        let (permit, permits) = bounded::<()>(queue + 3 * workers.len());
        let gathering = reader.gathering();
        let sent = Arc::new(AtomicU64::new(0));
        // Not scoped: a thread in a read that never returns must not keep us.
        let reading = std::thread::spawn({
            let sent = sent.clone();
            move || {
                while let Some(message) = reader.step() {
                    if permit.send(()).is_err() {
                        return;
                    }
                    let sequence = sent.fetch_add(1, Ordering::AcqRel);
                    if to_workers.send((sequence, message)).is_err() {
                        return;
                    }
                }
            }
        });
        let mut working = Vec::new();
        for mut worker in workers {
            let (messages, to_writer) = (messages.clone(), to_writer.clone());
            working.push(std::thread::spawn(move || {
                for (sequence, message) in messages {
                    if to_writer.send((sequence, worker.work(message))).is_err() {
                        return;
                    }
                }
            }));
        }
        drop((messages, to_writer));
        let mut early: BTreeMap<u64, Worked> = BTreeMap::new();
        let mut next = 0;
        let mut stopping: Option<Duration> = None;
        loop {
            match worked.recv_timeout(TICK) {
                Ok((sequence, item)) => {
                    early.insert(sequence, item);
                }
                Err(RecvTimeoutError::Timeout) => {}
                // Only a panic of another thread ends the queue without an end message.
                Err(RecvTimeoutError::Disconnected) => return Err(Error::WorkerDied),
            }
            while let Some(item) = early.remove(&next) {
                next += 1;
                let _ = permits.try_recv();
                let end = end_of(&item.message);
                let under_way = sent.load(Ordering::Acquire) - next;
                self.accept(item, under_way)?;
                if let Some(reason) = end {
                    let joined = reading.join().is_ok()
                        & working.into_iter().all(|worker| worker.join().is_ok());
                    return if joined {
                        Ok(End::Reading(reason))
                    } else {
                        Err(Error::WorkerDied)
                    };
                }
            }
            self.tick()?;
            let now = self.clock.monotonic();
            if let Some(message) = gathering.take_old(now) {
                self.accept(own.work(message), sent.load(Ordering::Acquire) - next)?;
            }
            let stuck = self
                .control
                .reading()
                .map_or(Duration::ZERO, |(since, _)| now.saturating_sub(since));
            let end = if self.read_timeout.is_some_and(|timeout| stuck > timeout) {
                End::Stuck
            } else if self.control.is_stopped() {
                let since = *stopping.get_or_insert(now);
                if stuck <= STOP_PATIENCE || now.saturating_sub(since) <= STOP_PATIENCE {
                    continue;
                }
                End::Reading(EndReason::Interrupted)
            } else {
                continue;
            };
            // What was read before the read that hangs is worth waiting for.
            if sent.load(Ordering::Acquire) == next {
                self.control.stop();
                if let Some(message) = gathering.take() {
                    self.accept(own.work(message), 0)?;
                }
                return Ok(end);
            }
        }
    }

    /// `under_way` messages are not worked out or not written yet.
    fn accept(&mut self, worked: Worked, under_way: u64) -> Result<()> {
        self.committer.accept(worked)?;
        // Buffers that wait for a sync must not starve the reader. Those under way come
        // back by themselves.
        let waiting = self.pool.out().saturating_sub(under_way as usize);
        if waiting + self.reserve > self.pool.count_max() && self.committer.pending_bytes() > 0 {
            self.committer.sync()?;
        }
        self.tell_synced();
        Ok(())
    }

    fn tell_synced(&mut self) {
        if self.syncs != self.committer.syncs() {
            self.syncs = self.committer.syncs();
            self.observer.synced(self.committer.map());
        }
    }

    fn tick(&mut self) -> Result<()> {
        self.committer.tick()?;
        self.tell_synced();
        let now = self.clock.monotonic();
        let copied = self.committer.map().copied_bytes();
        if copied != self.last_copied {
            self.last_copied = copied;
            self.last_good = now;
        }
        if self
            .last_told
            .is_some_and(|told| now.saturating_sub(told) < TICK)
        {
            return Ok(());
        }
        self.last_told = Some(now);
        let counters = self.committer.counters();
        let map = self.committer.map();
        let stuck = self
            .control
            .reading()
            .map(|(since, at)| (now.saturating_sub(since), at));
        self.observer.progress(&Progress {
            stage: self.control.stage(),
            size_bytes: map.size(),
            rescued_bytes: copied,
            durable_bytes: self.committer.durable_bytes(),
            unreadable_bytes: map.unreadable_bytes(),
            untried_bytes: map.untried_bytes(),
            pending_bytes: map.bytes_of(StateKind::Untrimmed) + map.bytes_of(StateKind::Unscraped),
            zero_bytes: self.committer.zero_bytes(),
            new_bytes: counters.new_bytes,
            stored_bytes: counters.stored_bytes,
            reads: counters.reads,
            read_errors: counters.read_errors,
            error_areas: map.error_areas(),
            elapsed: self.committer.elapsed(),
            since_good: now.saturating_sub(self.last_good),
            stuck: stuck.filter(|(since, _)| *since > Duration::from_secs(1)),
            run_bytes: copied - self.copied_before,
            run_elapsed: now.saturating_sub(self.started),
        });
        Ok(())
    }
}

fn end_of(message: &Message) -> Option<EndReason> {
    match message {
        Message::End { reason, .. } => Some(*reason),
        _ => None,
    }
}

/// How a run ends.
struct Closing {
    end: End,
    /// Whether the capture is over even if something was not tried.
    for_good: bool,
}

/// Writes manifest, root and session record, and closes the writer.
fn finish(
    mut committer: Committer,
    session: SessionId,
    begun: &SessionDoc,
    options: &DiskOptions,
    clock: &dyn Clock,
    observer: &dyn Observer,
    closing: Closing,
) -> Result<DiskReport> {
    let end = closing.end;
    if end == End::DestinationFull {
        committer.writer().release_ballast();
    }
    let unreadable: Vec<_> = committer.map().unreadable_runs().collect();
    let finished = end == End::Reading(EndReason::Finished);
    // A writer that failed for lack of room takes nothing more, and says only that.
    let mut full = end == End::DestinationFull;
    let mut is_full = |error: &asl_store::Error| {
        full |= error.is_full();
        full && (error.is_full() || matches!(error, asl_store::Error::Poisoned))
    };
    let written = committer.sync().and_then(|()| {
        observer.synced(committer.map());
        write_root(
            &mut committer,
            session,
            begun,
            options,
            clock,
            end,
            finished,
        )
    });
    let (mut doc, root) = match written {
        Ok((doc, root)) => (doc, Some(root)),
        // The notes hold everything: the manifest is written when there is room.
        Err(Error::Store(error)) if is_full(&error) => {
            let mut doc = document(&committer, session, begun, options, clock, end, None);
            // What was read and did not fit any more is not rescued: it is read again.
            let lost = doc.rescued_bytes - committer.durable_bytes();
            doc.rescued_bytes -= lost;
            doc.untried_bytes += lost;
            doc.complete &= lost == 0;
            (doc, None)
        }
        Err(error) => return Err(error),
    };
    let end_of = |root: Option<Key>| match root {
        None if finished => End::DestinationFull,
        _ => end,
    };
    doc.stopped = end_of(root).stopped().map(str::to_owned);
    let body = serde_json::to_vec(&doc).expect("a document of numbers and texts");
    // What was left out by a range or a choice of passes may be read by a later run.
    let over = closing.for_good || finished && doc.untried_bytes == 0;
    let kind = if over && root.is_some() {
        format::SESSION_FINISHED
    } else {
        format::SESSION_PAUSED
    };
    let durable_bytes = committer.durable_bytes();
    let mut writer = committer.into_writer();
    let root = match writer.end_session(kind, root, &body) {
        Ok(()) => root,
        // What is durable is salvaged at the next opening; the report says what to do.
        Err(error) if is_full(&error) => None,
        Err(error) => return Err(error.into()),
    };
    let end = end_of(root);
    doc.stopped = end.stopped().map(str::to_owned);
    let closed = match end {
        End::DestinationFull => writer.finish(),
        _ => writer.snapshot("").and_then(|_| writer.finish()),
    };
    match closed {
        // The session's record is durable: a snapshot more or less changes nothing.
        Err(error) if !is_full(&error) => return Err(error.into()),
        _ => {}
    }
    Ok(DiskReport {
        session,
        doc,
        durable_bytes,
        root,
        unreadable,
        end,
    })
}

fn write_root(
    committer: &mut Committer,
    session: SessionId,
    begun: &SessionDoc,
    options: &DiskOptions,
    clock: &dyn Clock,
    end: End,
    finished: bool,
) -> Result<(CaptureDoc, Key)> {
    let top = committer.write_manifest(finished)?;
    let mut doc = document(
        committer,
        session,
        begun,
        options,
        clock,
        end,
        top.image_blake3,
    );
    if finished && options.digests.any() && doc.untried_bytes == 0 {
        committer.writer().commit()?;
        let store = committer.writer().handle().clone();
        (doc.sha256, doc.md5) = digests::of_image(&store, &doc, top.key, options.digests)?;
    }
    let root = committer.put_root(doc.encode(top.key))?;
    Ok((doc, root))
}

fn document(
    committer: &Committer,
    session: SessionId,
    begun: &SessionDoc,
    options: &DiskOptions,
    clock: &dyn Clock,
    end: End,
    image_blake3: Option<[u8; 32]>,
) -> CaptureDoc {
    let map: &RescueMap = committer.map();
    let counters = committer.counters();
    let (rescued, unreadable) = (map.copied_bytes(), map.unreadable_bytes());
    CaptureDoc {
        format: CAPTURE_FORMAT.to_owned(),
        session: session.to_string(),
        label: begun.label.clone(),
        source: begun.source.clone(),
        started_unix_ns: begun.started_unix_ns,
        finished_unix_ns: clock.unix_ns(),
        tool: options.tool.clone(),
        chunk_bytes: begun.chunk_bytes,
        leaf_chunks: FAN_OUT as u32,
        levels: levels_for(map.size(), begun.chunk_bytes),
        rescued_bytes: rescued,
        unreadable_bytes: unreadable,
        untried_bytes: map.size() - rescued - unreadable,
        zero_bytes: committer.zero_bytes(),
        new_bytes: counters.new_bytes,
        stored_bytes: counters.stored_bytes,
        reads: counters.reads,
        read_errors: counters.read_errors,
        slow_reads: counters.slow_reads,
        elapsed_seconds: committer.elapsed().as_secs_f64(),
        complete: rescued == map.size(),
        stopped: end.stopped().map(str::to_owned),
        image_blake3: image_blake3.map(|digest| asl_store::id::hex(&digest)),
        sha256: None,
        md5: None,
    }
}
