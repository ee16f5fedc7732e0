//! The JSON Schema of matrix files: it is what the program reads, and every matrix keeps to it.
//!
//! `SCHEMA=overwrite cargo test --test schema` writes `matrices/matrix.schema.json`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use kmt_run::matrix::MatrixFile;
use serde_json::Value;

fn matrices() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("matrices")
}

fn checked_in() -> Value {
    serde_json::from_str(&fs::read_to_string(matrices().join("matrix.schema.json")).unwrap()).unwrap()
}

/// What of `value` a schema does not allow; knows the words that ours uses, and no others.
fn fault(value: &Value, schema: &Value, root: &Value, at: &str) -> Option<String> {
    let schema = schema.as_object()?;
    for (word, said) in schema {
        let allowed = match word.as_str() {
            "$schema" | "$defs" | "title" | "description" | "default" | "format" => Ok(()),
            "$ref" => {
                let name = said.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                fault(value, &root["$defs"][name], root, at).map_or(Ok(()), Err)
            }
            "anyOf" | "oneOf" => {
                let faults: Vec<_> =
                    said.as_array().unwrap().iter().map(|one| fault(value, one, root, at)).collect();
                if faults.contains(&None) { Ok(()) } else { Err(format!("{at}: {faults:?}")) }
            }
            "const" => {
                if value == said {
                    Ok(())
                } else {
                    Err(format!("{at}: not {said}"))
                }
            }
            "enum" => {
                if said.as_array().unwrap().contains(value) {
                    Ok(())
                } else {
                    Err(format!("{at}: none of {said}"))
                }
            }
            "type" => of_type(value, said, at),
            "minimum" => {
                if value.as_f64().is_none_or(|n| n >= said.as_f64().unwrap()) {
                    Ok(())
                } else {
                    Err(format!("{at}: less than {said}"))
                }
            }
            "required" => {
                let missing =
                    said.as_array().unwrap().iter().find(|key| value.get(key.as_str().unwrap()).is_none());
                missing.map_or(Ok(()), |key| Err(format!("{at}: no {key}")))
            }
            "items" => {
                let mut items = value.as_array().into_iter().flatten().enumerate();
                items.find_map(|(n, item)| fault(item, said, root, &format!("{at}[{n}]"))).map_or(Ok(()), Err)
            }
            "properties" | "additionalProperties" => Ok(()),
            other => panic!("the schema says `{other}`, which this test does not know"),
        };
        if let Err(fault) = allowed {
            return Some(fault);
        }
    }
    fault_of_keys(value, schema, root, at)
}

/// The same of what an object holds.
fn fault_of_keys(
    value: &Value,
    schema: &serde_json::Map<String, Value>,
    root: &Value,
    at: &str,
) -> Option<String> {
    value.as_object().into_iter().flatten().find_map(|(key, inner)| {
        let at = format!("{at}.{key}");
        match (schema.get("properties").and_then(|known| known.get(key)), schema.get("additionalProperties"))
        {
            (Some(known), _) => fault(inner, known, root, &at),
            (None, Some(Value::Bool(false))) => Some(format!("{at}: unknown")),
            (None, Some(others)) => fault(inner, others, root, &at),
            (None, None) => None,
        }
    })
}

fn of_type(value: &Value, said: &Value, at: &str) -> Result<(), String> {
    let is = |name: &str| match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("the schema says type `{other}`"),
    };
    let names: Vec<&str> = match said {
        Value::Array(names) => names.iter().map(|name| name.as_str().unwrap()).collect(),
        one => vec![one.as_str().unwrap()],
    };
    if names.iter().any(|name| is(name)) { Ok(()) } else { Err(format!("{at}: no {said}")) }
}

fn refused_by_schema(text: &str) -> Option<String> {
    let value: toml::Value = toml::from_str(text).unwrap();
    let schema = checked_in();
    fault(&serde_json::to_value(value).unwrap(), &schema, &schema, "")
}

fn refused_by_program(text: &str) -> Option<String> {
    MatrixFile::parse("m.toml", text).err().map(|complaint| complaint.message)
}

#[test]
fn the_checked_in_schema_is_the_programs() {
    let path = matrices().join("matrix.schema.json");
    let now = format!("{}\n", serde_json::to_string_pretty(&MatrixFile::schema()).unwrap());
    if std::env::var_os("SCHEMA").is_some_and(|word| word == "overwrite") {
        fs::write(&path, &now).unwrap();
    }
    assert!(fs::read_to_string(path).unwrap() == now, "SCHEMA=overwrite cargo test --test schema");
}

#[test]
fn every_shipped_matrix_keeps_to_the_schema_and_names_it() {
    let mut count = 0;
    for path in fs::read_dir(matrices()).unwrap().map(|entry| entry.unwrap().path()) {
        if path.extension().is_some_and(|ending| ending == "toml") {
            let text = fs::read_to_string(&path).unwrap();
            assert_eq!(refused_by_schema(&text), None, "{}", path.display());
            assert!(text.starts_with("#:schema matrix.schema.json\n"), "{}", path.display());
            count += 1;
        }
    }
    assert!(count >= 6, "{count} matrices");
}

/// A matrix that says everything once.
const WHOLE: &str = r#"
extends = []
root = "here"
component = "system-probe"
vms = ["debian_12-local-distro"]
vcpu = 2
memory = [1024, 2048]
network = "outbound"
packages = ["./pkg/..."]
env = { A = "1" }
timeouts = { "./pkg/..." = "5m" }

[axes]
distro = ["ubuntu"]
kernel = [">=5.4, <6.2"]
arch = ["x86_64"]
where = "auto"

[[include]]
vm = "custom-6.12-local"
vcpu = 4
memory = 4096

[[custom-kernel]]
version = "6.19"
from = "linux-image-6.19.deb"
arch = "x86_64"
userland = "debian_12"

[[exclude]]
vm = "jammy-local-distro"
distro = ["ubuntu", "custom"]
kernel = "<6"
arch = "x86_64"
set = "a"
reason = "none"

[test-sets.a]
cells = "distro(debian)"
args = ["-x"]
env = { B = "2" }
container = "image"
packages."./pkg/..." = { run-only = ["TestA"], skip = ["TestB"], exclude = false, args = ["-y"], env = { C = "3" } }

[test-sets.b]
"#;

fn keys_of(schema: &Value, keys: &mut Vec<String>) {
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        keys.extend(properties.keys().cloned());
    }
    match schema {
        Value::Object(inner) => inner.values().for_each(|value| keys_of(value, keys)),
        Value::Array(inner) => inner.iter().for_each(|value| keys_of(value, keys)),
        _ => {}
    }
}

#[test]
fn schema_and_program_accept_the_same() {
    assert_eq!((refused_by_schema(WHOLE), refused_by_program(WHOLE)), (None, None));
    // Every key of the schema is in it, but `import`, whose file would have to be there.
    let mut known = Vec::new();
    keys_of(&checked_in(), &mut known);
    for key in known {
        assert!(WHOLE.contains(&key) || key == "import", "{key}");
    }
    let mut keys = 0;
    for (number, line) in WHOLE.lines().enumerate() {
        let Some((key, value)) = line.split_once(" = ") else { continue };
        let with = |line: &str| {
            WHOLE
                .lines()
                .enumerate()
                .map(|(n, old)| format!("{}\n", if n == number { line } else { old }))
                .collect::<String>()
        };
        let wrong_type = if value.starts_with(['[', '{']) { "true" } else { "{ x = [] }" };
        for changed in [with(&format!("{key} = {wrong_type}")), with(&format!("{line}\nno-such-key = 1"))] {
            assert!(refused_by_schema(&changed).is_some(), "the schema allows\n{changed}");
            assert!(refused_by_program(&changed).is_some(), "the program allows\n{changed}");
        }
        keys += 1;
    }
    assert!(keys >= 28, "{keys} keys");
    for (from, to) in [
        ("vm = \"custom-6.12-local\"\n", ""),
        ("\"auto\"", "\"moon\""),
        ("\"outbound\"", "\"open\""),
        ("vcpu = 2", "vcpu = -2"),
    ] {
        let changed = WHOLE.replace(from, to);
        assert!(refused_by_schema(&changed).is_some() && refused_by_program(&changed).is_some(), "{to:?}");
    }
    let unreasoned = WHOLE.replace("reason = \"none\"\n", "");
    assert!(refused_by_schema(&unreasoned).unwrap().contains("reason"));
}
