//! SHA-256 and MD5 of an image, in image order from the store: for people whose
//! other tools and papers know no BLAKE3.

use asl_store::id::hex;
use asl_store::{Key, StoreHandle};
use md5::Md5;
use sha2::{Digest, Sha256};

use crate::error::Result;
use crate::manifest::{CaptureDoc, Content, Manifest};

/// Which further digests to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExtraDigests {
    /// SHA-256.
    pub sha256: bool,
    /// MD5.
    pub md5: bool,
}

impl ExtraDigests {
    /// Whether there is anything to compute.
    pub fn any(self) -> bool {
        self.sha256 || self.md5
    }
}

/// Digests of the image with unreadable bytes as zero, in hex. Every artifact must
/// be committed.
pub fn of_image(
    store: &StoreHandle,
    doc: &CaptureDoc,
    top: Key,
    which: ExtraDigests,
) -> Result<(Option<String>, Option<String>)> {
    let mut sha256 = which.sha256.then(Sha256::new);
    let mut md5 = which.md5.then(Md5::new);
    let mut update = |bytes: &[u8]| {
        if let Some(hasher) = &mut sha256 {
            hasher.update(bytes);
        }
        if let Some(hasher) = &mut md5 {
            hasher.update(bytes);
        }
    };
    let zeros = vec![0; 1 << 20];
    let manifest = Manifest::of(doc.clone(), top);
    manifest.walk(store, 0..doc.source.size_bytes, &mut |extent| {
        if let Content::Data(key) = extent.content {
            update(&store.get_part(&key)?);
            return Ok(());
        }
        let mut left = extent.len;
        while left > 0 {
            let part = left.min(zeros.len() as u64);
            update(&zeros[..part as usize]);
            left -= part;
        }
        Ok(())
    })?;
    Ok((
        sha256.map(|hasher| hex(&hasher.finalize())),
        md5.map(|hasher| hex(&hasher.finalize())),
    ))
}
