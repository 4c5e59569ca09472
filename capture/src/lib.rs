//! Reads failing disks into a store: devices, rescue passes, the map, chunking, the
//! manifest, and getting it all back.
//!
//! A capture is a session of the store. A reader follows a plan over the rescue
//! map; workers hash and compress; a committer writes artifacts and, beside them,
//! what was learnt about the disk. `docs/DESIGN.md` says why.

pub mod buffer;
pub mod commit;
pub mod damage;
pub mod device;
pub mod digests;
pub mod disk;
pub mod export;
pub mod imagehash;
pub mod inventory;
pub mod journal;
pub mod leaves;
pub mod manifest;
pub mod map;
pub mod mapfile;
pub mod pass;
pub mod reader;
pub mod session;
pub mod worker;

mod error;
mod fields;
mod sys;

pub use error::{Error, Result};
