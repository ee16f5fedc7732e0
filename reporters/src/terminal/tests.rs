//! The screens, as snapshots and by rule.

use std::sync::{Arc, Mutex};

use super::*;
use crate::junit;
use crate::model::script::{Script, runs};

/// A stream that can be read back.
#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl Write for Screen {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn dump() {
    let Ok(folder) = std::env::var("KMT_LOG_OUT") else { return };
    std::fs::create_dir_all(&folder).unwrap();
    for (name, script) in runs::all() {
        let mut writer =
            crate::event::LogWriter::new(std::fs::File::create(format!("{folder}/{name}.jsonl")).unwrap());
        script.log.iter().for_each(|envelope| writer.append(envelope).unwrap());
    }
}
