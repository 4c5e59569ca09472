//! Reads failing disks into a store.

pub mod buffer;
pub mod device;
pub mod inventory;
pub mod map;
mod sys;
