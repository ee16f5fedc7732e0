//! Tests on real machines.
