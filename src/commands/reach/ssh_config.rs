//! `stack ssh-config`: nothing but the configuration on standard output.

use std::collections::BTreeMap;

use super::super::print;
use super::super::stack::named;
use super::everything;
use crate::error::Result;
use crate::settings::Settings;

/// Prints the sections of all machines of these stacks, of all stacks without a name.
///
/// # Errors
/// A stack that does not exist.
pub(super) async fn ssh_config(settings: &Settings, stacks: &[String]) -> Result<u8> {
    let mut wanted = Vec::new();
    let all = stacks.is_empty() || stacks.iter().any(|name| name == "all");
    for name in stacks.iter().filter(|_| !all) {
        wanted.push(named(settings, Some(name)).await?.uuid);
    }
    let mut text = "# Machines of kmt-run. Include this file at the top of ~/.ssh/config.\n".to_owned();
    let mut hosts = BTreeMap::new();
    for machine in everything(settings)? {
        if (all || wanted.contains(&machine.stack.uuid))
            && let Some(section) = machine.stack.ssh_section(&machine.machine, &machine.hosts)?
        {
            text.push_str(&section);
            hosts.extend(machine.stack.host_sections()?);
        }
    }
    hosts.values().for_each(|section| text.push_str(section));
    print(text.as_bytes())
}
