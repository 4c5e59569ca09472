//! An artifact store on any mounted path.
//!
//! Artifacts are opaque bytes named by BLAKE3. Immutable sealed blocks hold them;
//! index segments map a key to `(block, offset, length)`; an append-only log is
//! the truth about what is visible; snapshots pin a prefix of it. `docs/FORMAT.md`
//! has the bytes, `docs/DESIGN.md` the reasons.
//!
//! This library knows no terminal, no clock, no environment and no chance: they
//! come in through [`Context`]. All file access goes through [`vfs::Vfs`].

pub mod authority;
pub mod block;
pub mod compare;
pub mod current;
pub mod filter;
pub mod format;
pub mod frame;
pub mod home;
pub mod id;
pub mod import;
pub mod index;
pub mod instances;
pub mod log;
pub mod params;
pub mod put;
pub mod removal;
pub mod repair;
pub mod segment;
pub mod snapshot;
pub mod state;
pub mod sync;
pub mod verify;
pub mod vfs;

mod epoch;
mod error;
mod frame_check;
mod init;
mod maintain;
mod rebuild;
mod recover;
mod reindex;
mod salvage;
mod slab;
mod store;
mod union;
mod writer;

pub use authority::{Authority, AuthorityRecord, SessionRecord};
pub use block::Owner;
pub use bytes::Bytes;
pub use epoch::Epoch;
pub use error::{Error, Result};
pub use frame::{Compression, Encoder, Frame};
pub use home::Home;
pub use id::{BlockId, Key, Location, LogPosition, SessionId, SnapshotId, StoreId};
pub use import::Imported;
pub use init::{BALLAST_PATH, LOCK_PATH, check_vacant, create};
pub use params::Params;
pub use put::{Hint, Stored, put_reader};
pub use recover::Recovery;
pub use repair::{RepairOptions, RepairReport, repair};
pub use store::{Scratch, StoreHandle};
pub use sync::{SyncObserver, SyncOptions, SyncProgress, SyncReport, sync};
pub use verify::{Damage, VerifyCounts, VerifyObserver, VerifyOptions, VerifyReport, verify};
pub use writer::{Context, Put, StoreWriter, WriteOptions};
