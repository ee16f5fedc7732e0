//! `stack.output`: the machines in the former tool's schema, for scripts that read it. One line of JSON, keyed by
//! host: `local`, `x86_64`, `arm64`. `ssh-port` is new there: machines here share the address of this host.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::alias::{place, tag};
use super::{MachineRecord, Progress, StackRecord, write_atomically};
use crate::error::Result;
use crate::matrix::spec::Recipe;

/// Name of the file, beside `stack.json`.
const FILE: &str = "stack.output";

/// Rewrites the file from the record.
pub(super) fn write(folder: &Path, record: &StackRecord) -> Result<()> {
    write_atomically(&folder.join(FILE), format!("{}\n", output(folder, record)).as_bytes())
}

/// Machines that are ready. The former schema has one remote host an architecture; where there are more, the others have
/// their name in the key.
fn output(folder: &Path, record: &StackRecord) -> Value {
    let mut hosts: BTreeMap<(&str, Option<&str>), Vec<Value>> = BTreeMap::new();
    for machine in record.machines.values().filter(|machine| machine.progress == Progress::Ready) {
        let key = (place(&machine.cell), machine.host.as_deref());
        hosts.entry(key).or_default().push(microvm(folder, machine));
    }
    let mut all = serde_json::Map::new();
    for ((place, name), microvms) in hosts {
        let host = name.and_then(|name| record.hosts.get(name));
        let ip = host.map_or(place, |host| host.address.as_str());
        let key = match name {
            Some(name) if all.contains_key(place) => format!("{place}@{name}"),
            _ => place.to_owned(),
        };
        all.insert(key, json!({ "ip": ip, "microvms": microvms }));
    }
    Value::Object(all)
}

fn microvm(folder: &Path, machine: &MachineRecord) -> Value {
    let (place, tag) = (place(&machine.cell), tag(&machine.cell));
    let set = machine.cell.set.as_deref().unwrap_or("default");
    let tags = [format!("{}_{place}", Recipe::of(&machine.cell).as_str()), set.to_owned()];
    let id = format!("{place}-{tag}-{}-ddvm-{}-{}", tags.join("-"), machine.vcpu, machine.memory_mib);
    let (address, port) = machine.ssh_at();
    json!({
        "id": id, "ip": address, "tag": tag, "vmset-tags": tags,
        "ssh-key-path": super::keys::login_key(folder), "gdb-port": machine.gdb.unwrap_or(0), "ssh-port": port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_former_schema_is_kept() {
        let mut record = StackRecord::new("demo", Path::new("/r"));
        for cell in ["debian_12/6.1/x86_64", "custom/6.12/x86_64+cws", "debian_13/6.12/x86_64"] {
            record.add(&cell.parse().unwrap(), 4, 8192, 40001);
        }
        for machine in record.machines.values_mut().filter(|machine| machine.cell.platform != "debian_13") {
            machine.progress = Progress::Ready;
        }
        let wanted = json!({ "local": { "ip": "local", "microvms": [
            {
                "id": "local-6.12-custom_local-cws-ddvm-4-8192", "ip": "127.0.0.1", "tag": "6.12",
                "vmset-tags": ["custom_local", "cws"], "ssh-key-path": "/s/keys/id_ed25519", "gdb-port": 0,
                "ssh-port": 40001,
            },
            {
                "id": "local-debian_12-distro_local-default-ddvm-4-8192", "ip": "127.0.0.1", "tag": "debian_12",
                "vmset-tags": ["distro_local", "default"], "ssh-key-path": "/s/keys/id_ed25519", "gdb-port": 0,
                "ssh-port": 40001,
            },
        ] } });
        assert_eq!(output(Path::new("/s"), &record), wanted);
        assert_eq!(output(Path::new("/s"), &StackRecord::new("empty", Path::new("/r"))), json!({}));
    }
}
