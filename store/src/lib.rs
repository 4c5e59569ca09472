//! An artifact store on any mounted path.

pub mod vfs;
