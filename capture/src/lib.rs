//! Reads failing disks into a store.

pub mod device;
