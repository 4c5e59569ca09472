//! What a store lacks, told without reading its blocks: files that are missing, or are not as long as the log says.
//!
//! Nothing is written; a crash leaves nothing.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::id::{BlockId, Key};
use crate::index::open_block;
use crate::store::StoreHandle;
use crate::verify::Damage;

/// The blocks of all instances that are missing or short, each with the visible artifacts that are in it.
///
/// # Errors
/// What reading the index says.
pub fn missing_blocks(store: &StoreHandle) -> Result<Vec<Damage>> {
    let mut missing = Vec::new();
    let (own, others) = store.parts();
    let instances = std::iter::once(own).chain(others);
    for (one, single) in instances.zip(store.instances()) {
        let ids: Vec<BlockId> =
            single.with_state(|state| state.blocks.keys().map(|id| BlockId(*id)).collect());
        let mut blocks = HashMap::new();
        for id in ids {
            let opened = single.with_state(|state| open_block(&*one.vfs, state, id).map(drop));
            let Err(error) = opened else { continue };
            let (path, what) = match error {
                Error::Damaged { path, what, .. } => (path, what),
                Error::Io { path, source, .. } => (path, source.to_string()),
                error => return Err(error),
            };
            blocks.insert(id, missing.len());
            missing.push(Damage {
                file: format!("{}{path}", one.prefix),
                offset: None,
                what,
                cache: false,
                keys: Vec::<Key>::new(),
            });
        }
        if blocks.is_empty() {
            continue;
        }
        single.for_each(&mut |record| {
            if let Some(at) = blocks.get(&record.block) {
                missing[*at].keys.push(record.key);
            }
            Ok(())
        })?;
    }
    Ok(missing)
}
