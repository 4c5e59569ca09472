//! Which errno of a read means what: the one table that decides between "this
//! range is bad", "the device is gone" and "this process cannot read here".
//!
//! The kernel's block layer translates a driver's verdict to an errno
//! (`blk_errors` in block/blk-core.c). Those that speak of the medium or of one
//! command are [`Unreadable`](ReadFailure::Unreadable); whether the device is
//! still there after one of them is for the caller to ask, since several
//! drivers answer `EIO` for everything once the hardware has left.

use rustix::io::Errno;

use super::ReadFailure;

/// The device or what stands behind it (a network file, a FUSE daemon) has left.
const GONE: [Errno; 8] = [
    Errno::NODEV,
    Errno::NXIO,
    Errno::NOMEDIUM,
    Errno::NOENT,
    Errno::STALE,
    Errno::NOTCONN,
    Errno::SHUTDOWN,
    Errno::CONNABORTED,
];

/// A fault of this process, its descriptor, its buffer or its rights: trying
/// another range would fail alike, so nothing about the medium follows from it.
const FATAL: [Errno; 21] = [
    Errno::BADF,
    Errno::ACCESS,
    Errno::PERM,
    Errno::INVAL,
    Errno::NOMEM,
    Errno::FAULT,
    Errno::ISDIR,
    Errno::SPIPE,
    Errno::NOSYS,
    Errno::NOTSUP,
    Errno::NOTTY,
    Errno::OVERFLOW,
    Errno::FBIG,
    Errno::NOBUFS,
    Errno::MFILE,
    Errno::NFILE,
    Errno::AGAIN,
    Errno::BUSY,
    Errno::DEADLK,
    Errno::LOOP,
    // Another host holds a SCSI reservation: the whole device refuses, not this range.
    Errno::BADE,
];

/// What a read that failed with `errno` says about the source. `EINTR` is not
/// an answer: repeat the read.
pub fn classify(errno: Errno) -> ReadFailure {
    let number = errno.raw_os_error();
    if GONE.contains(&errno) {
        ReadFailure::Gone { errno: number }
    } else if FATAL.contains(&errno) {
        ReadFailure::Fatal { errno: number }
    } else {
        ReadFailure::Unreadable { errno: number }
    }
}

/// A read past the end of the source, or one that is not aligned: the caller's mistake.
pub(crate) const MISUSE: ReadFailure = ReadFailure::Fatal {
    errno: Errno::INVAL.raw_os_error(),
};

/// End of file before the known size.
pub(crate) const END_OF_FILE: ReadFailure = ReadFailure::Gone { errno: 0 };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_errno_has_its_meaning() {
        for errno in [19, 6, 123, 116, 107] {
            let gone = classify(Errno::from_raw_os_error(errno));
            assert_eq!(gone, ReadFailure::Gone { errno });
        }
        for errno in [5, 61, 110, 121, 67, 84, 74, 117, 62] {
            let unreadable = classify(Errno::from_raw_os_error(errno));
            assert_eq!(unreadable, ReadFailure::Unreadable { errno });
        }
        for errno in [9, 13, 1, 22, 12, 14, 52] {
            let fatal = classify(Errno::from_raw_os_error(errno));
            assert_eq!(fatal, ReadFailure::Fatal { errno });
        }
    }
}
