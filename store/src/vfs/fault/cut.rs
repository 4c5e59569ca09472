//! What a reader finds after a power cut.
//!
//! Whatever the policy, what was synced under durable names is there unchanged,
//! unless something newer was done to exactly that name or those bytes. All the
//! rest is the seed's choice.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::disk::{
    Change, DirNames, Directory, Disk, Inode, Names, Node, PendingName, Standing, overwrite,
};
use super::rng::Rng;

/// What a medium writes whole or not at all.
const SECTOR: u64 = 512;

/// What becomes of everything that nobody synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashPolicy {
    /// All of it survives: the process was killed, the machine ran on. It is
    /// still not durable; a later power cut may take it.
    KeepAll,
    /// None of it survives.
    LoseUnsynced,
    /// Each unsynced write is kept, dropped, cut short at a sector boundary,
    /// zeroed, or mixed sector by sector with old bytes, zeros and noise. Of
    /// the unsynced names in each directory the first few survive.
    Torn {
        /// Picks the outcome.
        seed: u64,
    },
    /// Any subset of the unsynced writes survives, each whole, and any subset
    /// of the unsynced names that contradicts none of its members.
    Reorder {
        /// Picks the outcome.
        seed: u64,
    },
}

impl CrashPolicy {
    fn seed(self) -> u64 {
        match self {
            CrashPolicy::KeepAll | CrashPolicy::LoseUnsynced => 0,
            CrashPolicy::Torn { seed } | CrashPolicy::Reorder { seed } => seed,
        }
    }
}

/// The disk as it is found after the cut.
pub(super) fn survivors(disk: &Disk, policy: CrashPolicy) -> Disk {
    if policy == CrashPolicy::KeepAll {
        return disk.without_processes();
    }
    let mut names = surviving_names(disk, policy);
    let mut found = Disk::new(disk.settings);
    found.next_inode = disk.next_inode;
    // A directory whose own name is gone takes everything in it along.
    let mut reachable = vec![String::new()];
    while let Some(dir) = reachable.pop() {
        let entries = names.0.remove(&dir).unwrap_or_default();
        for (name, node) in &entries {
            let path = if dir.is_empty() {
                name.clone()
            } else {
                format!("{dir}/{name}")
            };
            match node {
                Node::Dir => reachable.push(path),
                Node::File(inode) => {
                    let rng = Rng::new(policy.seed(), *inode);
                    let bytes = surviving_content(&disk.inodes[inode], policy, rng);
                    found.used += bytes.len() as u64;
                    found.inodes.insert(*inode, Inode::durable(path, bytes));
                }
            }
        }
        let directory = Directory {
            live: entries.clone(),
            durable: entries,
        };
        found.dirs.insert(dir, directory);
    }
    found
}

struct Tree(BTreeMap<String, Names>);

impl DirNames for Tree {
    fn names(&mut self, dir: &str) -> &mut Names {
        self.0.entry(dir.to_owned()).or_default()
    }
}

fn surviving_names(disk: &Disk, policy: CrashPolicy) -> Tree {
    let durable = |(dir, names): (&String, &Directory)| (dir.clone(), names.durable.clone());
    let mut tree = Tree(disk.dirs.iter().map(durable).collect());
    let mut rng = Rng::new(policy.seed(), u64::MAX);
    // Some cuts come before anything reached the medium, some just too early.
    let eighths = [0, 4, 7, 8][rng.below(4) as usize];
    let mut dropped: Vec<&PendingName> = Vec::new();
    for name in &disk.pending {
        let possible = match policy {
            CrashPolicy::KeepAll => true,
            CrashPolicy::LoseUnsynced => false,
            CrashPolicy::Torn { .. } => !dropped.iter().any(|d| shares_dir(name, d)),
            CrashPolicy::Reorder { .. } => {
                !dropped.iter().any(|d| name.change.depends_on(&d.change))
            }
        };
        if possible && rng.chance(eighths) {
            name.change.apply(&mut tree);
        } else {
            dropped.push(name);
        }
    }
    tree
}

fn shares_dir(a: &PendingName, b: &PendingName) -> bool {
    let dirs = |name: &PendingName| {
        let (key, other) = name.change.keys();
        (key.dir.clone(), other.unwrap_or(key).dir.clone())
    };
    let ((a1, a2), (b1, b2)) = (dirs(a), dirs(b));
    a1 == b1 || a1 == b2 || a2 == b1 || a2 == b2
}

fn surviving_content(file: &Inode, policy: CrashPolicy, mut rng: Rng) -> Vec<u8> {
    if policy == CrashPolicy::LoseUnsynced {
        return file.content(|_| false);
    }
    let whole = matches!(policy, CrashPolicy::Reorder { .. });
    let uncertain = file.log.iter().filter(|(_, s)| *s != Standing::Synced);
    let uncertain = uncertain.count() as u64;
    if uncertain == 0 {
        return file.content(|_| false);
    }
    let mut bytes = Arc::unwrap_or_clone(Arc::clone(&file.base));
    // Independent fates alone would hardly ever leave a long log with only its
    // end torn, which is what most real cuts do.
    let shape = rng.below(4);
    let point = rng.below(uncertain);
    let mut at = 0;
    for (change, standing) in &file.log {
        if *standing == Standing::Synced {
            change.apply(&mut bytes);
            continue;
        }
        let fate = match shape {
            // Everything before the point arrived, nothing after it.
            0 if at < point => Fate::Keep,
            0 if at > point => Fate::Drop,
            // Only the one at the point is in doubt.
            1 if at != point => Fate::Keep,
            // Everything after the point arrived, nothing before it.
            2 if at < point => Fate::Drop,
            2 if at > point => Fate::Keep,
            _ => Fate::pick(&mut rng),
        };
        fate.apply(change, whole, &mut bytes, &mut rng);
        at += 1;
    }
    bytes
}

/// What becomes of one write.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Keep,
    Drop,
    /// Whole sectors of its beginning arrived.
    Prefix,
    /// The length arrived, the bytes did not.
    Zeros,
    /// Each sector for itself: new, old, zeros or noise.
    Mixed,
}

impl Fate {
    fn pick(rng: &mut Rng) -> Fate {
        use Fate::*;
        [Keep, Drop, Prefix, Zeros, Mixed][rng.below(5) as usize]
    }

    fn apply(self, change: &Change, whole: bool, bytes: &mut Vec<u8>, rng: &mut Rng) {
        match (self, change) {
            (Fate::Keep, _) => change.apply(bytes),
            (Fate::Drop, _) => {}
            // Half of a truncation, or of a write that arrives whole, is none.
            (_, Change::Truncate { .. }) => {
                if rng.chance(4) {
                    change.apply(bytes);
                }
            }
            (_, Change::Write { .. }) if whole => {
                if rng.chance(4) {
                    change.apply(bytes);
                }
            }
            (Fate::Prefix, Change::Write { offset, data }) => {
                let sectors = sectors(*offset, data).count() as u64;
                let keep = rng.below(sectors) as usize;
                for (at, sector) in self::sectors(*offset, data).take(keep) {
                    overwrite(bytes, at, sector);
                }
            }
            (Fate::Zeros, Change::Write { offset, data }) => {
                overwrite(bytes, *offset, &vec![0; data.len()]);
            }
            (Fate::Mixed, Change::Write { offset, data }) => {
                for (at, sector) in sectors(*offset, data) {
                    match rng.below(4) {
                        0 => overwrite(bytes, at, sector),
                        1 => overwrite(bytes, at, &vec![0; sector.len()]),
                        2 => {
                            let noise: Vec<u8> = sector.iter().map(|_| rng.next() as u8).collect();
                            overwrite(bytes, at, &noise);
                        }
                        _ => {}
                    }
                }
            }
        }
    }
}

/// The parts of a write that fall into one sector each. Bytes of the same
/// sector that the write does not cover are never touched: the medium had them
/// before.
fn sectors(offset: u64, data: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let mut at = offset;
    let mut rest = data;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let len = rest.len().min((SECTOR - at % SECTOR) as usize);
        let (sector, after) = rest.split_at(len);
        let start = at;
        at += len as u64;
        rest = after;
        Some((start, sector))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sectors_cover_a_write_and_end_at_multiples() {
        let data: Vec<u8> = (0..1400).map(|i| i as u8).collect();
        let parts: Vec<_> = sectors(500, &data).collect();
        let spans: Vec<_> = parts.iter().map(|(at, s)| (*at, s.len())).collect();
        assert_eq!(spans, [(500, 12), (512, 512), (1024, 512), (1536, 364)]);
        let joined: Vec<u8> = parts.iter().flat_map(|(_, s)| s.iter().copied()).collect();
        assert_eq!(joined, data);
    }
}
