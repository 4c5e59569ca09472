//! The programs as users run them.

mod contract;
mod harm;
mod place;
mod programs;
mod session;
