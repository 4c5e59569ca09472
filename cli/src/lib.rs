//! The face of the rescue toolkit.
