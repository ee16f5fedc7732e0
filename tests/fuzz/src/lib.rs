//! Fuzz targets of kmt-run.

pub mod targets;
