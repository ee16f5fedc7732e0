//! What is told: the fact stream of a run, and all that can be concluded from it.
//!
//! ```text
//! Event -> Envelope (events.jsonl) -> model::Run -> terminal | junit | html | json | trace | markdown
//!                       consoles -> triage: the cause of every failed boot -^
//! ```
//!
//! A report is a function of a [`model::Run`], of an [`OutputSource`] (the bytes that events only name), and of the
//! [`Masks`] (values that must not show). This crate depends on nothing of ours.

pub mod compare;
pub mod event;
pub mod explain;
pub mod html;
pub mod json;
pub mod junit;
pub mod markdown;
pub mod model;
pub mod redact;
pub mod terminal;
pub mod trace;
pub mod triage;

mod mask;
mod output;
pub mod text;

pub use mask::{MASK, Masks, mask};
pub use output::{NoOutput, OutputSource, RunDirectory};
pub use text::{bytes, escape, escape_line, plural, roughly, seconds, strip_ansi};
