//! From a pipeline, a run or a folder of artifacts to the facts of an explanation.
//!
//! Owns what jobs and artifacts mean ([`names`]), which of many attempts counts ([`jobs`]), reading what others wrote
//! without trusting it ([`archive`], [`junit`]), and the decision what kind of failure it is, by evidence ([`decide`],
//! [`logs`]). Owns no wording of a report (`kmt_reporters::explain`) and no server (`external::ci`). To know one more
//! message of a log: a row in [`logs`].

pub mod again;
pub mod archive;
pub mod decide;
pub mod entries;
pub mod failed;
pub mod folder;
pub mod jobs;
pub mod junit;
pub mod kept;
pub mod logs;
pub mod machines;
pub mod names;
pub mod own;
pub mod pipeline;
pub mod replay;
pub mod run;
pub mod sizes;
pub mod store;
