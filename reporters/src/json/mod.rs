//! temp
use std::path::Path;
use crate::{Masks, model::Run};
/// temp
pub fn write(_run: &Run, _masks: &Masks, path: &Path) -> std::io::Result<()> { std::fs::write(path, "{}") }
