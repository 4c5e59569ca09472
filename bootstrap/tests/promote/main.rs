//! Promotion on the fault file system: the whole story, everything that must be refused, and every place where it can be cut off.
//!
//! `ASL_TEST_ALL=1` cuts off at every operation instead of some.

// What the fixture, which is a part of the crate as well, finds there.
pub(crate) use asl_bootstrap::{author, dam, domain, key, policy, receipt};

#[path = "../../src/fixture.rs"]
#[allow(dead_code, reason = "each test uses its part")]
mod fixture;
mod hostile;
mod model;
mod rebuilt;
mod several;
mod story;
mod sweep;
mod world;
