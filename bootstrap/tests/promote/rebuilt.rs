//! A source whose log lost records and was made again.

use std::sync::Arc;

use asl_bootstrap::Error;
use asl_bootstrap::domain::Class;
use asl_bootstrap::lineage::Op;
use asl_bootstrap::promote::PromoteError;
use asl_bootstrap::trust::{LogPin, Trusted};
use asl_store::vfs::fault::FaultVfs;
use asl_store::{RepairOptions, repair};

use crate::fixture::context;
use crate::world::*;

const ACCEPT: How<'_> = How {
    accept_rebuilt: true,
    ..PLAIN
};

/// The log's files, oldest first.
fn logs(vfs: &FaultVfs) -> Vec<(String, u64)> {
    let files = vfs.files().into_iter();
    let mut logs: Vec<_> = files
        .filter_map(|(path, len)| Some((path.strip_suffix(".asl")?.to_owned(), len)))
        .filter(|(path, _)| path.starts_with("log/log-"))
        .collect();
    logs.sort();
    let named = logs.into_iter();
    named.map(|(path, len)| (path + ".asl", len)).collect()
}

fn rebuild(vfs: &FaultVfs) {
    let options = RepairOptions {
        accept_lost_tail: true,
        ..RepairOptions::default()
    };
    let report = repair(Arc::new(vfs.clone()), context(200), &options).unwrap();
    assert!(report.recovery.lost_records > 0, "{report:?}");
}

fn refusal(child: &FaultVfs, home: &FaultVfs, how: &How<'_>) -> PromoteError {
    match plan(child, home, how).unwrap_err() {
        Error::Promote(error) => error,
        error => panic!("{error:?}"),
    }
}

fn all_of_it(vfs: &FaultVfs) {
    for (path, _) in logs(vfs) {
        vfs.remove_file(&path).unwrap();
    }
}

fn the_middle(vfs: &FaultVfs) {
    let (path, len) = logs(vfs)[0].clone();
    vfs.flip_byte(&path, len / 2).unwrap();
    for (path, _) in vfs.files() {
        if path.ends_with("state.bin") {
            vfs.remove_file(&path).unwrap();
        }
    }
}

fn the_end(vfs: &FaultVfs) {
    let (path, len) = logs(vfs).pop().unwrap();
    let mut raw = vfs.read_file(&path).unwrap();
    raw.truncate(len as usize - 100);
    vfs.write_file(&path, &raw).unwrap();
}

/// It takes a user who knows of it; from then on it is what the source is, and older copies of that are refused.
#[test]
fn a_log_that_was_made_again_is_taken_only_if_that_is_accepted() {
    for harm in [all_of_it, the_middle, the_end] {
        let (child, home) = (rescue(), founded(HOME));
        promote(&child, &home, &PLAIN).unwrap();
        let seen = plan(&child, &home, &PLAIN).unwrap().seen();
        let remembered = Trusted {
            domain: fixed_id(RESCUE),
            name: None,
            manifest: None,
            logs: vec![seen[0].head],
        };
        let known = How {
            remembered: Some(&remembered),
            ..PLAIN
        };
        advance(&child, 63);
        let expected = captures(&child);
        harm(&child);
        rebuild(&child);
        let before = files(&home);
        for (into, how) in [(&home, PLAIN), (&home, known), (&founded(HOME), PLAIN)] {
            let refused = refusal(&child, into, &how);
            assert!(
                matches!(refused, PromoteError::Rebuilt { .. }),
                "{refused:?}"
            );
            assert_eq!(refused.class(), Some(Class::Fork));
        }
        assert_eq!(files(&home), before);

        let how = How {
            accept_rebuilt: true,
            ..known
        };
        let second = promote(&child, &home, &how).unwrap();
        assert_eq!(second.links[0].lineage.op, Op::Adopt);
        assert_eq!(captures(&home), expected);
        verified(&home);
        // Once accepted it need not be accepted again.
        let settled = plan(&child, &home, &PLAIN).unwrap();
        assert!(settled.is_done());
        let old = child.fork();
        advance(&child, 64);
        let third = promote(&child, &home, &PLAIN).unwrap();
        assert_eq!(third.links[0].lineage.prev, Some(second.links[0].key));
        assert_eq!(captures(&home), captures(&child));
        verified(&home);

        // What was accepted was one loss, not every loss.
        assert!(matches!(
            refusal(&old, &home, &PLAIN),
            PromoteError::RolledBack { .. }
        ));
        let moved: LogPin = plan(&child, &home, &PLAIN).unwrap().seen()[0].head;
        let remembered = Trusted {
            logs: vec![moved],
            ..remembered.clone()
        };
        let how = How {
            remembered: Some(&remembered),
            ..PLAIN
        };
        assert!(matches!(
            refusal(&old, &home, &how),
            PromoteError::RolledBack { .. }
        ));
        the_end(&child);
        rebuild(&child);
        assert!(matches!(
            refusal(&child, &home, &PLAIN),
            PromoteError::Rebuilt { .. }
        ));
        promote(&child, &home, &ACCEPT).unwrap();
        verified(&home);
    }
}
