//! Promotes a store into another, both with domains of their own, to measure it.
//!
//! ```text
//! cargo run --release --example promote -p asl-bootstrap -- found STORE SEED
//! cargo run --release --example promote -p asl-bootstrap -- fill STORE MEBIBYTES
//! cargo run --release --example promote -p asl-bootstrap -- promote SOURCE TARGET
//! ```
//!
//! `found` makes a store of a personal domain whose keys anybody can know, for measuring only; whatever else is in it, such as what
//! `tiny` of `asl-store` puts there, is promoted. `promote` prints seconds of each stage and what was moved.

use std::cell::Cell;
use std::error::Error;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use asl_bootstrap::dam::Kind;
use asl_bootstrap::keyfile::{KeyFile, Role};
use asl_bootstrap::lineage::Level;
use asl_bootstrap::promote::{Means, PromoteObserver, Request, Source, Stage, Tally, examine};
use asl_bootstrap::{Domain, Policy, mint};
use asl_store::vfs::real::RealVfs;
use asl_store::{
    Compression, Context, Hint, Owner, Params, StoreHandle, StoreWriter, WriteOptions, create,
    put_reader,
};

fn context() -> Result<Context, Box<dyn Error>> {
    let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos();
    Ok(Context {
        owner: Owner {
            pid: std::process::id(),
            ..Owner::default()
        },
        holder: "the example that promotes".to_owned(),
        seed: *blake3::hash(&nanoseconds.to_le_bytes()).as_bytes(),
        home: None,
        now: Arc::new(|| 0),
    })
}

/// Seeds that are the same each time: a mint's keys in the order that it draws them.
struct Fixed(blake3::OutputReader);

impl asl_bootstrap::Random for Fixed {
    fn fill(&mut self, bytes: &mut [u8]) -> std::io::Result<()> {
        self.0.fill(bytes);
        Ok(())
    }
}

fn plan_of(seed: u8) -> Result<mint::Plan, Box<dyn Error>> {
    let mut random = Fixed(blake3::Hasher::new().update(&[seed]).finalize_xof());
    let request = mint::Request {
        label: format!("measured {seed}"),
        policy: Policy::default_of(Kind::Personal),
        witness: asl_bootstrap::dam::Witness::NONE,
        created_hint: 0,
    };
    Ok(mint::Plan::draw(&mut random, &request)?)
}

fn copy_of(keys: &KeyFile) -> KeyFile {
    let mut copy = KeyFile::new(keys.domain());
    for role in Role::ALL {
        for signer in keys.signers(role) {
            copy.add(role, &signer.secret());
        }
    }
    copy
}

fn found(store: &Path, seed: u8) -> Result<(), Box<dyn Error>> {
    let files = Arc::new(RealVfs::open(store)?);
    if StoreHandle::open(files.clone()).is_err() {
        create(
            &*files,
            &Params::default(),
            &context()?,
            &WriteOptions::default(),
        )?;
    }
    let mut writer = StoreWriter::open(files, context()?, WriteOptions::default())?;
    let plan = plan_of(seed)?;
    plan.prepare(&writer)?;
    plan.found(&mut writer)?;
    writer.finish()?;
    Ok(())
}

/// Puts bytes that nothing compresses.
fn fill(store: &Path, mebibytes: u64) -> Result<(), Box<dyn Error>> {
    let files = Arc::new(RealVfs::open(store)?);
    let mut writer = StoreWriter::open(files, context()?, WriteOptions::default())?;
    let noise = blake3::Hasher::new().finalize_xof();
    let mut noise = noise.take(mebibytes << 20);
    put_reader(
        &mut writer,
        &mut noise,
        Hint::Stream,
        None,
        Compression::None,
    )?;
    writer.finish()?;
    Ok(())
}

/// Says how long each stage took.
struct Clock(Cell<Option<(Stage, Instant)>>);

impl PromoteObserver for Clock {
    fn progress(&self, stage: Stage, _done: Tally, _total: Tally) {
        match self.0.get() {
            Some((now, _)) if now == stage => {}
            last => {
                if let Some((stage, since)) = last {
                    eprintln!("{stage:?} {:.2} s", since.elapsed().as_secs_f64());
                }
                self.0.set(Some((stage, Instant::now())));
            }
        }
    }
}

fn promote(source: &Path, target: &Path) -> Result<(), Box<dyn Error>> {
    let source = Source::open(Arc::new(RealVfs::open(source)?))?;
    let child = Domain::read(source.store())?.ok_or("the source has no domain")?;
    let files = Arc::new(RealVfs::open(target)?);
    let home = StoreHandle::open(files.clone())?;
    let parent = Domain::read(&home)?.ok_or("the target has no domain")?;
    let keys = (0..=u8::MAX).map(plan_of).find_map(|plan| {
        let plan = plan.ok()?;
        (plan.domain() == parent.id()).then(|| copy_of(plan.keys()))
    });
    let keys = keys.ok_or("the target was not made by this example")?;
    let since = Instant::now();
    let request = Request {
        expect: child.id(),
        level: Level::Semantics,
        fork: false,
        accept_rebuilt: false,
        accept_damaged: false,
        finished: &[],
        captures: None,
        tool: "measured",
    };
    let plan = examine(&source, &home, None, &request)?;
    eprintln!("plan {:.2} s", since.elapsed().as_secs_f64());
    drop(home);
    let mut writer = StoreWriter::open(files, context()?, WriteOptions::default())?;
    let clock = Clock(Cell::new(None));
    let means = Means {
        keys: &keys,
        child_keys: None,
        relabel: None,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        observer: &clock,
    };
    let promoted = plan.execute(&source, &mut writer, &means)?;
    writer.finish()?;
    if let Some((stage, begun)) = clock.0.get() {
        eprintln!("{stage:?} {:.2} s", begun.elapsed().as_secs_f64());
    }
    println!(
        "{} bytes of blocks, {} of them shared, {} artifacts, {:.2} s",
        promoted.moved.brought.bytes,
        promoted.moved.shared_bytes,
        promoted.links[0].lineage.artifacts,
        since.elapsed().as_secs_f64()
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["found", store, seed] => found(Path::new(store), seed.parse()?),
        ["fill", store, mebibytes] => fill(Path::new(store), mebibytes.parse()?),
        ["promote", source, target] => promote(Path::new(source), Path::new(target)),
        _ => Err("usage: promote found STORE SEED | promote promote SOURCE TARGET".into()),
    }
}
