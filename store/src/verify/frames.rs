//! The frames of a block, each checked against its entry in the table of contents.

use super::Run;
use super::blocks::Copies;
use crate::block::Entry;
use crate::frame::FrameSalt;
use crate::frame_check::{NOT_PADDING, Reader, check_frame, check_padding};
use crate::vfs::VfsFile;

pub(super) use crate::frame_check::Buffers;

/// The frames of one block file.
pub(super) struct Frames<'a> {
    pub(super) run: &'a Run<'a>,
    pub(super) file: &'a dyn VfsFile,
    pub(super) path: &'a str,
    pub(super) copies: &'a Copies<'a>,
    /// What binds them to the file.
    pub(super) salt: FrameSalt,
    /// Where they end.
    pub(super) end: u64,
}

impl Frames<'_> {
    /// Checks every frame against its entry in the table of contents.
    pub(super) fn check(&self, buffers: &mut Buffers, entries: &[Entry]) {
        let advance = |bytes| self.run.advance(bytes);
        let mut reader = Reader::new(self.file, self.end, &advance, buffers);
        for entry in entries {
            if let Err(mut what) = check_frame(&mut reader, &self.salt, buffers, entry) {
                let key = entry.info.key;
                let mut keys = Vec::new();
                if entry.info.is_artifact() {
                    if self.copies.is_hit(&key, Some(entry.offset)) {
                        keys.push(key);
                    } else {
                        what.push_str("; readers use another copy");
                    }
                }
                self.run.hit(self.path, u64::from(entry.offset), what, keys);
            }
            if let Err(at) = check_padding(&mut reader, entry) {
                self.run.damaged(self.path, at, NOT_PADDING);
            }
        }
        reader.done(buffers);
    }
}
