//! The real program killed at random moments: nothing durable is lost, and the same
//! command goes on until the image is whole.

#[path = "support/killing.rs"]
mod killing;
mod support;

use std::time::Duration;

use killing::killed_after;
use support::{json, program};

/// Covers B10, K4. Everyday 4 kills, with `ASL_TEST_ALL` 20.
#[test]
fn killed_captures_go_on_and_end_whole() {
    let kills = if std::env::var_os("ASL_TEST_ALL").is_some() {
        20
    } else {
        4
    };
    let room = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (disk, store) = (room.path().join("disk.img"), room.path().join("store"));
    // Compressible, so that a high level takes its time; no two chunks are equal.
    let mut image = vec![0; 48 << 20];
    let mut noise = blake3::Hasher::new().finalize_xof();
    for block in image.chunks_mut(4096) {
        noise.fill(&mut block[..2048]);
    }
    std::fs::write(&disk, &image).unwrap();
    assert!(
        program("asl")
            .args(["store", "init", "--quiet"])
            .arg(&store)
            .output()
            .unwrap()
            .status
            .success()
    );
    let capture = |more: &[&str]| {
        let mut command = program("asl-capture");
        command
            .arg("disk")
            .arg(&disk)
            .arg("--store")
            .arg(&store)
            .args(["--compression", "17"])
            .args(more);
        command
    };
    let mut random = blake3::Hasher::new().update(b"kills").finalize_xof();
    for kill in 0..kills {
        let mut byte = [0];
        random.fill(&mut byte);
        let moment = Duration::from_millis(100 + u64::from(byte[0]) * 9);
        killed_after(&mut capture(&["--quiet"]), moment);
        // Whoever looks meanwhile sees a sound store.
        let (code, list) = json(program("asl").args(["captures", "--store"]).arg(&store));
        assert_eq!(code, 0, "after kill {kill}: {list}");
    }
    let (code, result) = json(&mut capture(&[]));
    assert_eq!(code, 0, "{result}");
    assert_eq!(result["rescued_bytes"], image.len());
    assert_eq!(result["image_blake3"], blake3::hash(&image).to_string());
    let (code, verified) = json(
        program("asl")
            .args(["store", "verify", "--store"])
            .arg(&store),
    );
    assert_eq!(
        (code, &verified["ok"]),
        (0, &serde_json::Value::Bool(true)),
        "{verified}"
    );
    let out = room.path().join("out.img");
    let id = result["capture"].as_str().unwrap();
    let (code, _) = json(
        program("asl")
            .args(["export", id])
            .arg(&out)
            .arg("--store")
            .arg(&store),
    );
    assert_eq!(code, 0);
    assert!(
        std::fs::read(&out).unwrap() == image,
        "the exported image equals the source"
    );
}
