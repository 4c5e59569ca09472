//! The programs as users run them.

mod alone;
mod capture;
mod contract;
mod devices;
mod full;
mod guide;
mod harm;
mod hints;
mod hosting;
mod minting;
mod onto;
mod place;
mod programs;
mod promoting;
mod secrets;
mod session;
mod terminal;
mod wizard;
