//! Getting an image back: to a file or device by position, or to a stream.
//!
//! Every artifact is checked against its key before a byte of it is written. What
//! cannot be read from the store is reported with its range and filled like what
//! could not be read from the source; the rest goes on.

use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use asl_store::{Key, Scratch, StoreHandle};
use crossbeam_channel::bounded;

use crate::error::{Error, Result};
use crate::manifest::{Content, Extent, Manifest};
use crate::worker::is_zero;

/// What stands where nothing could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fill {
    /// Zeros.
    Zero,
    /// This pattern, repeated from the start of the image; not empty.
    Pattern(Vec<u8>),
}

impl Fill {
    fn at(&self, offset: u64, buf: &mut [u8]) {
        match self {
            Fill::Zero => buf.fill(0),
            Fill::Pattern(pattern) => {
                for (at, byte) in buf.iter_mut().enumerate() {
                    *byte = pattern[((offset + at as u64) % pattern.len() as u64) as usize];
                }
            }
        }
    }
}

/// How to export.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// What stands where nothing could be read.
    pub fill: Fill,
    /// Leave zeros as holes; the destination reads as zeros where nothing is written.
    pub sparse: bool,
    /// Bytes of the image to export.
    pub range: Range<u64>,
    /// Threads that read and check.
    pub threads: usize,
}

/// A stretch that the store could not give back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedRange {
    /// First byte in the image.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
    /// What is wrong.
    pub what: String,
}

/// What an export wrote.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExportReport {
    /// Bytes of the image in the range.
    pub bytes: u64,
    /// Of these, filled because the source's medium refused them.
    pub unreadable_bytes: u64,
    /// Of these, filled because they were never read.
    pub untried_bytes: u64,
    /// Of these, filled because the store is damaged there.
    pub damaged: Vec<DamagedRange>,
}

/// Told how many bytes of the image are done.
pub trait ExportObserver: Sync {
    /// Several times a second.
    fn progress(&self, done_bytes: u64, total_bytes: u64);
}

const ZERO_BLOCK: usize = 4096;

fn check_range(manifest: &Manifest, range: &Range<u64>) -> Result<()> {
    let size = manifest.doc.source.size_bytes;
    if range.start > range.end || range.end > size {
        return Err(Error::Range {
            start: range.start,
            end: range.end,
            size,
        });
    }
    Ok(())
}

/// The part of an extent that lies in `range`: where in the extent, where in the output.
fn clip(extent: &Extent, range: &Range<u64>) -> (Range<usize>, u64) {
    let from = extent.offset.max(range.start);
    let to = (extent.offset + extent.len).min(range.end);
    (
        (from - extent.offset) as usize..(to - extent.offset) as usize,
        from - range.start,
    )
}

/// Writes the image to a file or device by position. Nothing is written where a
/// sparse export has zeros, so the destination must read as zeros there.
pub fn export_to_file(
    store: &StoreHandle,
    manifest: &Manifest,
    file: &File,
    options: &ExportOptions,
    observer: &dyn ExportObserver,
) -> Result<ExportReport> {
    check_range(manifest, &options.range)?;
    let job = Job {
        store,
        file,
        options,
        done: AtomicU64::new(0),
        report: Mutex::default(),
        observer,
    };
    let (send, extents) = bounded::<Extent>(4 * options.threads.max(1));
    let walked = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..options.threads.max(1))
            .map(|_| {
                let (extents, job) = (extents.clone(), &job);
                scope.spawn(move || {
                    let mut scratch = Scratch::default();
                    extents
                        .iter()
                        .try_for_each(|extent| job.write(&extent, &mut scratch))
                })
            })
            .collect();
        drop(extents);
        let walked = manifest.walk_around(store, options.range.clone(), &mut |found| match found {
            // A thread that failed has closed its end; its error is found below.
            Ok(extent) => send.send(extent).map_err(|_| Error::WorkerDied),
            Err(lost) => job.lose(lost.offset..lost.offset + lost.len, chain(&lost.error)),
        });
        drop(send);
        let results: Vec<Result<()>> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or(Err(Error::WorkerDied)))
            .collect();
        results.into_iter().collect::<Result<()>>().and(walked)
    });
    walked?;
    let mut report = job
        .report
        .into_inner()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    report.bytes = options.range.end - options.range.start;
    report.damaged.sort_by_key(|damage| damage.offset);
    Ok(report)
}

struct Job<'a> {
    store: &'a StoreHandle,
    file: &'a File,
    options: &'a ExportOptions,
    done: AtomicU64,
    report: Mutex<ExportReport>,
    observer: &'a dyn ExportObserver,
}

impl Job<'_> {
    fn write(&self, extent: &Extent, scratch: &mut Scratch) -> Result<()> {
        let (part, at) = clip(extent, &self.options.range);
        let len = part.len() as u64;
        match extent.content {
            Content::Data(key) => match read_whole(self.store, extent, &key, scratch) {
                Ok(bytes) => self.write_data(at, &bytes[part])?,
                Err(what) => {
                    let from = at + self.options.range.start;
                    return self.lose(from..from + len, what);
                }
            },
            Content::Zero if self.options.sparse => {}
            Content::Zero => self.zeros(at, len)?,
            Content::Unreadable(_) => {
                self.fill(at + self.options.range.start, at, len)?;
                self.report().unreadable_bytes += len;
            }
            Content::Untried => {
                self.fill(at + self.options.range.start, at, len)?;
                self.report().untried_bytes += len;
            }
        }
        self.tell(len);
        Ok(())
    }

    /// Fills what the store cannot give back.
    fn lose(&self, image: Range<u64>, what: String) -> Result<()> {
        let len = image.end - image.start;
        self.fill(image.start, image.start - self.options.range.start, len)?;
        self.report().damaged.push(DamagedRange {
            offset: image.start,
            len,
            what,
        });
        self.tell(len);
        Ok(())
    }

    fn tell(&self, len: u64) {
        let done = self.done.fetch_add(len, Ordering::Relaxed) + len;
        self.observer
            .progress(done, self.options.range.end - self.options.range.start);
    }

    fn report(&self) -> std::sync::MutexGuard<'_, ExportReport> {
        self.report
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn put(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all_at(bytes, at)
            .map_err(|source| Error::Destination {
                action: "write to",
                source,
            })
    }

    fn write_data(&self, at: u64, bytes: &[u8]) -> Result<()> {
        if !self.options.sparse {
            return self.put(at, bytes);
        }
        // Write the stretches between runs of zero blocks.
        let mut start = None;
        let mut offset = 0;
        for block in bytes.chunks(ZERO_BLOCK) {
            match (is_zero(block), start) {
                (false, None) => start = Some(offset),
                (true, Some(from)) => {
                    self.put(at + from as u64, &bytes[from..offset])?;
                    start = None;
                }
                _ => {}
            }
            offset += block.len();
        }
        start.map_or(Ok(()), |from| self.put(at + from as u64, &bytes[from..]))
    }

    fn zeros(&self, at: u64, len: u64) -> Result<()> {
        let zeros = vec![0; len.min(1 << 20) as usize];
        let mut done = 0;
        while done < len {
            let part = (len - done).min(zeros.len() as u64);
            self.put(at + done, &zeros[..part as usize])?;
            done += part;
        }
        Ok(())
    }

    fn fill(&self, image_offset: u64, at: u64, len: u64) -> Result<()> {
        if self.options.fill == Fill::Zero && self.options.sparse {
            return Ok(());
        }
        let mut buf = vec![0; len.min(1 << 20) as usize];
        let mut done = 0;
        while done < len {
            let part = (len - done).min(buf.len() as u64) as usize;
            self.options.fill.at(image_offset + done, &mut buf[..part]);
            self.put(at + done, &buf[..part])?;
            done += part as u64;
        }
        Ok(())
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// An extent's artifact, whole; `Err` says why it cannot be had.
fn read_whole<'a>(
    store: &StoreHandle,
    extent: &Extent,
    key: &Key,
    scratch: &'a mut Scratch,
) -> Result<&'a [u8], String> {
    let record = match store.lookup_part(key) {
        Ok(Some(record)) => record,
        Ok(None) => return Err(format!("artifact {key} is missing")),
        Err(error) => return Err(chain(&error)),
    };
    match store.read_entry(&record, scratch) {
        Ok(bytes) if bytes.len() as u64 == extent.len => Ok(bytes),
        Ok(_) => Err(format!(
            "artifact {key} has another length than the manifest says"
        )),
        Err(error) => Err(chain(&error)),
    }
}

/// Writes the image to a stream, front to back.
pub fn export_to_stream(
    store: &StoreHandle,
    manifest: &Manifest,
    out: &mut dyn Write,
    options: &ExportOptions,
    observer: &dyn ExportObserver,
) -> Result<ExportReport> {
    check_range(manifest, &options.range)?;
    let mut report = ExportReport::default();
    let total = options.range.end - options.range.start;
    let failed = |source| Error::Destination {
        action: "write to",
        source,
    };
    let mut buf = vec![0; 1 << 20];
    let mut scratch = Scratch::default();
    manifest.walk_around(store, options.range.clone(), &mut |found| {
        let (start, len, fill) = match &found {
            Ok(extent) => {
                let (part, at) = clip(extent, &options.range);
                let (start, len) = (options.range.start + at, part.len() as u64);
                let fill = match extent.content {
                    Content::Data(key) => match read_whole(store, extent, &key, &mut scratch) {
                        Ok(bytes) => {
                            out.write_all(&bytes[part]).map_err(failed)?;
                            None
                        }
                        Err(what) => {
                            report.damaged.push(DamagedRange {
                                offset: start,
                                len,
                                what,
                            });
                            Some(&options.fill)
                        }
                    },
                    Content::Zero => Some(&Fill::Zero),
                    Content::Unreadable(_) => {
                        report.unreadable_bytes += len;
                        Some(&options.fill)
                    }
                    Content::Untried => {
                        report.untried_bytes += len;
                        Some(&options.fill)
                    }
                };
                (start, len, fill)
            }
            Err(lost) => {
                report.damaged.push(DamagedRange {
                    offset: lost.offset,
                    len: lost.len,
                    what: chain(&lost.error),
                });
                (lost.offset, lost.len, Some(&options.fill))
            }
        };
        if let Some(fill) = fill {
            let mut done = 0;
            while done < len {
                let part = (len - done).min(buf.len() as u64) as usize;
                fill.at(start + done, &mut buf[..part]);
                out.write_all(&buf[..part]).map_err(failed)?;
                done += part as u64;
            }
        }
        report.bytes += len;
        observer.progress(report.bytes, total);
        Ok(())
    })?;
    out.flush().map_err(failed)?;
    Ok(report)
}
