//! Boots the rescue medium in a virtual machine and works on it as a person would:
//! over the serial console, with disks that fail, vanish and come back.
//!
//! A story builds a [`Machine`], starts it, waits for what the console shows and
//! types what a person would type:
//!
//! ```no_run
//! # fn story() -> Result<(), asl_qemu::Error> {
//! use asl_qemu::{Bus, Disk, Machine, Medium, scratch};
//!
//! let directory = scratch("a-story")?;
//! let dying = Disk::new("dying", directory.join("dying.img"), Bus::Virtio);
//! let mut machine = Machine::new("a-story", Medium::ours()?)
//!     .disk(dying.bad_sectors([17, 4711]))
//!     .start()?;
//! let greeting = machine.log_in()?;
//! assert!(greeting.contains("dying"));
//! machine.console.run("asl store init /tmp/store --ephemeral")?.ok()?;
//! machine.power_off()?;
//! # Ok(())
//! # }
//! ```
//!
//! Invariants
//! - Every wait has an end: a time after which it is an error that shows the last
//!   lines of the console.
//! - What the console showed and what QEMU said is kept, in the directory that
//!   [`scratch`] names, whether or not the story ends well.
//! - Whatever happens to a story, its machine ends with it.

mod accel;
mod console;
mod disk;
mod error;
mod host;
mod machine;
mod medium;
mod place;
mod qmp;
mod rescue;
mod server;
mod writes;

pub use accel::{Accel, accel};
pub use console::{Console, Ran};
pub use disk::{BlockStats, Bus, Disk};
pub use error::{Error, Result};
pub use host::{Spread, have_program, host, program, scratch, story};
pub use machine::{Firmware, Machine, Plug, Running};
pub use medium::{Kind, Medium};
pub use place::{FileSystem, Mounted};
pub use rescue::{Minted, Patient, export_and_compare, extract, mint, promote};
pub use server::Server;
pub use writes::Writes;
