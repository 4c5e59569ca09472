//! Puts many tiny artifacts into a store that exists: what is large then is everything but the data.
//!
//! ```text
//! cargo run --release --example tiny -p asl-store -- STORE COUNT
//! ```
//!
//! Artifact number n is `tiny n` in decimal, so the same count makes the same content anywhere. `scripts/bench` promotes
//! such a store to see how much memory that takes.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use asl_store::vfs::real::RealVfs;
use asl_store::{Compression, Context, Encoder, Key, Owner, StoreWriter, WriteOptions, format};

/// Bytes between two syncs, as the programs have it.
const PENDING_MAX: u64 = 32 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [store, count] = arguments.as_slice() else {
        return Err("usage: tiny STORE COUNT".into());
    };
    let count: u64 = count.parse()?;
    let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    let context = Context {
        owner: Owner {
            pid: std::process::id(),
            ..Owner::default()
        },
        holder: "the example that puts tiny artifacts".to_owned(),
        seed: *blake3::hash(&nanoseconds.to_le_bytes()).as_bytes(),
        home: None,
        now: Arc::new(|| 0),
    };
    let files = Arc::new(RealVfs::open(Path::new(store))?);
    let mut writer = StoreWriter::open(files, context, WriteOptions::default())?;
    let mut encoder = Encoder::new(Compression::None);
    for number in 0..count {
        let bytes = format!("tiny {number}").into_bytes();
        writer.put(encoder.encode(Key::of(&bytes), bytes.into(), format::FLAG_ROOT))?;
        if writer.pending_bytes() >= PENDING_MAX {
            writer.sync()?;
        }
    }
    writer.finish()?;
    Ok(())
}
