//! `report.html`: a run as one page that opens from a disk, without a network, in any light.
//!
//! Owns the page: what of the run is in it and within which bounds (`page`), what a console's guilty lines are (`consoles`),
//! its look (`page.css`) and its behaviour (`page.js`). Owns no verdict and no count. Everything from outside travels as
//! JSON that the script puts in by `textContent`; the content policy allows this style and this script by their hashes,
//! and nothing else. To show more: a field in `page`, and its place in `page.js`.

mod consoles;
mod page;

#[cfg(test)]
mod tests;

use std::path::Path;

use base64::Engine as _;
use sha2::{Digest as _, Sha256};

use crate::event::CellId;
use crate::junit::replace;
use crate::mask::Masks;
use crate::model::Run;
use crate::output::OutputSource;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// What a page needs beside the run.
pub struct Sources<'s> {
    /// The bytes that events name.
    pub output: &'s dyn OutputSource,
    /// What must not show.
    pub masks: &'s Masks,
    /// How a cell is asked for on a command line.
    pub spelling: &'s dyn Fn(&CellId) -> Option<String>,
}

impl std::fmt::Debug for Sources<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").field("masks", &self.masks).finish_non_exhaustive()
    }
}

/// The page could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the page `{path}`", path = .path.display())]
pub struct PageError {
    path: std::path::PathBuf,
    source: std::io::Error,
}

/// Writes the page, whole or not at all.
pub fn write(run: &Run, sources: &Sources<'_>, path: &Path) -> Result<(), PageError> {
    let failed = |source| PageError { path: path.to_owned(), source };
    let text = text(run, sources).map_err(|error| failed(error.into()))?;
    replace(path, text.as_bytes()).map_err(failed)
}

/// The page as text.
pub fn text(run: &Run, sources: &Sources<'_>) -> Result<String, serde_json::Error> {
    let report = run.report();
    let value = sources.masks.mask_json(page::value(&report, sources)?, &[]);
    // No `<` in it: neither an end tag nor a comment can begin.
    let json = serde_json::to_string(&value)?.replace('<', "\\u003c");
    let outcome = report.outcome().as_str();
    let title =
        escaped(&sources.masks.mask(&format!("{} · {} · kmt-run", outcome.replace('-', " "), run.id)));
    let policy = format!(
        "default-src 'none'; style-src '{}'; script-src '{}'; base-uri 'none'; form-action 'none'",
        hash(STYLE),
        hash(SCRIPT)
    );
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n\
         <body data-outcome=\"{outcome}\">\n<div id=\"app\"><h1>{title}</h1>\
         <noscript><p>This page needs its own script; it loads nothing.</p></noscript></div>\n\
         <script type=\"application/json\" id=\"data\">{json}</script>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    ))
}

pub(crate) fn hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    format!("sha256-{}", base64::engine::general_purpose::STANDARD.encode(digest))
}

pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
