//! Places where a disk should be mounted and is not: a store made there would
//! fill the rescue system's memory instead of the disk that the user meant.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::SystemPaths;
use super::mounts::{describe_mount, path_of};

/// Directories whose children are mountpoints, and how far down: a desktop
/// mounts at `/media/USER/LABEL`, people at `/mnt` and `/mnt/NAME`.
const BASES: [(&str, usize); 3] = [("/mnt", 1), ("/media", 2), ("/run/media", 2)];
/// Mountpoints of the rescue media, further down.
const OF_MEDIA: [&str; 2] = ["/mnt/asl/local", "/mnt/asl/remote"];

/// The mountpoint on the way to `path` that nothing is mounted on: one that
/// `fstab` lists, or a place for mounts by custom. `None` if something is
/// mounted there or below, or `path` is at no such place.
///
/// A directory on another device than its parent counts as mounted, even if the
/// table of mounts does not list it.
pub fn unmounted_mountpoint(system: &SystemPaths, path: &Path) -> Option<PathBuf> {
    let path = system.settle(path);
    let mounted = describe_mount(system, &path).map(|mount| mount.mount_point);
    let mounted_within = |place: &Path| {
        mounted
            .as_deref()
            .is_some_and(|mount_point| mount_point.starts_with(place))
    };
    let crosses = |place: &Path| {
        let way = path
            .ancestors()
            .take_while(|above| above.starts_with(place));
        way.into_iter()
            .any(|directory| other_device(system, directory))
    };
    let empty = |place: &Path| !mounted_within(place) && !crosses(place);

    let listed = fstab(system)
        .into_iter()
        .filter(|place| path.starts_with(place) && empty(place))
        // The deepest is the one that was meant.
        .max_by_key(|place| place.components().count());
    listed.or_else(|| {
        let (base, depth) = BASES
            .iter()
            .map(|&(base, depth)| (Path::new(base), depth))
            .find(|(base, _)| path.starts_with(base))?;
        let own = OF_MEDIA.iter().map(Path::new);
        let own = own.into_iter().find(|place| path.starts_with(place));
        empty(base).then(|| {
            if let Some(own) = own {
                return own.to_owned();
            }
            let base_depth = base.components().count();
            path.components().take(base_depth + depth).collect()
        })
    })
}

/// Mountpoints that `fstab` lists, but for the root.
fn fstab(system: &SystemPaths) -> Vec<PathBuf> {
    let table = fs::read(system.root.join("etc/fstab")).unwrap_or_default();
    table
        .split(|&byte| byte == b'\n')
        .filter_map(|line| {
            let mut fields = line
                .split(|byte| byte.is_ascii_whitespace())
                .filter(|field| !field.is_empty());
            let source = fields.next()?;
            let place = path_of(fields.next()?);
            let real = !source.starts_with(b"#") && place.is_absolute();
            (real && place != Path::new("/")).then_some(place)
        })
        .collect()
}

fn other_device(system: &SystemPaths, directory: &Path) -> bool {
    let device = |path: &Path| fs::metadata(system.real(path)).map(|meta| meta.dev());
    let Some(parent) = directory.parent() else {
        return false;
    };
    matches!((device(directory), device(parent)), (Ok(own), Ok(above)) if own != above)
}
