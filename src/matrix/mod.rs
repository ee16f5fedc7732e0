//! What is tested, as data that has been read: pure, no files, no clock, nothing asynchronous.
//!
//! Owns the catalogue of platforms and custom kernels. Does not own where an image lies or how it is built
//! (`image`), nor machines (`stack`). To add a distribution: a row in `matrices/catalog/`.

pub mod catalogue;
